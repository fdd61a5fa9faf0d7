"""Remote files for asynchronous programs: what `ndstream.open` gives, with ``await`` wherever a server is asked.

>>> async with ndstream.aopen("http://127.0.0.1:8000", "run/scan.h5", mode="r+") as file:  # doctest: +SKIP
...     frames = await file["entry/frames"]
...     first = await frames[0]
...     await frames.append(first)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias

import msgspec
from numpy.typing import DTypeLike, NDArray

from ndstream.client import changes
from ndstream.client.address import normalise
from ndstream.client.aio_connection import AioConnection
from ndstream.client.aio_dataset import AsyncAttributes, AsyncDataset
from ndstream.client.aio_writer import AsyncWriter
from ndstream.client.datatypes import RemoteDatatype
from ndstream.client.described import DescribedDataset
from ndstream.client.opening import new_file
from ndstream.client.writable import NEW, check_mode, must_make
from ndstream.core import model
from ndstream.core.operations import (
    Copy,
    CreateDataset,
    CreateGroup,
    Delete,
    DeleteAttributes,
    Event,
    Move,
    Operation,
    Outcome,
    SetAttributes,
)
from ndstream.errors import Exists, NotFound, UnsupportedMediaType, by_code

_INLINE = 64 * 1024


class _Members:
    """A place in a file: objects below it are looked up, made, moved and deleted."""

    name: str

    def __init__(self, connection: AioConnection, file_path: str, writer: AsyncWriter) -> None:
        self.connection = connection
        self.file_path = file_path
        self._writer = writer

    async def __getitem__(self, name: str) -> AsyncObject:
        """Group, dataset or committed type at a path, relative or absolute; soft links are followed.

        Raises
        ------
        NotFound
            There is no such object, also KeyError.
        NDStreamError
        """
        absolute = changes.below(self.name, name)
        found = await self.connection.describe(self.file_path, absolute, data=_INLINE)
        return _made(self.connection, self.file_path, absolute, found, self._writer)

    async def create_group(self, name: str) -> AsyncGroup:
        """Make a group, and those on the way that are missing.

        Returns
        -------
        AsyncGroup or None
            None in a transaction: it is not there yet.

        Raises
        ------
        Exists, Forbidden
        """
        made: AsyncGroup = await self._make(CreateGroup(name=self._below(name)))
        return made

    async def require_group(self, name: str) -> AsyncGroup:
        """Group of this name; it is made when it is not there."""
        made: AsyncGroup = await self._make(CreateGroup(name=self._below(name), exist_ok=True))
        return made

    async def create_dataset(
        self,
        name: str,
        shape: int | tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
        data: Any = None,
        **options: Any,
    ) -> AsyncDataset:
        """Make a dataset; parameters as those of `ndstream.client.writable.WritableGroup.create_dataset`.

        Returns
        -------
        AsyncDataset or None
            None in a transaction: it is not there yet.

        Raises
        ------
        Exists, InvalidRequest, UnsupportedDType, UnsupportedFilter, Forbidden
        """
        options = {"shape": shape, "dtype": dtype, "data": data, **options}
        made: AsyncDataset = await self._make(changes.create_dataset(self._below(name), **options))
        return made

    async def require_dataset(
        self, name: str, shape: int | tuple[int, ...], dtype: DTypeLike, exact: bool = False, **options: Any
    ) -> AsyncDataset:
        """Dataset of this name, which is made when it is not there. Any number of programs may require it at once.

        Raises
        ------
        UnsupportedDType
            There is one of another shape or, with `exact`, type; without, of a type that this one does not go into.
        """
        found: Any
        try:
            found = await self[name]
        except NotFound:
            try:
                return await self.create_dataset(name, shape, dtype, exist_ok=True, **options)
            except Exists:  # somebody was quicker
                found = await self[name]
        changes.check_required(found, self._below(name), shape, dtype, exact=exact)
        made: AsyncDataset = found
        return made

    async def create_dataset_like(self, name: str, other: DescribedDataset) -> AsyncDataset:
        """Make a dataset of the type, shape and storage of another one, without its data.

        Raises
        ------
        Exists, Forbidden
        """
        made: AsyncDataset = await self._make(changes.like(other.described, self._below(name)))
        return made

    async def set(self, name: str, value: Any) -> None:
        """Make a member: a link of a `SoftLink`, a second name of an object of this file, a dataset of anything else.

        Raises
        ------
        Exists, Forbidden, InvalidRequest, UnsupportedDType
        """
        await self._change(changes.member(self._below(name), value, self.file_path))

    async def delete(self, name: str) -> None:
        """Remove a link; the object goes with its last one.

        Raises
        ------
        NotFound, Forbidden
        """
        await self._change(Delete(name=self._below(name)))

    async def move(self, source: str, dest: str) -> None:
        """Give a member another name.

        Raises
        ------
        NotFound, Exists, Forbidden
        """
        await self._change(Move(name=self._below(source), target=self._below(dest)))

    async def copy(self, source: Any, dest: str) -> None:
        """Copy a member, or another object of this file, to a path of it.

        Raises
        ------
        NotFound, Exists, Forbidden
        InvalidRequest
            The object is of another file.
        """
        path = self._below(source) if isinstance(source, str) else changes.inside(source, self.file_path)
        await self._change(Copy(name=path, target=self._below(dest)))

    def _below(self, name: str) -> str:
        return changes.below(self.name, name)

    async def _make(self, operation: CreateGroup | CreateDataset) -> Any:
        return None if await self._change(operation) is None else await self[operation.name]

    async def _change(self, operation: Operation) -> Outcome | None:
        return await self._writer.do(operation, partial(self._told, operation))

    def _told(self, operation: Operation, outcome: Outcome) -> None:
        """Learn what came of an operation."""


class AsyncGroup(_Members):
    """A group on a server: its names and attributes are here, members are awaited: ``await group["a/b"]``.

    Names and attributes are as they were looked up, with what was done through this very object; see `refresh`.
    """

    kind = "group"

    def __init__(
        self, connection: AioConnection, file_path: str, name: str, described: model.Group, writer: AsyncWriter
    ) -> None:
        super().__init__(connection, file_path, writer)
        self.name = name
        self.described = described

    @property
    def attrs(self) -> AsyncAttributes:
        """Attributes."""
        return AsyncAttributes(self, self._change)

    def keys(self) -> list[str]:
        """Names of the members, in order."""
        return list(self.described.members)

    async def values(self) -> AsyncIterator[AsyncObject]:
        """Objects, in order."""
        for name in self.described.members:
            yield await self[name]

    async def items(self) -> AsyncIterator[tuple[str, AsyncObject]]:
        """Names and objects, in order."""
        for name in self.described.members:
            yield name, await self[name]

    async def refresh(self) -> None:
        """Look names and attributes up again.

        Raises
        ------
        NotFound
            There is no such group any more.
        """
        found = await self.connection.describe(self.file_path, self.name)
        if not isinstance(found, model.Group):
            raise NotFound(f"{self.name} is no group any more")
        self.described = found

    def __contains__(self, name: object) -> bool:
        return name in self.described.members

    def __iter__(self) -> Any:
        return iter(self.described.members)

    def __len__(self) -> int:
        return len(self.described.members)

    def __repr__(self) -> str:
        return f"<async group {self.name}: {len(self)} members>"

    def _told(self, operation: Operation, outcome: Outcome) -> None:
        known = self.described
        if isinstance(operation, SetAttributes | DeleteAttributes):
            attributes = changes.attributes_after(known.attributes, operation)
            self.described = msgspec.structs.replace(known, attributes=attributes)
        else:
            members = changes.members_after(known.members, self.name, operation)
            self.described = msgspec.structs.replace(known, members=members)


AsyncObject: TypeAlias = AsyncGroup | AsyncDataset | RemoteDatatype


class AsyncFile(_Members):
    """An HDF5 file on a server."""

    name = "/"

    def __init__(self, connection: AioConnection, described: model.File, path: str, *, writable: bool = False) -> None:
        super().__init__(connection, path, AsyncWriter(connection, path, writable=writable))
        self.described = described

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
        return await super().__getitem__(name)

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Carry out what is done in an ``async with`` block together when it ends, or not at all when it raises.

        It belongs to the task that begins it, and to those that this task begins inside.

        Raises
        ------
        InvalidRequest
            This task is in a transaction of this file already.
        Forbidden
        NDStreamError
            At the end: nothing was done.
        """
        return self._writer.transaction()

    async def read_many(self, wanted: Sequence[tuple[AsyncDataset, Any]]) -> list[NDArray[Any]]:
        """Read selections of several datasets of this file, in one request if that can be, all of one state.

        Parameters
        ----------
        wanted : sequence of (AsyncDataset, index expression)

        Returns
        -------
        list of ndarray
        """
        reads = [dataset.asked(key) for dataset, key in wanted]
        await self.connection.read_many(self.file_path, reads)
        return [destination for _, _, destination in reads]

    def follow(self, since: int | str | None = None) -> AsyncIterator[Event]:
        """Events of the commits after number `since`, or after the state of that tag, as they happen.

        None stands for the state that the file is in when the first one is awaited.
        """
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


def _made(connection: AioConnection, file_path: str, name: str, node: model.Node, writer: AsyncWriter) -> AsyncObject:
    match node:
        case model.Group():
            return AsyncGroup(connection, file_path, name, node, writer)
        case model.Dataset():
            return AsyncDataset(connection, file_path, name, node, writer)
        case model.NamedType():
            return RemoteDatatype(name, node)
        case model.Unreadable(problem=problem, code=code):
            raise by_code(code)(f"/{file_path}::{name}: {problem}")
        case _:
            raise NotFound(f"/{file_path}::{name} is a link that leads nowhere")


class Opening:
    """What `ndstream.aopen` gives: await it, or use it with ``async with``, which closes the connections at the end."""

    def __init__(self, connection: AioConnection, path: str, mode: str = "r") -> None:
        self._connection = connection
        self._path = path
        self._mode = mode

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
            if self._mode == "r":
                return entry_object(self._connection, await self._connection.lookup(self._path), self._path)
            return await self._writable()
        except BaseException:
            await self._connection.aclose()
            raise

    async def _writable(self) -> AsyncFile:
        check_mode(self._mode)
        connection, path = self._connection, self._path
        place = f"{connection.server}: /{path}"
        found: model.Directory | model.File | None = None
        with suppress(NotFound):
            found = await connection.lookup(path)
        if must_make(found, place, self._mode):
            with new_file(place):
                await connection.apply(path, [], create=True, condition=None if self._mode == "a" else NEW)
            found = await connection.lookup(path)
        assert isinstance(found, model.File)
        return AsyncFile(connection, found, path, writable=True)
