"""Where the operations of a file go: to the server one by one, or together at the end of a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ndstream.client.connection import Connection
from ndstream.core.operations import Operation, Outcome
from ndstream.errors import InvalidRequest


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
        self._waiting: list[Operation] | None = None
        self.commits = 0

    def do(self, operation: Operation) -> Outcome | None:
        """Carry out an operation, durably, or keep it for the end of the transaction that is under way.

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
            self._waiting.append(operation)
            return None
        return self._commit([operation])[0]

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
            operations = self._waiting
        finally:
            self._waiting = None
        if operations:
            self._commit(operations)

    def _commit(self, operations: list[Operation]) -> tuple[Outcome, ...]:
        committed = self._connection.apply(self._path, operations)
        self.commits += 1
        return committed.outcomes
