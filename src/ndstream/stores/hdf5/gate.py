"""Readers of a file and its commits, kept apart: nobody reads while a commit is put in place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any
from weakref import WeakSet

from ndstream.errors import Replaced


class Gate:
    """Open for any number of readers, or closed for all; belongs to one event loop.

    Readers go in for one piece at a time. When it is closed, those inside come out and nobody else gets in.

    Attributes
    ----------
    visited : bool
        Whether a reader has come since it was last set to False.
    """

    __slots__ = ("_empty", "_inside", "_open", "visited")

    def __init__(self) -> None:
        self.visited = False
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def closed(self) -> bool:
        """Whether readers have to wait."""
        return not self._open.is_set()

    async def opened(self) -> None:
        """Wait until it is open."""
        self.visited = True
        await self._open.wait()

    def passes(self) -> bool:
        """Whether who reads at once, without waiting, may."""
        self.visited = True
        return self._open.is_set()

    def enter(self, futures: list[Future[Any]]) -> None:
        """Be inside until threads are done; it must be open."""
        self._inside += len(futures)
        self._empty.clear()
        loop = asyncio.get_running_loop()

        def done(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before its threads were done
                loop.call_soon_threadsafe(self._leave)

        for future in futures:
            future.add_done_callback(done)

    def _leave(self) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    def shut(self) -> None:
        """Let nobody in any more."""
        self._open.clear()

    async def close(self) -> None:
        """Let nobody in any more, and wait until all are out."""
        self.shut()
        await self._empty.wait()

    def open(self) -> None:
        """Let readers in."""
        self._open.set()


class Watch:
    """One reading that goes on for a while, and what commits do to the dataset that it reads.

    Parameters
    ----------
    address : int
        Of the dataset.
    gate : Gate
    relocate : callable
        Looks up where the bytes are after the dataset has become longer.
    """

    __slots__ = ("__weakref__", "_asking", "_ended", "_free", "_stale", "address", "gate", "lost", "relocate")

    def __init__(self, address: int, gate: Gate, relocate: Callable[[], Awaitable[Any]]) -> None:
        self.address = address
        self.gate = gate
        self.relocate = relocate
        self.lost = False
        self._stale = self._ended = False
        self._asking = 0
        self._free = asyncio.Event()

    def check(self) -> None:
        """Raise `Replaced` when what is still to be read has been changed."""
        if self.lost:
            raise Replaced("a commit has changed the dataset while it was read")

    def grow(self) -> None:
        """Note that the dataset has become longer, and its chunks may be elsewhere."""
        self._stale = True

    async def ready(self, refresh: Callable[[Any], None]) -> None:
        """Wait until a piece may be read, from where it is now; `refresh` takes where that is."""
        while True:
            self.check()
            if self.gate.closed:
                await self.gate.opened()
            elif self._stale:
                self._stale = False
                with self.asking():
                    located = await self.relocate()
                refresh(located)
            else:
                return

    @property
    def is_ready(self) -> bool:
        """Whether a piece may be read without waiting."""
        return not (self.lost or self._stale or self.gate.closed)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Note that the reading goes on only when the owner has answered: not before a commit that is under way."""
        self._asking += 1
        self._free.set()
        try:
            yield
        finally:
            self._asking -= 1
            if not self._asking and not self._ended:
                self._free.clear()

    def end(self) -> None:
        """Note that nothing more is read."""
        self._ended = True
        self._free.set()

    @property
    def ended(self) -> bool:
        """Whether nothing more is read."""
        return self._ended

    async def free(self) -> None:
        """Wait until nothing more is read, or there is no use in waiting, since the owner is asked."""
        await self._free.wait()


class Watches:
    """The readings of one file that go on; one that is dropped is forgotten."""

    __slots__ = ("_watches",)

    def __init__(self) -> None:
        self._watches: WeakSet[Watch] = WeakSet()

    def add(self, watch: Watch) -> Watch:
        """Remember a reading."""
        self._watches.add(watch)
        return watch

    @property
    def any(self) -> bool:
        """Whether a reading goes on."""
        return bool(self._affected(None))

    async def settle(self, rewritten: frozenset[int] | None, patience: float) -> None:
        """Wait for readings of datasets that are about to change (None: all), but no longer than `patience` seconds."""
        affected = self._affected(rewritten)
        if not affected:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for watch in affected:
                    if not watch.lost:
                        await watch.free()

    def changed(self, rewritten: frozenset[int] | None, grown: frozenset[int]) -> None:
        """Tell readings what a commit did to their datasets."""
        for watch in self._affected(rewritten):
            watch.lost = True
        for watch in self._affected(grown):
            watch.grow()

    def _affected(self, addresses: frozenset[int] | None) -> list[Watch]:
        return [
            watch for watch in self._watches if not watch.ended and (addresses is None or watch.address in addresses)
        ]
