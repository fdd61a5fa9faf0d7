"""Datasets and attributes on a server, for asynchronous programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ndstream.client import changes
from ndstream.client.aio_connection import AioConnection
from ndstream.client.aio_writer import AsyncWriter
from ndstream.client.attributes import RemoteAttributes
from ndstream.client.described import DescribedDataset
from ndstream.client.values import taken
from ndstream.core import model
from ndstream.core.limits import MiB
from ndstream.core.operations import DeleteAttributes, Operation, Outcome, SetAttributes
from ndstream.core.selection import select
from ndstream.errors import InvalidRequest, NotFound

_ITERATED = 1 * MiB


class _Changeable(Protocol):
    """What has attributes, and learns what is done to them."""

    @property
    def name(self) -> str:
        """Absolute path inside the file."""
        ...

    @property
    def described(self) -> model.Group | model.Dataset:
        """What is known of it."""
        ...


class AsyncAttributes(RemoteAttributes):
    """Attributes that are here already; those of a file that is open for writing can be set and deleted."""

    def __init__(self, owner: _Changeable, change: Callable[[Operation], Awaitable[Any]]) -> None:
        super().__init__({}, owner.name)
        self._object = owner
        self._change = change

    def described(self) -> Mapping[str, model.Attribute]:
        """What is known of the attributes, see `RemoteAttributes.described`."""
        return self._object.described.attributes

    async def update(self, other: Any = (), /, **values: Any) -> None:
        """Set attributes in one commit; those of the same name are replaced, whatever their type.

        Raises
        ------
        UnsupportedDType, Forbidden
        """
        await self._change(changes.set_attributes(self._owner, dict(other, **values)))

    async def create(
        self, name: str, data: Any, shape: tuple[int, ...] | None = None, dtype: DTypeLike | None = None
    ) -> None:
        """Set an attribute of a shape and type; one of that name is replaced.

        Raises
        ------
        InvalidRequest, UnsupportedDType, Forbidden
        """
        await self._change(changes.create_attribute(self._owner, name, data, shape, dtype))

    async def modify(self, name: str, value: Any) -> None:
        """Change the value of an attribute and keep its shape and type; make it when it is not there.

        Raises
        ------
        InvalidRequest, UnsupportedDType, Forbidden
        """
        await self._change(changes.modify_attribute(self._owner, name, self.described().get(name), value))

    async def delete(self, *names: str) -> None:
        """Remove attributes in one commit.

        Raises
        ------
        NotFound, Forbidden
        """
        await self._change(DeleteAttributes(name=self._owner, names=names))


class AsyncDataset(DescribedDataset):
    """A dataset on a server: shape, type and attributes are here, data are awaited: ``await dataset[10:20]``."""

    def __init__(
        self, connection: AioConnection, file_path: str, name: str, described: model.Dataset, writer: AsyncWriter
    ) -> None:
        super().__init__(name, described)
        self.connection = connection
        self.file_path = file_path
        self._writer = writer

    @property
    def attrs(self) -> AsyncAttributes:  # may change: not to be cached
        """Attributes, as they were looked up, or set through this very object."""
        return AsyncAttributes(self, self._change)

    async def __getitem__(self, key: Any) -> Any:
        """Read a part of the data when awaited; indices as those of `ndstream.client.datasets.RemoteDataset`.

        Raises
        ------
        InvalidSelection, OutOfBounds
            When awaited; nothing is requested then.
        """
        return await self.read(key)

    async def read(self, key: Any = ..., dtype: DTypeLike | None = None, *, out: NDArray[Any] | None = None) -> Any:
        """Read a part of the data.

        Parameters
        ----------
        key
            Integers, slices, one Ellipsis, integer lists or arrays, masks.
        dtype : optional
            Type that the elements are converted to.
        out : ndarray, C-contiguous, optional
            Where the result goes; much faster than a new array. Elements are converted to its type. When the read is
            cancelled nothing is written to it any more.

        Returns
        -------
        ndarray, or a scalar when every axis is an integer

        Raises
        ------
        InvalidSelection, OutOfBounds, InvalidRequest
        NDStreamError
        """
        if self.shape is None:
            return self.nothing(key)
        selection = select(key, self.shape)
        wanted = np.dtype(dtype) if dtype is not None else self.dtype
        shape = selection.shape + wanted.shape
        if out is None:
            result: NDArray[Any] = np.empty(shape, wanted.base)
        elif out.shape != shape or not out.flags.c_contiguous:
            raise InvalidRequest(f"{self.name}: the destination must be C-contiguous and of shape {shape}")
        else:
            result = out
        if self.data is not None:
            result[...] = taken(selection, self.data)
        else:
            await self.connection.read(self.file_path, self.name, selection, result, self._described)
        return result if out is not None else self.found(key, result)

    async def write(self, key: Any, value: Any) -> None:
        """Write a part of the data, durably; the value is broadcast, numbers are converted as h5py does.

        Raises
        ------
        Forbidden, Conflict, InvalidSelection, OutOfBounds, UnsupportedDType
        """
        await self._change(changes.write(self, self._writer.shape_of(self), key, value))

    async def append(self, value: Any, axis: int = 0, key: str | None = None) -> int | None:
        """Make the dataset longer, atomically and durably; see `WritableDataset.append`.

        Returns
        -------
        int or None
            Index along `axis` where it landed; None in a transaction.
        """
        outcome = await self._change(changes.append(self, value, axis, key))
        return None if outcome is None else outcome.start

    async def insert(self, index: int, value: Any, axis: int = 0) -> None:
        """Insert before `index`; what is behind moves on."""
        await self._change(changes.insert(self, index, value, axis))

    async def resize(self, size: int | tuple[int, ...], axis: int | None = None) -> None:
        """Give the dataset another shape, or another length along one axis."""
        await self._change(changes.resize(self, self._writer.shape_of(self), size, axis))

    async def follow(self) -> AsyncIterator[NDArray[Any]]:
        """Iterate over what is appended along the first axis: one array of new rows at a time.

        What is there when the first one is awaited is not among them. Close the iterator (`contextlib.aclosing`), or
        cancel the task, to stop.

        Raises
        ------
        InvalidRequest
            A scalar cannot grow.
        NotFound
            The dataset, or its file, is gone: deleted, moved, or replaced.
        NDStreamError
        """
        if not self.shape:
            raise InvalidRequest(f"{self.name}: a scalar has no rows")
        async with aclosing(self.connection.growth(self.file_path, self.name, self.dtype)) as growth:
            async for rows in growth:
                yield rows

    async def refresh(self) -> None:
        """Look shape and attributes up again. Data are read anew after that.

        Raises
        ------
        NotFound
            There is no such dataset any more.
        """
        found = await self.connection.describe(self.file_path, self.name)
        if not isinstance(found, model.Dataset):
            raise NotFound(f"{self.name} is no dataset any more")
        self.renew(found)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Rows of the first axis."""
        if not self.shape:
            raise InvalidRequest(f"{self.name}: a scalar has no rows")
        step = max(1, _ITERATED // max(1, self.nbytes // max(1, self.shape[0])))
        for start in range(0, self.shape[0], step):
            for row in await self.read(slice(start, start + step)):
                yield row

    def __repr__(self) -> str:
        return f"<async dataset {self.name}: shape {self.shape}, type {self.dtype}>"

    async def _change(self, operation: Operation) -> Outcome | None:
        return await self._writer.do(operation, partial(self._told, operation))

    def _told(self, operation: Operation, outcome: Outcome) -> None:
        described = self._described
        if isinstance(operation, SetAttributes | DeleteAttributes):
            attributes = changes.attributes_after(described.attributes, operation)
            self._described = msgspec.structs.replace(described, attributes=attributes)
            return
        if outcome.shape is not None:
            self.shape = outcome.shape
        # Small data that came along would not show what was written.
        self._described = msgspec.structs.replace(described, shape=self.shape, data=None)
        self.__dict__.pop("data", None)
