"""HDF5 files as a store: catalog, workers and reader put together, with what they found kept.

The way of a request: the catalog confines its path and takes the generation of the file (one ``stat`` when it was
asked for before); what is known about that generation is kept here; what is not, a worker says; the reader moves the
bytes. A small read of a known dataset goes all this way without being suspended once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ndstream.core.counters import Counters
from ndstream.core.limits import DEFAULT_LIMITS, KiB, Limits
from ndstream.core.model import Dataset, Directory, File, Group, Node
from ndstream.core.operations import Committed, Event, Operation, State
from ndstream.core.ports import Access, Detail, Opened, Reading, StoredReading, StoreFactory, Writing
from ndstream.errors import Corrupt, Forbidden, NotFound, Replaced, TooLarge
from ndstream.stores.hdf5.cache import ByteCache
from ndstream.stores.hdf5.catalog import Catalog, Found
from ndstream.stores.hdf5.flights import Flights
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.library import Fetch as FetchBox
from ndstream.stores.hdf5.listing import is_text
from ndstream.stores.hdf5.messages import Describe, Described, Fetch, Fetched, Locate, Located, Target
from ndstream.stores.hdf5.owned import Owned
from ndstream.stores.hdf5.owners import Choice, Owners, chosen, is_current_beyond, weight
from ndstream.stores.hdf5.pool import Pool
from ndstream.stores.hdf5.reader import Reader
from ndstream.stores.hdf5.recovery import LeftBehind, Standing, put_in_order, standing

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Threads that walk directories: few, so that a walk never takes the machine from the readers.
_WALKERS = 2
#: Bytes that a description takes in memory for each byte of its message, roughly: objects are larger than their text.
#: Data that came along are as large as they are.
_BULK = 8
_ENTRY = 1 * KiB


class HDF5Store:
    """Serves directories of HDF5 and other files; see `ndstream.core.ports.Store` for its methods.

    Parameters
    ----------
    roots, limits, counters, media_types, writing
        As of `ndstream.core.ports.StoreFactory`. Gets the counters of `ndstream.stores.hdf5.pool.Pool`, and
        ``cache_hits`` and ``cache_misses`` by kind of question.

    Raises
    ------
    ConfigError
        A root cannot be served.

    Notes
    -----
    Belongs to the event loop in which it is first used. Workers start with the first request, or with `start`.
    """

    def __init__(
        self,
        roots: Mapping[str, Path],
        *,
        limits: Limits = DEFAULT_LIMITS,
        counters: Counters | None = None,
        media_types: Mapping[str, str] | None = None,
        writing: Writing | None = None,
    ) -> None:
        self._limits = limits
        self._counters = Counters() if counters is None else counters
        self._catalog = Catalog(roots, limits=limits, media_types=media_types)
        self._pool = Pool(self._catalog.roots.paths, limits, self._counters)
        self._reader = Reader(limits, threads=os.cpu_count() or 1)
        self._walkers = ThreadPoolExecutor(_WALKERS, thread_name_prefix="ndstream-catalog")
        self._kept: ByteCache[Hashable, Any] = ByteCache(limits.layout_cache)
        self._flights = Flights()
        self._mending: dict[str, asyncio.Task[None]] = {}
        self._owners: Owners | None = None
        if writing is not None:
            self._owners = Owners(self._pool.hello, limits, writing.durability, self._reader, self._kept)
            self._catalog.holds = self._owners.holds

    async def start(self) -> None:
        """Start the workers; returns before they are ready."""
        await self._pool.start()

    def problem(self) -> str | None:
        """Why requests would fail now (see `ndstream.core.ports.HealthCheck`)."""
        return None if self._pool.pids else "no worker process is running"

    async def lookup(self, path: str, access: Access, *, depth: int = 0) -> Directory | File:
        """See `Store`; a directory is walked in a thread."""
        file = self._catalog.file(path, access)
        if file is not None:  # not behind somebody's walk
            return file
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._walkers, self._catalog.lookup, path, access, depth)

    async def open(self, path: str, access: Access) -> Opened:
        """See `Store`."""
        owned = await self._between_commits(path, access)
        # Not in a thread: a cancelled caller would leave the descriptor open.
        file, descriptor = self._catalog.open(path, access)
        if owned and owned.is_file(os.fstat(descriptor)):
            check = partial(owned.check, owned.generation, descriptor)
        else:
            check = partial(_check, file, descriptor)
        return Opened(file=file, descriptor=descriptor, check=check)

    async def _between_commits(self, path: str, access: Access) -> Owned | None:
        """Wait until a file is as a commit left it; returns it if it has an owner."""
        while True:
            found = await self._found(path, access)
            if standing(found.real) is Standing.DEAD:
                await self._mend(found.real)
                found = await self._found(path, access)
            owned = self._owners and self._owners.active(found)
            if not owned or not owned.gate.closed:
                return owned or None
            await owned.gate.opened()

    async def describe(self, path: str, name: str, access: Access, detail: Detail) -> Node:
        """See `Store`."""
        name = self._absolute(name)

        async def work(found: Found) -> Node:
            owned = self._owners and self._owners.active(found)
            if self._owners and owned:
                return await self._owners.describe(owned, name, access, detail)
            key = (found.real, found.generation, name, access.hidden, detail)
            kept: Described | None = self._kept.get(key)
            self._counters.add("cache_misses" if kept is None else "cache_hits", label="describe")
            if kept is None:
                kept = await self._flights.join(key, lambda: self._describe(key, found, name, access, detail))
            return kept.node

        return await self._settled(path, access, work)

    async def read(self, path: str, name: str, access: Access, selection: Choice) -> Reading:
        """See `Store`."""
        name = self._absolute(name)
        try:
            return await self._read(path, name, access, selection)
        except Replaced as error:
            await self._prepare(error)
            return await self._read(path, name, access, selection)

    async def _read(self, path: str, name: str, access: Access, choice: Choice) -> Reading:
        found = await self._found(path, access)
        owned = self._owners and self._owners.active(found)
        if self._owners and owned:
            return await self._owners.read(owned, name, access, choice)
        kept = self._known(found, name, access) or await self._located(found, name, access)
        try:
            fetch = self._fetch(_target(found, name, access), kept.dataset.address)
            return await self._reader.open(kept, chosen(choice, kept, name), fetch)
        except Replaced:
            self._kept.discard(_layout_key(found, name, access))
            raise

    def read_at_hand(self, path: str, name: str, access: Access, selection: Choice) -> Reading | None:
        """See `ndstream.core.ports.Prompt`."""
        name = self._absolute(name)
        found = self._catalog.locate_file(path, access)
        owned = self._owners and self._owners.active(found)
        try:
            if self._owners and owned:
                return self._owners.read_at_hand(owned, name, access, selection)
            kept = self._known(found, name, access)
            return None if kept is None else self._reader.at_hand(kept, chosen(selection, kept, name))
        except (Replaced, Corrupt, TooLarge):
            return None  # whoever waits finds out what the matter is, and says it

    async def stored(self, path: str, name: str, access: Access, selection: Choice) -> StoredReading:
        """See `ndstream.core.ports.StoredChunks`."""
        name = self._absolute(name)

        async def work(found: Found) -> StoredReading:
            owned = self._owners and self._owners.active(found)
            if self._owners and owned:
                return await self._owners.stored(owned, name, access, selection)
            kept = self._known(found, name, access) or await self._located(found, name, access)
            try:
                return self._reader.open_stored(kept, chosen(selection, kept, name))
            except Replaced:
                self._kept.discard(_layout_key(found, name, access))
                raise

        return await self._settled(path, access, work)

    async def state(self, path: str, access: Access) -> State:
        """See `ndstream.core.ports.WritableStore`."""
        found = self._catalog.locate_file(path, access)
        owned = self._owners and self._owners.get(found.real)
        return owned.notice(found.generation) if owned else State(found.generation, 0)

    @asynccontextmanager
    async def steady(self, path: str, access: Access) -> AsyncIterator[None]:
        """See `ndstream.core.ports.WritableStore`."""
        owned = self._owners and self._owners.get(self._catalog.locate_file(path, access).real)
        async with owned.steady if owned else nullcontext():
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
            real = self._catalog.locate_file(path, access).real
        except NotFound:
            if not create or not access.writes(path):
                raise
            real = self._catalog.locate_new_file(path, access)
        if self._owners is None:
            raise Forbidden("this server does not write")
        if not self._catalog.writes(path, real, access):
            raise Forbidden(f"{path}: not to be written by this user")
        return await self._owners.apply(real, operations, condition, key, create=create)

    def follow(self, path: str, access: Access, *, since: int | str | None = None) -> AsyncIterator[Event]:
        """See `ndstream.core.ports.WritableStore`."""
        found = self._catalog.locate_file(path, access)
        if self._owners is None:
            raise Forbidden("this server does not write, and does not follow files")
        return self._owners.follow(found.real, since)

    async def hold(self, path: str, access: Access) -> None:
        """See `ndstream.core.ports.Holding`."""
        if self._owners is None:
            raise Forbidden("this server does not write")
        await self._owners.at(self._catalog.locate_file(path, access).real).hold()

    async def release(self, path: str, access: Access) -> None:
        """See `ndstream.core.ports.Holding`."""
        found = self._catalog.locate_file(path, access)
        owned = self._owners and self._owners.get(found.real)
        if owned:
            await owned.release()

    async def aclose(self) -> None:
        """See `Store`."""
        await asyncio.gather(*self._mending.values(), return_exceptions=True)
        if self._owners is not None:
            await self._owners.aclose()
        await self._flights.aclose()
        await self._pool.aclose()
        await self._reader.aclose()
        self._walkers.shutdown(wait=False, cancel_futures=True)
        self._kept.clear()

    async def _settled(self, path: str, access: Access, work: Callable[[Found], Awaitable[T]]) -> T:
        """Do `work` on the file as it is; once more when it was replaced meanwhile."""
        try:
            return await work(await self._found(path, access))
        except Replaced as error:
            await self._prepare(error)
            return await work(await self._found(path, access))

    def _absolute(self, name: str) -> str:
        if len(name) > self._limits.path_length or not is_text(name):
            raise NotFound("the name of the object is too long or not text")
        return name if name.startswith("/") else "/" + name

    async def _found(self, path: str, access: Access) -> Found:
        """Find a file, and wait while it is put in order.

        Raises
        ------
        NotFound
        """
        found = self._catalog.locate_file(path, access)
        if found.real not in self._mending:
            return found
        await self._mend(found.real)
        return self._catalog.locate_file(path, access)

    async def _prepare(self, error: Replaced) -> None:
        """Do what there is to be done before a request is repeated that failed so."""
        # What a worker says is checked: it may have been taken over by what it has read.
        if isinstance(error, LeftBehind) and self._catalog.roots.admits(error.path):
            await self._mend(error.path)

    async def _mend(self, real: str) -> None:
        """Have done, once, what a process that died while it wrote a file left to be done; all who ask wait.

        Raises
        ------
        Conflict, Corrupt, StorageFull, StorageFailed
            It cannot be done.
        """
        if real not in self._mending:
            # A task of its own: who has to know of it must hear of it, though whoever asked first gave up.
            self._mending[real] = asyncio.create_task(self._put_in_order(real))
            self._mending[real].add_done_callback(lambda task: self._mended(real, task))
        await asyncio.shield(self._mending[real])

    def _mended(self, real: str, task: asyncio.Task[None]) -> None:
        del self._mending[real]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("%s cannot be put in order: %s", real, str(error))

    async def _put_in_order(self, real: str) -> None:
        if self._owners is not None:
            await self._owners.mend(real)
        else:
            await asyncio.get_running_loop().run_in_executor(self._walkers, put_in_order, Path(real))

    async def _describe(self, key: Hashable, found: Found, name: str, access: Access, detail: Detail) -> Described:
        described = await self._pool.call(
            Describe(
                target=_target(found, name, access),
                depth=detail.depth,
                wide=detail.wide,
                data=min(detail.data, self._limits.inline_data),
            )
        )
        assert isinstance(described, Described)
        if described.lasting:
            data = _data(described.node)
            text = len(msgspec.msgpack.encode(described.node)) - data
            self._kept.put(key, described, _ENTRY + _BULK * text + data)
        return described

    def _known(self, found: Found, name: str, access: Access) -> Located | None:
        """Where a dataset is, if that is known and still so."""
        kept: Located | None = self._kept.get(_layout_key(found, name, access))
        if kept is None or not is_current_beyond(kept, found.real):
            return None
        self._counters.add("cache_hits", label="locate")
        return kept

    async def _located(self, found: Found, name: str, access: Access) -> Located:
        """Where a dataset is, as a worker says."""
        self._counters.add("cache_misses", label="locate")
        key = _layout_key(found, name, access)
        return await self._flights.join(key, lambda: self._locate(key, _target(found, name, access)))

    async def _locate(self, key: Hashable, target: Target) -> Located:
        located = await self._pool.call(Locate(target=target))
        assert isinstance(located, Located)
        if located.lasting:
            self._kept.put(key, located, weight(located))
        return located

    def _fetch(self, target: Target, address: int) -> FetchBox:
        async def fetch(
            start: tuple[int, ...], count: tuple[int, ...], step: tuple[int, ...], most: int
        ) -> bytes | list[Any]:
            request = Fetch(target=target, start=start, count=count, step=step, most=most, address=address)
            fetched = await self._pool.call(request)
            assert isinstance(fetched, Fetched)
            return fetched.data

        return fetch


def _layout_key(found: Found, name: str, access: Access) -> Hashable:
    return (found.real, found.generation, name, access.hidden)


def _target(found: Found, name: str, access: Access) -> Target:
    return Target(file=found.real, generation=found.generation, name=name, hidden=access.hidden)


async def _check(file: File, descriptor: int) -> None:
    """Raise `Replaced` when a file was written to since it was opened."""
    if generation_of(os.fstat(descriptor)) != file.generation:
        raise Replaced("the file changed while it was read")


def _data(node: Node) -> int:
    """Bytes of the data that came along with a description."""
    if isinstance(node, Group):
        return sum(map(_data, node.members.values()))
    return len(node.data) if isinstance(node, Dataset) and isinstance(node.data, bytes) else 0


STORE: StoreFactory = HDF5Store
