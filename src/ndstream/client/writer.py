"""Where the operations of a file go: to the server one by one, or together at the end of a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from ndstream.client.connection import Connection
from ndstream.core.operations import Operation, Outcome
from ndstream.errors import InvalidRequest

Told: TypeAlias = Callable[[Outcome], None]


def _nobody(outcome: Outcome) -> None:
    """Nobody needs to know."""


class Writer:
    """Carries out operations on one file. For one thread at a time.

    Attributes
    ----------
    commits : int
        Grows with every commit made here: what was known of the file before is out of date.
    """

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._waiting: list[tuple[Operation, Told]] | None = None
        self.commits = 0

    def do(self, operation: Operation, told: Told = _nobody) -> Outcome | None:
        """Carry out an operation, durably, or keep it for the end of the transaction that is under way.

        Parameters
        ----------
        told : callable
            Given the outcome, now or when the transaction has ended.

        Returns
        -------
        Outcome or None
            None within a transaction.

        Raises
        ------
        NDStreamError
            See `Connection.apply`.
        """
        if self._waiting is not None:
            self._waiting.append((operation, told))
            return None
        return self._commit([(operation, told)])[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Carry out what is done inside together when the block ends, or not at all when it raises.

        Reads inside see the file as it was before.

        Raises
        ------
        InvalidRequest
            A transaction is under way already.
        """
        if self._waiting is not None:
            raise InvalidRequest("a transaction is under way already")
        self._waiting = []
        try:
            yield
            waiting = self._waiting
        finally:
            self._waiting = None
        if waiting:
            self._commit(waiting)

    def _commit(self, waiting: list[tuple[Operation, Told]]) -> tuple[Outcome, ...]:
        committed = self._connection.apply(self._path, [operation for operation, _ in waiting])
        self.commits += 1
        for (_, told), outcome in zip(waiting, committed.outcomes, strict=True):
            told(outcome)
        return committed.outcomes
