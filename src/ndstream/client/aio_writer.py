"""Operations of one file for asynchronous programs; the words are those of `ndstream.client.writer`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import MappingProxyType

from ndstream.client.aio_connection import AioConnection
from ndstream.client.described import DescribedDataset
from ndstream.client.writer import Batch, Told, nobody
from ndstream.core.operations import Operation, Outcome
from ndstream.errors import Forbidden, InvalidRequest

_batches: ContextVar[Mapping[AsyncWriter, Batch]] = ContextVar("ndstream_batches", default=MappingProxyType({}))


class AsyncWriter:
    """Carries out operations on one file, for any number of tasks at once.

    A transaction belongs to the task that began it, and to those that this task begins inside of it; others go on
    committing.

    Parameters
    ----------
    connection : AioConnection
    path : str
        Virtual path of the file.
    writable : bool
        Whether the file was opened for writing.
    """

    def __init__(self, connection: AioConnection, path: str, *, writable: bool) -> None:
        self._connection = connection
        self._path = path
        self._writable = writable

    async def do(self, operation: Operation, told: Told = nobody) -> Outcome | None:
        """Carry out an operation, durably, or keep it for the end of the transaction that this task is in.

        Returns
        -------
        Outcome or None
            None in a transaction.

        Raises
        ------
        Forbidden
            The file was opened to be read, or may not be written to.
        InvalidRequest
            The transaction that this task was begun in has ended.
        NDStreamError
            See `AioConnection.apply`.
        """
        self._check()
        batch = _batches.get().get(self)
        if batch is not None:
            batch.keep(operation, told)
            return None
        batch = Batch()
        batch.add(operation, told)
        return (await self._commit(batch))[0]

    def shape_of(self, dataset: DescribedDataset) -> tuple[int, ...] | None:
        """Shape that the next operation of this task will find."""
        batch = _batches.get().get(self)
        return dataset.shape if batch is None else batch.shapes.get(dataset.name, dataset.shape)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Carry out what is done inside together: all of it or nothing.

        Raises
        ------
        InvalidRequest
            This task is in a transaction of this file already.
        Forbidden
        NDStreamError
            At the end, nothing was done.
        """
        self._check()
        if self in _batches.get():
            raise InvalidRequest("a transaction is under way already")
        batch = Batch()
        token = _batches.set({**_batches.get(), self: batch})
        try:
            yield
        finally:
            batch.ended = True
            _batches.reset(token)
        if batch.operations:
            await self._commit(batch)

    def _check(self) -> None:
        if not self._writable:
            raise Forbidden(
                f"{self._connection.server}: /{self._path} was opened to be read; mode 'r+' opens for writing"
            )

    async def _commit(self, batch: Batch) -> tuple[Outcome, ...]:
        return batch.tell(await self._connection.apply(self._path, batch.operations))
