"""Arrays on their way out of an HDF5 file."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ndstream.core.dtypes import DType, memory_size
from ndstream.core.limits import Limits
from ndstream.core.ports import Lent
from ndstream.core.selection import Selection
from ndstream.errors import UnsupportedDType
from ndstream.stores.budget import Budget
from ndstream.stores.hdf5.descriptors import OpenFile
from ndstream.stores.hdf5.gate import Watch
from ndstream.stores.hdf5.layout import Library
from ndstream.stores.hdf5.library import Boxes
from ndstream.stores.hdf5.messages import Located
from ndstream.stores.hdf5.plan import plan
from ndstream.stores.hdf5.work import Loading, Work
from ndstream.wire.buffers import BufferPool

#: Pieces that are read at once on the event loop until others have a turn; a turn costs a tenth of a piece.
_TURN = 16
#: Pieces made or in the making at a time, of one reading.
_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Means:
    """What all readings share."""

    limits: Limits
    pool: BufferPool
    budget: Budget
    threads: ThreadPoolExecutor
    at_hand: Iterator[int] = field(default_factory=itertools.count)  # counts pieces that may be read at once


class ReadyReading:
    """An array that is at hand; see `ndstream.core.ports.Reading`."""

    __slots__ = ("dtype", "elsewhere", "nbytes", "ready", "shape")

    def __init__(self, dtype: DType, shape: tuple[int, ...], ready: memoryview, *, elsewhere: bool = False) -> None:
        self.dtype = dtype
        self.elsewhere = elsewhere
        self.shape = shape
        self.nbytes: int | None = ready.nbytes
        self.ready: memoryview | None = ready

    async def buffers(self) -> AsyncIterator[memoryview]:
        """All elements as one buffer."""
        if self.ready:
            yield self.ready

    async def elements(self) -> AsyncIterator[list[Any]]:
        """Raise: the type is fixed, see `buffers`."""
        raise UnsupportedDType("elements of fixed size come as bytes")
        yield []  # makes it an iterator

    async def aclose(self) -> None:
        """Do nothing: nothing is held but the buffer."""


class _Pending:
    """Work that was handed to the threads; its memory was taken from the budget before."""

    __slots__ = ("_budget", "_futures", "_out", "_work", "held")

    def __init__(self, work: Work, means: Means, watch: Watch | None) -> None:
        self.held = work.nbytes + work.scratch
        self._work = work
        self._budget = means.budget
        # Each thread holds the buffer itself: it cannot be used again before the last of them is through with it.
        self._out = means.pool.take(work.nbytes)
        self._futures: list[Future[None]] = [means.threads.submit(work.run, self._out) for _ in range(work.shares)]
        if watch is not None:
            watch.gate.enter(self._futures)

    async def made(self) -> memoryview:
        """Wait until it is made."""
        for future in self._futures:
            await asyncio.wrap_future(future)
        self._give_back(self._work.scratch)
        return self._out.data

    def made_over(self) -> None:
        """Count its memory as that of whoever receives it."""
        self._give_back(self.held)

    def abandon(self) -> None:
        """Stop it; its memory counts until the threads are through with it."""
        self._work.stop()
        running = [future for future in self._futures if not future.cancel()]
        if all(future.done() for future in running):
            self.made_over()
            return
        ended = asyncio.gather(*map(asyncio.wrap_future, running), return_exceptions=True)
        ended.add_done_callback(lambda _: self.made_over())

    def _give_back(self, nbytes: int) -> None:
        self.held -= nbytes
        self._budget.give_back(nbytes)


class _Made:
    """A piece that was at hand."""

    __slots__ = ("_budget", "_piece", "held")

    def __init__(self, piece: memoryview | Lent, budget: Budget) -> None:
        self.held = len(piece)
        self._piece = piece
        self._budget = budget

    async def made(self) -> memoryview | Lent:
        """Give it."""
        return self._piece

    def made_over(self) -> None:
        """Count its memory as that of whoever receives it."""
        self._budget.give_back(self.held)
        self.held = 0

    abandon = made_over


class PieceReading:
    """An array that threads make piece by piece; see `ndstream.core.ports.Reading`.

    Parameters
    ----------
    dtype, shape, nbytes
        Of the result.
    means : Means
    file : OpenFile
        Whose state is checked after every piece.
    works : iterator of Work
        The pieces in order.
    watch : Watch, optional
        Of a file that is written meanwhile.
    refresh : callable, optional
        Takes where the dataset is after it has become longer.
    elsewhere : bool
        See `ndstream.core.ports.Reading`.
    """

    def __init__(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        nbytes: int,
        means: Means,
        file: OpenFile,
        works: Iterator[Work],
        watch: Watch | None = None,
        refresh: Callable[[Located], None] | None = None,
        *,
        elsewhere: bool = False,
    ) -> None:
        self.dtype = dtype
        self.elsewhere = elsewhere
        self.shape = shape
        self.nbytes: int | None = nbytes
        self.ready: memoryview | None = None
        self._means = means
        self._file = file
        self._works = works
        self._watch = watch
        self._refresh = refresh or _keep
        self._next: Work | None = None
        self._left = nbytes  # not given to the receiver yet
        self._pending: deque[_Pending | _Made] = deque()
        self._closed = False

    def buffers(self) -> AsyncIterator[memoryview]:
        """Elements as bytes in C order, in pieces of about `Limits.piece`, some pieces being read ahead.

        A piece that was given is no longer counted as memory of the reading.

        Raises
        ------
        Replaced
            When the file changed since it was located.
        Corrupt
        """
        return self._pieces(lends=False)

    def lend(self) -> AsyncIterator[memoryview | Lent]:
        """Give the same, but for what the page cache has: see `ndstream.core.ports.Lending`."""
        return self._pieces(lends=True)

    async def _pieces(self, *, lends: bool) -> AsyncIterator[Any]:
        itemsize = memory_size(self.dtype)
        most = max(1, self._means.limits.piece // itemsize) * itemsize
        try:
            while await self._read_ahead(lends=lends):
                whole = await self._pending[0].made()
                # Now, not after the last byte was sent: the receiver must not take for complete what is not. This is
                # for the pieces lent before as well: the kernel has them by now.
                self._file.check()
                self._left -= len(whole)
                # It is the receiver's now, whose peer may take its time: the budget is for what is being made.
                self._pending.popleft().made_over()
                for start in range(0, len(whole), most):
                    yield whole[start : start + most]
                    if self._closed:
                        return
                del whole
        finally:
            await self.aclose()

    async def _read_ahead(self, *, lends: bool) -> bool:
        """Hand work to the threads as far as the budgets allow; False when there is nothing left.

        What can be read at once is, and nothing ahead of it: its buffer is sent while the cache has it.
        """
        while len(self._pending) < _AHEAD and not self._closed:
            work = self._next or next(self._works, None)
            if work is None:
                break
            self._next = work
            cost = work.nbytes + work.scratch
            if not self._pending:
                await self._means.budget.take(cost)
                if isinstance(work, Loading) and not next(self._means.at_hand) % _TURN:
                    # Who reads and never has to wait would keep everybody else from it for ever.
                    await asyncio.sleep(0)
                await self._until_ready(cost)
                if isinstance(work, Loading):
                    left = self._load_now(work, lends=lends)
                    if left is None:
                        break
                    work = left
            elif not self._may_go_on() or not self._may_hold(cost) or not self._means.budget.spare(cost):
                break
            self._next = None
            self._pending.append(_Pending(work, self._means, self._watch))
        return bool(self._pending)

    def _load_now(self, work: Loading, *, lends: bool) -> Loading | None:
        """Lend or read a piece here if the page cache has it: handing it to a thread would take longer than copying.

        Returns
        -------
        Loading or None
            What a thread has to read. None when the piece is there.
        """
        # The last piece is never lent: the check before it is the last one of what was.
        if work.nbytes == self._left:
            work = self._shortened(work)
        piece: Lent | memoryview | None = work.lend() if lends and work.nbytes < self._left else None
        if piece is None:
            work = self._shortened(work)
            out = self._means.pool.take(work.nbytes)
            try:
                cached = work.run_now(out)
            except BaseException:
                self._means.budget.give_back(work.nbytes)
                raise
            if not cached:
                return work
            piece = out.data
        self._next = None
        self._pending.append(_Made(piece, self._means.budget))
        return None

    def _shortened(self, work: Loading) -> Loading:
        """What is read first of a piece that was made to be lent; the budget was asked for all of it."""
        first, *others = work.cut()
        self._works = itertools.chain(others, self._works)
        self._means.budget.give_back(work.nbytes - first.nbytes)
        return first

    def _may_go_on(self) -> bool:
        return self._watch is None or self._watch.is_ready

    async def _until_ready(self, cost: int) -> None:
        if self._watch is not None and not self._watch.is_ready:
            try:
                await self._watch.ready(self._refresh)
            except BaseException:
                self._means.budget.give_back(cost)
                raise

    def _may_hold(self, more: int) -> bool:
        return sum(pending.held for pending in self._pending) + more <= self._means.limits.request_memory

    async def elements(self) -> AsyncIterator[list[Any]]:
        """Raise: the type is fixed, see `buffers`."""
        raise UnsupportedDType("elements of fixed size come as bytes")
        yield []  # makes it an iterator

    async def aclose(self) -> None:
        """Give back what the reading holds; safe to call at any time, more than once."""
        self._closed = True
        self._next = None
        if self._watch is not None:
            self._watch.end()
        while self._pending:
            self._pending.popleft().abandon()


class LibraryReading:
    """An array that a worker reads; see `ndstream.core.ports.Reading`.

    Parameters
    ----------
    dtype
        Of the result.
    itemsize : int or None, bytes
        None when the type is not fixed.
    layout : Library
    selection : Selection
    boxes : Boxes
    means : Means
    watch : Watch, optional
        Of a file that is written meanwhile; the boxes are checked by whoever fetches them.
    elsewhere : bool
        See `ndstream.core.ports.Reading`.
    """

    def __init__(
        self,
        dtype: DType,
        itemsize: int | None,
        layout: Library,
        selection: Selection,
        boxes: Boxes,
        means: Means,
        watch: Watch | None = None,
        *,
        elsewhere: bool = False,
    ) -> None:
        self.dtype = dtype
        self.elsewhere = elsewhere
        self.shape = selection.shape
        self.nbytes = None if itemsize is None else selection.count * itemsize
        self.ready: memoryview | None = None
        self._itemsize = itemsize
        self._layout = layout
        self._selection = selection
        self._boxes = boxes
        self._means = means
        self._watch = watch

    async def buffers(self) -> AsyncIterator[memoryview]:
        """Elements as bytes in C order."""
        if self._itemsize is None:
            raise UnsupportedDType("elements of variable length do not come as bytes")
        if not self.nbytes:
            return
        for piece in plan(self._selection, self._layout, self._itemsize, self._means.limits):
            # The piece, and the box that it is being put together from.
            cost = piece.block.count * self._itemsize + self._means.limits.piece
            await self._means.budget.take(cost)
            try:
                made = await self._boxes.bytes_of(piece.block, self._means.pool)
            finally:
                self._means.budget.give_back(cost)
            yield made.data
            del made

    async def elements(self) -> AsyncIterator[list[Any]]:
        """Elements of variable length in C order, in lists."""
        if self._itemsize is not None:
            raise UnsupportedDType("elements of fixed size come as bytes")
        if self._selection.count:
            async for some in self._boxes.elements(self._selection):
                yield some

    async def aclose(self) -> None:
        """Let commits go on; between two pieces nothing else is held."""
        if self._watch is not None:
            self._watch.end()


def _keep(_: Located) -> None:
    """Nothing to refresh: it stays where it is however long it becomes."""


async def whole(reading: PieceReading | LibraryReading) -> memoryview:
    """Read all of it now, for few bytes."""
    buffers = [buffer async for buffer in reading.buffers()]
    return buffers[0] if len(buffers) == 1 else memoryview(b"".join(buffers))
