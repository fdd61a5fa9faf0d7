"""The files that are written through one store, and how they are read meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from ndstream.core.limits import KiB, Limits
from ndstream.core.model import Node
from ndstream.core.operations import Committed, Event, Operation
from ndstream.core.ports import Access, Detail, Reading
from ndstream.core.selection import Selection, everything
from ndstream.errors import InvalidSelection, NotFound, Replaced, TooLarge
from ndstream.stores.hdf5.cache import ByteCache
from ndstream.stores.hdf5.catalog import Found
from ndstream.stores.hdf5.descriptors import LiveFile
from ndstream.stores.hdf5.gate import Watch
from ndstream.stores.hdf5.generation import generation_of, is_at
from ndstream.stores.hdf5.layout import Chunked, Inline
from ndstream.stores.hdf5.library import Fetch as FetchBox
from ndstream.stores.hdf5.messages import (
    Batch,
    Describe,
    Described,
    Fetch,
    Fetched,
    Hello,
    Known,
    Locate,
    Located,
    Target,
)
from ndstream.stores.hdf5.owned import Owned
from ndstream.stores.hdf5.reader import Reader
from ndstream.stores.hdf5.stored import StoredChunkReading

T = TypeVar("T")

Choice = Selection | Callable[[tuple[int, ...]], Selection] | None

_ENTRY = 1 * KiB
_BULK = 8
#: Chunks from which on those that were added are asked for alone.
_MANY = 1024
#: Seconds between two looks at a file that somebody follows and others may write.
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where a dataset is since commit `number`."""

    located: Located
    number: int
    file: LiveFile | None


class Owners:
    """The files that are written through a store.

    Parameters
    ----------
    hello : Hello
        For their processes.
    limits : Limits
    durability : {"fsync", "flush"}
    reader : Reader
    kept : ByteCache
        Where descriptions and layouts are kept.
    """

    def __init__(
        self,
        hello: Hello,
        limits: Limits,
        durability: Literal["fsync", "flush"],
        reader: Reader,
        kept: ByteCache[Hashable, Any],
    ) -> None:
        self._hello = hello
        self._limits = limits
        self._durability = durability
        self._reader = reader
        self._kept = kept
        self._files: dict[str, Owned] = {}
        self._beginning: Counter[Owned] = Counter()
        self._making_room = asyncio.Lock()

    def get(self, real: str) -> Owned | None:
        """Find the file at a real path, if it was ever written or followed."""
        return self._files.get(real)

    def active(self, found: Found) -> Owned | None:
        """Find the file, if it has an owner now."""
        owned = self._files.get(found.real)
        return owned if owned is not None and owned.active and owned.is_file(found.status) else None

    def holds(self, real: str, status: os.stat_result) -> bool:
        """Whether an owner process has this very file open."""
        owned = self._files.get(real)
        return owned is not None and owned.holds(status)

    def at(self, real: str) -> Owned:
        """Find the file at a real path, or begin to know it."""
        owned = self._files.get(real)
        if owned is None:
            owned = self._files[real] = Owned(real, self._hello, self._limits, self._durability)
        return owned

    async def apply(
        self, real: str, operations: Sequence[Operation], condition: int | str | None, key: str | None, *, create: bool
    ) -> Committed:
        """Carry out a batch; see `ndstream.core.ports.WritableStore.apply`."""
        if len(operations) > self._limits.operations:
            raise TooLarge(f"{len(operations)} operations are more than the limit 'operations'")
        number, tag = (None, condition) if isinstance(condition, str) else (condition, None)
        batch = Batch(operations=tuple(operations), condition=number, key=key)
        owned = self.at(real)
        self._files[real] = self._files.pop(real)  # the last used ones stand at the end
        if owned.active:
            return await owned.apply(batch, tag=tag, create=create)
        async with self._room_for(owned):
            return await owned.apply(batch, tag=tag, create=create)

    async def mend(self, real: str) -> None:
        """Do what a process that died left to be done to a file; see `Owned.mend`."""
        owned = self.at(real)
        async with self._room_for(owned):
            await owned.mend()

    @asynccontextmanager
    async def _room_for(self, beginning: Owned) -> AsyncIterator[None]:
        """Let files go that nobody writes now, when there are many, and count one that is about to be taken."""
        self._beginning[beginning] += 1
        try:
            async with self._making_room:
                taken = [owned for owned in self._files.values() if owned.active or owned in self._beginning]
                excess = len(taken) - self._limits.writers
                for owned in taken:
                    if excess > 0 and owned.idle and owned is not beginning:
                        await owned.release()
                        excess -= not owned.active
            yield
        finally:
            self._beginning[beginning] -= 1
            if not self._beginning[beginning]:
                del self._beginning[beginning]

    def follow(self, real: str, since: int | str | None) -> AsyncIterator[Event]:
        """Events of a file; see `ndstream.core.ports.WritableStore.follow`."""
        owned = self.at(real)
        now = owned.notice(_state(real)).tag
        return self._events(owned, now if since is None else since)

    async def _events(self, owned: Owned, reached: int | str) -> AsyncIterator[Event]:
        while True:
            owned.notice(_state(owned.path))
            events, reached = owned.ledger.since(reached), owned.ledger.state.tag
            for event in events:
                yield event
            if reached != owned.ledger.state.tag:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await owned.ledger.news()

    async def describe(self, owned: Owned, name: str, access: Access, detail: Detail) -> Node:
        """Describe an object as of the last commit."""
        await owned.gate.opened()
        key = (owned.path, owned.generation, name, access.hidden, detail)
        kept: Described | None = self._kept.get(key)
        if kept is not None:
            return kept.node
        request = Describe(
            target=_target(owned, name, access),
            depth=detail.depth,
            wide=detail.wide,
            data=min(detail.data, self._limits.inline_data),
        )
        described, number = await owned.ask(request)
        assert isinstance(described, Described)
        if described.lasting and number == owned.ledger.number:
            key = (owned.path, owned.generation, name, access.hidden, detail)
            self._kept.put(key, described, _ENTRY + _BULK * len(msgspec.msgpack.encode(described.node)))
        return described.node

    async def read(self, owned: Owned, name: str, access: Access, choice: Choice) -> Reading:
        """Prepare to read a dataset as of the last commit."""
        kept = await self._current(owned, name, access)
        # From here to the first piece nothing is awaited: no commit comes between.
        located = kept.located
        selection = chosen(choice, located, name)
        watch = self._watch(owned, name, access, kept)
        fetch = self._fetch(owned, _target(owned, name, access), located.dataset.address, watch)
        try:
            reading = await self._reader.open(located, selection, fetch, file=kept.file, watch=watch)
        except BaseException:
            if watch is not None:
                watch.end()
            raise
        if watch is not None and reading.ready is not None:
            watch.end()
        return reading

    def read_at_hand(self, owned: Owned, name: str, access: Access, choice: Choice) -> Reading | None:
        """Read as of the last commit what takes no waiting; None when something does."""
        kept: _Kept | None = self._kept.get((owned.path, owned.names, name, access.hidden))
        if kept is None or not owned.gate.passes() or not _is_current(owned, kept):
            return None
        return self._reader.at_hand(kept.located, chosen(choice, kept.located, name), file=kept.file)

    async def stored(self, owned: Owned, name: str, access: Access, choice: Choice) -> StoredChunkReading:
        """Prepare to read chunks of a dataset as they are stored, as of the last commit."""
        kept = await self._current(owned, name, access)
        selection = chosen(choice, kept.located, name)
        watch = self._watch(owned, name, access, kept)
        return self._reader.open_stored(kept.located, selection, file=kept.file, watch=watch)

    async def _current(self, owned: Owned, name: str, access: Access) -> _Kept:
        while True:
            await owned.gate.opened()
            key = (owned.path, owned.names, name, access.hidden)
            kept: _Kept | None = self._kept.get(key)
            if kept is None or not _is_current(owned, kept):
                kept = await self._locate(owned, name, access)
            if not owned.gate.closed and owned.is_current(kept.located.dataset.address, kept.number):
                return kept

    async def _locate(self, owned: Owned, name: str, access: Access) -> _Kept:
        before: _Kept | None = self._kept.get((owned.path, owned.names, name, access.hidden))
        known = _known(owned, before, self._limits.chunk_index)
        located, number = await owned.ask(Locate(target=_target(owned, name, access), known=known))
        assert isinstance(located, Located)
        if located.since:
            assert before is not None and known is not None
            if not owned.has_only_grown(known.address, before.number):
                return await self._locate(owned, name, access)
            located = _continued(before.located, located)
        file = None
        if located.file == owned.path:
            # That of the answer: commits may have come between the question and it.
            located = msgspec.structs.replace(located, generation=owned.generation_at(number))
            file = owned.file(located.generation)
        kept = _Kept(located, number, file)
        if located.lasting:
            self._kept.put((owned.path, owned.names, name, access.hidden), kept, weight(located))
        return kept

    def _watch(self, owned: Owned, name: str, access: Access, kept: _Kept) -> Watch | None:
        """Watch what commits do to a dataset that is about to be read; None when it is in another file."""
        if kept.file is None:
            return None
        address = kept.located.dataset.address

        async def relocate() -> Located:
            with contextlib.suppress(NotFound):
                located = (await self._locate(owned, name, access)).located
                if located.dataset.address == address:
                    return located
            raise Replaced(f"{name} is another dataset than before, or none")

        return owned.watch(address, relocate)

    def _fetch(self, owned: Owned, target: Target, address: int, watch: Watch | None) -> FetchBox:
        async def fetch(
            start: tuple[int, ...], count: tuple[int, ...], step: tuple[int, ...], most: int
        ) -> bytes | list[Any]:
            request = Fetch(target=target, start=start, count=count, step=step, most=most, address=address)
            with contextlib.nullcontext() if watch is None else watch.asking():
                fetched, _ = await owned.ask(request)
            assert isinstance(fetched, Fetched)
            if watch is not None:
                watch.check()
            return fetched.data

        return fetch

    async def aclose(self) -> None:
        """Finish what is queued, and let all files go."""
        await asyncio.gather(*(owned.aclose() for owned in self._files.values()))


def _is_current(owned: Owned, kept: _Kept) -> bool:
    """Whether a dataset is still where it was, in the file itself or behind an external link."""
    located = kept.located
    return owned.is_current(located.dataset.address, kept.number) and is_current_beyond(located, owned.path)


def _known(owned: Owned, kept: _Kept | None, most: int) -> Known | None:
    """What is known of a dataset that has only become longer, if it has so many chunks that this helps.

    With `most` chunks or more it is time to ask whether it is to be left to the library.
    """
    if kept is None or kept.file is None or not isinstance(kept.located.layout, Chunked):
        return None
    dataset, count = kept.located.dataset, kept.located.layout.index.numbers.size
    if not _MANY <= count < most or not owned.has_only_grown(dataset.address, kept.number):
        return None
    assert dataset.shape is not None
    return Known(address=dataset.address, shape=dataset.shape)


def _continued(before: Located, more: Located) -> Located:
    """Join what was known of a dataset and what has been added."""
    assert isinstance(before.layout, Chunked) and isinstance(more.layout, Chunked)
    return msgspec.structs.replace(more, layout=before.layout.continued(more.layout, more.since), since=0)


def chosen(choice: Choice, located: Located, name: str) -> Selection:
    """Make a selection of a choice, once the shape is known.

    Raises
    ------
    InvalidSelection
    """
    shape = located.dataset.shape
    if shape is None:
        raise InvalidSelection(f"{name} has a null dataspace: there are no elements to select")
    if choice is None:
        return everything(shape)
    if callable(choice):
        choice = choice(shape)
    if choice.source != shape:
        raise InvalidSelection(f"{name} has the shape {shape}, not {choice.source}")
    return choice


def is_current_beyond(located: Located, real: str) -> bool:
    """Whether the file that an external link led to is still what it was; one in that at `real` is behind none."""
    return located.file == real or is_at(located.file, located.generation)


def weight(located: Located) -> int:
    """Bytes that a layout takes in memory."""
    layout = located.layout
    size = _ENTRY + _BULK * len(msgspec.msgpack.encode(located.dataset))
    if isinstance(layout, Chunked):
        size += len(layout.numbers) + len(layout.offsets) + len(layout.sizes) + len(layout.masks)
    elif isinstance(layout, Inline):
        size += len(layout.data)
    return size


def _target(owned: Owned, name: str, access: Access) -> Target:
    return Target(file=owned.path, generation=owned.generation, name=name, hidden=access.hidden)


def _state(real: str) -> str:
    try:
        return generation_of(os.stat(real))  # noqa: PTH116  (one system call, ten times a second)
    except OSError:
        raise NotFound("the file is gone") from None
