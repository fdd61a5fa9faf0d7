"""Operations of one file: each a commit of its own, or many together in a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import msgspec

from ndstream.client.connection import Connection
from ndstream.client.described import DescribedDataset
from ndstream.core.operations import Committed, Operation, Outcome, Payload, Resize, with_payloads
from ndstream.errors import InvalidRequest

Told: TypeAlias = Callable[[Outcome], None]


def nobody(outcome: Outcome) -> None:
    """Nobody needs to know."""


class Batch:
    """Operations that are committed together, and who is to be told what came of each.

    Attributes
    ----------
    operations : list of Operation
    ended : bool
        Whether nothing can be added any more.
    shapes : dict of str to tuple of int
        Of datasets that the operations give another shape, by name.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.ended = False
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._told: list[Told] = []

    def add(self, operation: Operation, told: Told = nobody) -> None:
        """Add an operation.

        Raises
        ------
        InvalidRequest
            The transaction has ended.
        """
        if self.ended:
            raise InvalidRequest("the transaction that this belongs to has ended")
        self.operations.append(operation)
        if isinstance(operation, Resize):
            self.shapes[operation.name] = operation.shape
        self._told.append(told)

    def keep(self, operation: Operation, told: Told = nobody) -> None:
        """Add an operation that is sent later, with a copy of its data: its arrays are the caller's to use again.

        Raises
        ------
        InvalidRequest
            The transaction has ended.
        """
        self.add(with_payloads(operation, _owned), told)

    def tell(self, committed: Committed) -> tuple[Outcome, ...]:
        """Tell everybody what came of it; outcomes in the order of the operations."""
        for told, outcome in zip(self._told, committed.outcomes, strict=True):
            told(outcome)
        return committed.outcomes


class Writer:
    """Carries out operations on one file. For one thread at a time.

    Attributes
    ----------
    commits : int
        How many this writer has asked for: who remembers something looks again when the number has changed.
    """

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._batch: Batch | None = None
        self.commits = 0

    def do(self, operation: Operation, told: Told = nobody) -> Outcome | None:
        """Carry out an operation, durably, or keep it for the end of the transaction that is under way.

        Parameters
        ----------
        told : callable
            Given the outcome, now or when the transaction has ended.

        Returns
        -------
        Outcome or None
            None in a transaction: what comes of it is known at its end.

        Raises
        ------
        NDStreamError
            See `Connection.apply`.
        """
        if self._batch is not None:
            self._batch.keep(operation, told)
            return None
        batch = Batch()
        batch.add(operation, told)
        return self._commit(batch)[0]

    def shape_of(self, dataset: DescribedDataset) -> tuple[int, ...] | None:
        """Shape that the next operation will find."""
        return dataset.shape if self._batch is None else self._batch.shapes.get(dataset.name, dataset.shape)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Carry out what is done inside together: all of it or nothing.

        Raises
        ------
        InvalidRequest
            A transaction is under way already.
        NDStreamError
            At the end, nothing was done; see `Connection.apply`.
        """
        if self._batch is not None:
            raise InvalidRequest("a transaction is under way already")
        batch = self._batch = Batch()
        try:
            yield
        finally:
            self._batch = None
        if batch.operations:
            self._commit(batch)

    def _commit(self, batch: Batch) -> tuple[Outcome, ...]:
        try:
            committed = self._connection.apply(self._path, batch.operations)
        finally:
            # One that failed may be done all the same, or have failed because of what others did.
            self.commits += 1
        return batch.tell(committed)


def _owned(payload: Payload) -> Payload:
    if isinstance(payload.data, bytes | list):
        return payload
    return msgspec.structs.replace(payload, data=bytes(payload.data))
