"""Remote files for asynchronous programs: what `ndstream.open` gives, with ``await`` wherever a server is asked.

>>> async with ndstream.aopen("http://127.0.0.1:8000", "run/scan.h5") as file:  # doctest: +SKIP
...     frames = await file["entry/frames"]
...     first = await frames[0]
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Generator, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ndstream.client import changes
from ndstream.client.address import normalise
from ndstream.client.aio_connection import AioConnection
from ndstream.client.attributes import RemoteAttributes
from ndstream.client.datatypes import RemoteDatatype
from ndstream.client.described import DescribedDataset
from ndstream.client.empty import Empty
from ndstream.client.values import taken
from ndstream.core import model
from ndstream.core.limits import MiB
from ndstream.core.operations import Event, Operation, Outcome
from ndstream.core.selection import select
from ndstream.errors import InvalidRequest, InvalidSelection, NotFound, UnsupportedMediaType, by_code

_ITERATED = 1 * MiB
_INLINE = 64 * 1024


class AsyncDataset(DescribedDataset):
    """A dataset on a server: shape, type and attributes are here, data are awaited: ``await dataset[10:20]``."""

    def __init__(self, connection: AioConnection, file_path: str, name: str, described: model.Dataset) -> None:
        super().__init__(name, described)
        self.connection = connection
        self.file_path = file_path

    def __getitem__(self, key: Any) -> Read:
        """Read a part of the data when awaited; indices as those of `ndstream.client.datasets.RemoteDataset`.

        Raises
        ------
        InvalidSelection, OutOfBounds
            When awaited; nothing is requested then.
        """
        return Read(self, key)

    async def read(self, key: Any = ..., dtype: DTypeLike | None = None, *, out: NDArray[Any] | None = None) -> Any:
        """Read a part of the data.

        Parameters
        ----------
        key
            Integers, slices, one Ellipsis, integer lists or arrays, masks.
        dtype : optional
            Type that the elements are converted to.
        out : ndarray, C-contiguous, optional
            Where the result goes; much faster than a new array. Elements are converted to its type.

        Returns
        -------
        ndarray, or a scalar when every axis is an integer

        Raises
        ------
        InvalidSelection, OutOfBounds, InvalidRequest
        NDStreamError
        """
        if self.shape is None:
            if key is Ellipsis or key == ():
                return Empty(self.dtype)
            raise InvalidSelection(f"{self.name}: a null dataspace has no elements to select")
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
        return result if result.ndim or out is not None or (self.shape == () and key is Ellipsis) else result[()]

    async def write(self, key: Any, value: Any) -> None:
        """Write a part of the data, durably; the value is broadcast, numbers are converted as h5py does.

        Raises
        ------
        Forbidden, Conflict, InvalidSelection, OutOfBounds, UnsupportedDType
        """
        await self._change(changes.write(self, key, value))

    async def append(self, value: Any, axis: int = 0, key: str | None = None) -> int | None:
        """Make the dataset longer, atomically and durably; see `WritableDataset.append`.

        Returns
        -------
        int or None
            Index along `axis` where it landed.
        """
        return (await self._change(changes.append(self, value, axis, key))).start

    async def resize(self, size: int | tuple[int, ...], axis: int | None = None) -> None:
        """Give the dataset another shape, or another length along one axis."""
        await self._change(changes.resize(self, size, axis))

    async def _change(self, operation: Operation) -> Outcome:
        (outcome,) = (await self.connection.apply(self.file_path, [operation])).outcomes
        if outcome.shape is not None and outcome.shape != self.shape:
            self.shape = outcome.shape
        self._described = msgspec.structs.replace(self._described, shape=self.shape, data=None)
        self.__dict__.pop("data", None)
        return outcome

    async def refresh(self) -> None:
        """Look shape and attributes up again."""
        found = await self.connection.describe(self.file_path, self.name)
        if not isinstance(found, model.Dataset):
            raise NotFound(f"{self.name} is no dataset any more")
        for name in ("dtype", "data", "attrs"):
            self.__dict__.pop(name, None)
        DescribedDataset.__init__(self, self.name, found)

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


class Read:
    """A read that happens when it is awaited."""

    def __init__(self, dataset: AsyncDataset, key: Any) -> None:
        self._dataset = dataset
        self._key = key

    def __await__(self) -> Generator[Any, None, Any]:
        return self._dataset.read(self._key).__await__()


class AsyncGroup:
    """A group on a server: its names and attributes are here, members are awaited: ``await group["a/b"]``."""

    kind = "group"

    def __init__(self, connection: AioConnection, file_path: str, name: str, described: model.Group) -> None:
        self.connection = connection
        self.file_path = file_path
        self.name = name
        self.described = described

    @cached_property
    def attrs(self) -> RemoteAttributes:
        """Attributes."""
        return RemoteAttributes(self.described.attributes, self.name)

    def keys(self) -> list[str]:
        """Names of the members, in order."""
        return list(self.described.members)

    async def __getitem__(self, name: str) -> AsyncObject:
        """Group, dataset or committed type at a path, relative or absolute; soft links are followed.

        Raises
        ------
        NotFound
            There is no such object, also KeyError.
        NDStreamError
        """
        absolute = posixpath.normpath(posixpath.join(self.name, name))
        found = await self.connection.describe(self.file_path, absolute, data=_INLINE)
        return _made(self.connection, self.file_path, absolute, found)

    async def values(self) -> AsyncIterator[AsyncObject]:
        """Objects, in order."""
        for name in self.described.members:
            yield await self[name]

    async def items(self) -> AsyncIterator[tuple[str, AsyncObject]]:
        """Names and objects, in order."""
        for name in self.described.members:
            yield name, await self[name]

    def __contains__(self, name: object) -> bool:
        return name in self.described.members

    def __iter__(self) -> Any:
        return iter(self.described.members)

    def __len__(self) -> int:
        return len(self.described.members)

    def __repr__(self) -> str:
        return f"<async group {self.name}: {len(self)} members>"


AsyncObject: TypeAlias = AsyncGroup | AsyncDataset | RemoteDatatype


class AsyncFile:
    """An HDF5 file on a server."""

    def __init__(self, connection: AioConnection, described: model.File, path: str) -> None:
        self.connection = connection
        self.described = described
        self.file_path = path

    async def root(self) -> AsyncGroup:
        """Look up the root group.

        Raises
        ------
        UnsupportedMediaType
            This is no HDF5 file.
        """
        found = await self["/"]
        assert isinstance(found, AsyncGroup)
        return found

    async def __getitem__(self, name: str) -> AsyncObject:
        """Object at a path, see `AsyncGroup`; ``"/"`` is the root group."""
        if not self.described.is_hdf5:
            raise UnsupportedMediaType(f"/{self.file_path} is {self.described.media_type}, not HDF5")
        absolute = posixpath.normpath(posixpath.join("/", name))
        found = await self.connection.describe(self.file_path, absolute, data=_INLINE)
        return _made(self.connection, self.file_path, absolute, found)

    async def read_many(self, wanted: Sequence[tuple[AsyncDataset, Any]]) -> list[NDArray[Any]]:
        """Read selections of several datasets of this file in one request.

        Parameters
        ----------
        wanted : sequence of (AsyncDataset, index expression)

        Returns
        -------
        list of ndarray
        """
        selections = [(dataset, select(key, dataset.shape or ())) for dataset, key in wanted]
        results = [np.empty(chosen.shape + dataset.dtype.shape, dataset.dtype.base) for dataset, chosen in selections]
        reads = [(dataset.name, chosen, out) for (dataset, chosen), out in zip(selections, results, strict=True)]
        await self.connection.read_many(self.file_path, reads)
        return results

    def follow(self, since: int | None = None) -> AsyncIterator[Event]:
        """Events of the commits after number `since` (None: from now on), as they happen."""
        return self.connection.follow(self.file_path, since)

    def __repr__(self) -> str:
        return f"<async file /{self.file_path} of {self.connection.server}>"


class AsyncDirectory:
    """A directory on a server."""

    def __init__(self, connection: AioConnection, described: model.Directory, path: str) -> None:
        self.connection = connection
        self.described = described
        self.file_path = path

    def keys(self) -> list[str]:
        """Names of the directories and files in it."""
        return [*self.described.directories, *self.described.files]

    async def __getitem__(self, name: str) -> AsyncDirectory | AsyncFile:
        """Directory or file at a path below."""
        path = normalise(f"{self.file_path}/{name}")
        return entry_object(self.connection, await self.connection.lookup(path), path)

    def __contains__(self, name: object) -> bool:
        return name in self.described.directories or name in self.described.files

    def __iter__(self) -> Any:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        return f"<async directory /{self.file_path} of {self.connection.server}>"


def entry_object(
    connection: AioConnection, found: model.Directory | model.File, path: str
) -> AsyncDirectory | AsyncFile:
    """Make the object of what a server describes."""
    if isinstance(found, model.Directory):
        return AsyncDirectory(connection, found, path)
    return AsyncFile(connection, found, path)


def _made(connection: AioConnection, file_path: str, name: str, node: model.Node) -> AsyncObject:
    match node:
        case model.Group():
            return AsyncGroup(connection, file_path, name, node)
        case model.Dataset():
            return AsyncDataset(connection, file_path, name, node)
        case model.NamedType():
            return RemoteDatatype(name, node)
        case model.Unreadable(problem=problem, code=code):
            raise by_code(code)(f"/{file_path}::{name}: {problem}")
        case _:
            raise NotFound(f"/{file_path}::{name} is a link that leads nowhere")


class Opening:
    """What `ndstream.aopen` gives: await it, or use it with ``async with``, which closes the connections at the end."""

    def __init__(self, connection: AioConnection, path: str) -> None:
        self._connection = connection
        self._path = path

    def __await__(self) -> Generator[Any, None, Any]:
        return self._open().__await__()

    async def __aenter__(self) -> Any:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.aclose()

    async def _open(self) -> AsyncDirectory | AsyncFile:
        try:
            return entry_object(self._connection, await self._connection.lookup(self._path), self._path)
        except BaseException:
            await self._connection.aclose()
            raise
