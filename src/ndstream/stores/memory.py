"""The reference store: a tree of dictionaries and numpy arrays.

It does what `ndstream.core.ports.Store` says in the plainest way, for tests of protocols and as the measure of other
stores (`ndstream.testing.stores`). Nothing is read from disk, nothing is cached, nothing waits.

>>> store = MemoryStore({"run": {"scan.h5": Group({"frames": Array(np.zeros((10, 4, 4)))})}})
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from ndstream.core import model
from ndstream.core.counters import Counters
from ndstream.core.dtypes import DType, from_numpy, is_fixed, memory_size
from ndstream.core.elements import flatten
from ndstream.core.limits import DEFAULT_LIMITS, KiB, Limits
from ndstream.core.model import HDF5_MEDIA_TYPE, Directory, ExternalLink, File, HardLink, Node, SoftLink
from ndstream.core.operations import Committed, Event, Operation, State
from ndstream.core.ports import Access, Detail, Opened, Reading, Writing
from ndstream.core.selection import Selection, everything
from ndstream.errors import (
    ConfigError,
    Conflict,
    DataError,
    Forbidden,
    InvalidSelection,
    NotFound,
)
from ndstream.stores.draft import Draft
from ndstream.stores.ledger import Ledger
from ndstream.stores.tree import Array, Group, Member, Null, Tree, Values

__all__ = ["STORE", "Array", "Group", "MemoryReading", "MemoryStore", "Null", "Tree", "Values", "serve"]

_READY = 64 * KiB
_ELEMENTS = 4096


class MemoryStore:
    """Serves a tree that is given as values; see `ndstream.core.ports.Store` for its methods.

    Parameters
    ----------
    tree : mapping
        Name to a mapping (directory), a `Group` (HDF5 file) or bytes (other file).
    limits
        `piece`, `inline_data` and `link_depth` apply.

    Notes
    -----
    Arrays are copied when they are read. Files of arrays have no bytes: `open` raises `DataError` for them, and
    their size is that of their values.
    """

    def __init__(self, tree: Tree | None = None, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._tree: Tree = tree or {}
        self._limits = limits
        self._ledgers: dict[str, Ledger] = {}

    async def start(self) -> None:
        """Nothing to prepare."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def lookup(self, path: str, access: Access, *, depth: int = 0) -> Directory | File:
        """See `Store`."""
        place = self._place(path, access)
        return _directory(path, place, access, depth) if isinstance(place, Mapping) else _file(path, place)

    async def open(self, path: str, access: Access) -> Opened:
        """See `Store`; the descriptor is of an anonymous file in memory, a copy that nobody changes."""
        place = self._place(path, access)
        if isinstance(place, Mapping):
            raise NotFound(f"Invalid path specified: {path}")
        if isinstance(place, Group):
            raise DataError(f"{path}: kept as arrays, has no bytes")
        descriptor = os.memfd_create("ndstream")
        os.truncate(descriptor, len(place))
        os.pwrite(descriptor, place, 0)
        return Opened(file=_file(path, place), descriptor=descriptor, check=_unchanged)

    async def describe(self, path: str, name: str, access: Access, detail: Detail) -> Node:
        """See `Store`."""
        walk = _Walk(self, access, self._limits.link_depth)
        node = _Description(walk, detail, self._limits).node(walk.follow(path, name), 0)
        return structs.replace(node, elsewhere=True) if walk.others - {path} else node

    async def read(
        self, path: str, name: str, access: Access, selection: Selection | Callable[[tuple[int, ...]], Selection] | None
    ) -> Reading:
        """See `Store`."""
        walk = _Walk(self, access, self._limits.link_depth)
        found = walk.follow(path, name).found
        if not isinstance(found, Array):
            raise NotFound(f"{path}: {name} is not a dataset")
        if isinstance(found.values, Null):
            raise InvalidSelection(f"{path}: {name} has a null dataspace: there are no elements to select")
        shape = found.values.shape
        if selection is None:
            selection = everything(shape)
        elif callable(selection):
            selection = selection(shape)
        if selection.source != shape:
            raise InvalidSelection(f"{path}: {name} has the shape {shape}, not {selection.source}")
        values, elsewhere = selection.apply(found.values), bool(walk.others - {path})
        return MemoryReading(found.values.dtype, values, self._limits.piece, elsewhere=elsewhere)

    async def state(self, path: str, access: Access) -> State:
        """See `ndstream.core.ports.WritableStore`."""
        return self._ledger(path, self.file(path, access)).state

    @asynccontextmanager
    async def steady(self, path: str, access: Access) -> AsyncIterator[None]:
        """See `ndstream.core.ports.WritableStore`; what is read was copied when it was opened."""
        yield

    async def apply(
        self,
        path: str,
        access: Access,
        operations: Sequence[Operation],
        *,
        condition: int | str | None = None,
        key: str | None = None,
        create: bool = False,
    ) -> Committed:
        """See `ndstream.core.ports.WritableStore`."""
        try:
            root = self.file(path, access)
        except NotFound:
            parent, _, name = path.rpartition("/")
            there = self._place(parent, access)
            named = isinstance(condition, str)  # a state, which what is not there is not in
            if not create or named or not access.writes(path) or not isinstance(there, Mapping) or name in there:
                raise
            root = Group()
        if not access.writes(path):
            raise Forbidden(f"{path}: not to be written by this user")
        ledger = self._ledger(path, root)
        known = ledger.repeated(key)
        if known is not None:
            return known
        if condition not in (None, "*", ledger.number, ledger.state.tag):
            raise Conflict(f"the file is in the state {ledger.state.tag}, not {condition}")
        draft = Draft(root)
        outcomes = tuple([draft.carry_out(operation) for operation in operations])
        self._tree = _with(self._tree, path.split("/"), draft.root)
        ledger.commit(State(_generation(draft.root), ledger.number + 1), draft.changes)
        committed = Committed(number=ledger.number, outcomes=outcomes, tag=ledger.state.tag)
        if key is not None:
            ledger.remember({key: committed})
        return committed

    def follow(self, path: str, access: Access, *, since: int | str | None = None) -> AsyncIterator[Event]:
        """See `ndstream.core.ports.WritableStore`."""
        ledger = self._ledger(path, self.file(path, access))
        return self._events(path, access, ledger, ledger.state.tag if since is None else since)

    async def _events(self, path: str, access: Access, ledger: Ledger, reached: int | str) -> AsyncIterator[Event]:
        while True:
            self.file(path, access)
            events, reached = ledger.since(reached), ledger.state.tag
            for event in events:
                yield event
            if reached == ledger.state.tag:
                await ledger.news()

    def _ledger(self, path: str, root: Group) -> Ledger:
        ledger = self._ledgers.get(path)
        if ledger is None:
            ledger = self._ledgers[path] = Ledger(self._limits.events, self._limits.batch_keys)
            ledger.begin(_generation(root))
        return ledger

    def _place(self, path: str, access: Access) -> Tree | Group | bytes:
        place: Tree | Group | bytes = self._tree
        for part in path.split("/") if path else []:
            if not isinstance(place, Mapping) or part not in place:
                raise NotFound(f"Invalid path specified: {path}")
            place = place[part]
        if not access.sees(path):
            raise NotFound(f"Invalid path specified: {path}")
        return place

    def file(self, path: str, access: Access) -> Group:
        """Root group of the file at a virtual path.

        Raises
        ------
        NotFound
            There is nothing, or not for this user, or no HDF5 file.
        """
        place = self._place(path, access)
        if not isinstance(place, Group):
            raise NotFound(f"Invalid path specified: {path}" if isinstance(place, Mapping) else f"{path}: not HDF5")
        return place


class MemoryReading:
    """Elements that are there already, as a `ndstream.core.ports.Reading`."""

    def __init__(self, dtype: np.dtype[Any], values: NDArray[Any], piece: int, *, elsewhere: bool = False) -> None:
        self.elsewhere = elsewhere
        self.dtype: DType = from_numpy(dtype)
        self.shape: tuple[int, ...] = values.shape
        self.nbytes: int | None = None
        self.ready: memoryview | None = None
        self._values = values
        self._step = max(1, piece // dtype.itemsize) * dtype.itemsize
        if is_fixed(self.dtype):
            self._bytes = memoryview(values.tobytes())
            self.nbytes = len(self._bytes)
            self.ready = self._bytes if self.nbytes <= _READY else None

    async def buffers(self) -> AsyncIterator[memoryview]:
        """See `Reading`."""
        for start in range(0, len(self._bytes), self._step):
            yield self._bytes[start : start + self._step]

    async def elements(self) -> AsyncIterator[list[Any]]:
        """See `Reading`."""
        flat = self._values.reshape(-1)
        for start in range(0, len(flat), _ELEMENTS):
            yield flatten(flat[start : start + _ELEMENTS], self.dtype)

    async def aclose(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True, slots=True)
class _Place:
    """An object, the virtual path of the file it is in, and the way to it from the root group of that."""

    path: str
    trail: tuple[Group | Array, ...]

    @property
    def found(self) -> Group | Array:
        return self.trail[-1]


class _Walk:
    """Follows names inside files, links and all, for one user."""

    def __init__(self, store: MemoryStore, access: Access, most: int) -> None:
        self._store = store
        self._access = access
        self._most = most
        self._links = 0
        self.others: set[str] = set()  # files that links led to

    def follow(self, path: str, name: str) -> _Place:
        """Find an object by its name in the file at `path`."""
        return self.below(_Place(path, (self._store.file(path, self._access),)), name)

    def below(self, place: _Place, name: str) -> _Place:
        """Find an object by its name as seen from `place`, or from the root when the name is absolute."""
        trail = place.trail[:1] if name.startswith("/") else place.trail
        for part in name.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                trail = trail[:-1] or trail
                continue
            group = trail[-1]
            if not isinstance(group, Group) or part not in group.members:
                raise NotFound(f"{place.path}: no object is called {name!r}")
            member = group.members[part]
            if isinstance(member, Group | Array):
                trail = (*trail, member)
            else:
                place = self._through(_Place(place.path, trail), member)
                trail = place.trail
        return _Place(place.path, trail)

    def _through(self, place: _Place, link: SoftLink | ExternalLink) -> _Place:
        self._links += 1
        if self._links > self._most:
            raise NotFound(f"{place.path}: too many links to follow")
        if isinstance(link, SoftLink):
            return self.below(place, link.target)
        here = PurePosixPath("/", place.path).parent
        other = os.path.normpath(here / link.filename).lstrip("/")
        self.others.add(other)
        return self.follow(other, link.target)


class _Description:
    """Describes objects to a depth, as `Detail` says."""

    def __init__(self, walk: _Walk, detail: Detail, limits: Limits) -> None:
        self._walk = walk
        self._detail = detail
        self._data = min(detail.data, limits.inline_data)

    def node(self, place: _Place, level: int) -> Node:
        found = place.found
        if isinstance(found, Array):
            return self._dataset(found)
        looked_into = level == 0 or (level < self._detail.depth and len(found.members) <= self._detail.wide)
        links = {name: member for name, member in found.members.items() if isinstance(member, ExternalLink)}
        return model.Group(
            attributes=_attributes(found.attributes),
            members={
                name: self._member(place, name, member, level) if looked_into else HardLink()
                for name, member in found.members.items()
            },
            address=id(found),
            links=links if looked_into else {},
        )

    def _member(self, place: _Place, name: str, member: Member, level: int) -> Node:
        if isinstance(member, SoftLink):
            return member
        try:
            place = self._walk.below(place, name)
        except NotFound:
            assert isinstance(member, ExternalLink)
            return member
        if isinstance(place.found, Group) and level >= self._detail.depth:
            return HardLink(kind="group")
        return self.node(place, level + 1)

    def _dataset(self, found: Array) -> Node:
        if isinstance(found.values, Null):
            return model.Dataset(
                dtype=from_numpy(found.values.dtype),
                shape=None,
                maxshape=None,
                attributes=_attributes(found.attributes),
                address=id(found),
            )
        dtype = from_numpy(found.values.dtype)
        size = memory_size(dtype) * found.values.size
        return model.Dataset(
            dtype=dtype,
            shape=found.values.shape,
            maxshape=found.maxshape or found.values.shape,
            storage="contiguous" if found.chunks is None else "chunked",
            chunks=found.chunks,
            filters=found.filters,
            fill=found.fill,
            attributes=_attributes(found.attributes),
            data=_value(found.values, dtype) if size <= self._data else None,
            stored=size,
            address=id(found),
        )


def _attributes(attributes: Mapping[str, Values]) -> dict[str, model.Attribute]:
    return {name: _attribute(attributes[name]) for name in sorted(attributes)}


def _attribute(values: Values) -> model.Attribute:
    dtype = from_numpy(values.dtype)
    if isinstance(values, Null):
        return model.Attribute(dtype=dtype, shape=None, value=None)
    return model.Attribute(dtype=dtype, shape=values.shape, value=_value(values, dtype))


def _value(values: NDArray[Any], dtype: DType) -> bytes | list[Any]:
    return values.tobytes() if is_fixed(dtype) else flatten(values, dtype)


def _size(place: Tree | Group | bytes, path: str, access: Access) -> int:
    if isinstance(place, bytes):
        return len(place)
    if isinstance(place, Group):
        return _stored(place, set())
    below = {f"{path}/{name}" if path else name: child for name, child in place.items()}
    return sum(_size(child, at, access) for at, child in below.items() if access.sees(at))


def _stored(group: Group, seen: set[int]) -> int:
    """Bytes of the values of all datasets, each counted once, however many hard links lead to it."""
    total = 0
    for member in group.members.values():
        if id(member) in seen:
            continue
        seen.add(id(member))
        if isinstance(member, Group):
            total += _stored(member, seen)
        elif isinstance(member, Array) and not isinstance(member.values, Null):
            total += member.values.nbytes
    return total


def _file(path: str, place: Group | bytes) -> File:
    return File(
        path=path,
        size=len(place) if isinstance(place, bytes) else _stored(place, set()),
        modified=0,
        media_type="application/octet-stream" if isinstance(place, bytes) else HDF5_MEDIA_TYPE,
        generation=_generation(place),
    )


def _generation(place: Group | bytes) -> str:
    return f"{id(place):x}"


async def _unchanged() -> None:
    """See `ndstream.core.ports.Opened`."""


def _directory(path: str, place: Tree, access: Access, depth: int) -> Directory:
    files: dict[str, File] = {}
    directories: dict[str, Directory | None] = {}
    for name in sorted(place):
        at = f"{path}/{name}" if path else name
        child = place[name]
        if not access.sees(at):
            continue
        if isinstance(child, Mapping):
            directories[name] = _directory(at, child, access, depth - 1) if depth > 0 else None
        else:
            files[name] = _file(at, child)
    return Directory(path=path, size=_size(place, path, access), files=files, directories=directories)


def _with(tree: Tree, parts: list[str], root: Group) -> Tree:
    """Put a file in its place; all that is not on the way stays the same."""
    below = tree.get(parts[0])
    if len(parts) == 1:
        return {**tree, parts[0]: root}
    assert isinstance(below, Mapping)
    return {**tree, parts[0]: _with(below, parts[1:], root)}


def serve(
    roots: Mapping[str, Path],
    *,
    limits: Limits = DEFAULT_LIMITS,
    counters: Counters | None = None,
    media_types: Mapping[str, str] | None = None,
    writing: Writing | None = None,
) -> MemoryStore:
    """Make an empty store, as `ndstream.core.ports.StoreFactory`: what is on disk is for other stores.

    Files can be made in it.
    """
    if roots:
        raise ConfigError("the store 'memory' serves nothing from disk")
    return MemoryStore(limits=limits)


STORE = serve
