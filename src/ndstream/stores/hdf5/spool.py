"""Bands of chunks too large for memory, decoded once into a temporary file and sent from there in order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from threading import Condition, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.selection import Part, Selection, Span, everything
from ndstream.stores.hdf5.chunks import Chunks
from ndstream.stores.hdf5.work import Parts
from ndstream.stores.spools import SpoolFiles
from ndstream.wire.buffers import BufferPool, Scratch


class Spool:
    """The parts of one block, each decoded and laid down in a file of its own, one behind the other.

    Parameters
    ----------
    chunks : Chunks
    block : Selection
        Its result is put in order; all its targets are boxes.
    pool : BufferPool
    files : SpoolFiles
    """

    def __init__(self, chunks: Chunks, block: Selection, pool: BufferPool, files: SpoolFiles) -> None:
        self.shape = block.shape
        self.itemtype = chunks.itemtype
        self._chunks = chunks
        self._pool = pool
        self._parts = Parts(block.over(chunks.grid))
        self._state = Condition()
        self._busy = 0
        self._filled = False
        self._error: BaseException | None = None
        self._file = files.take()
        # The kernel lets one thread at a time write to a file; the others would wait for it burning the processor.
        self._writing = Lock()
        self._end = 0
        self._starts: list[list[int]] = []
        self._stops: list[list[int]] = []
        self._offsets: list[int] = []
        self._boxes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def fill(self) -> None:
        """Decode parts until all are in the file; returns when they are, whichever threads did it."""
        with self._state:
            self._busy += 1
        try:
            scratch = Scratch(self._pool)
            for part in self._parts:
                self._lay_down(part, scratch)
        except BaseException as error:
            self._parts.stop()
            with self._state:
                self._error = self._error or error
            raise
        finally:
            with self._state:
                self._busy -= 1
                if not self._busy:
                    self._filled = True
                    self._boxes = np.array(self._starts, np.int64), np.array(self._stops, np.int64)
                    self._state.notify_all()
        with self._state:
            self._state.wait_for(lambda: self._filled)
            if self._error is not None:
                raise self._error

    def stop(self) -> None:
        """Come to an end after the current chunk."""
        self._parts.stop()

    def _lay_down(self, part: Part, scratch: Scratch) -> None:
        bounds = [entry.indices(extent) for entry, extent in zip(part.target, self.shape, strict=True)]
        start, stop = [low for low, _, _ in bounds], [high for _, high, _ in bounds]
        shape = tuple(high - low for low, high in zip(start, stop, strict=True))
        nbytes = math.prod(shape) * self.itemtype.itemsize
        out = self._pool.take(nbytes)
        array: NDArray[Any] = out.view(self.itemtype).reshape(shape)
        here = tuple(slice(None) for _ in shape)
        self._chunks.put(Part(part.chunk, part.source, here, part.whole), array, scratch)
        with self._state:
            offset, self._end = self._end, self._end + nbytes
            self._starts.append(start)
            self._stops.append(stop)
            self._offsets.append(offset)
        with self._writing:
            self._file.write(offset, out)

    def copy(self, start: tuple[int, ...], stop: tuple[int, ...], result: NDArray[Any]) -> None:
        """Read a box of the block's result.

        Parameters
        ----------
        start, stop : tuple of int
            The box must be contiguous in C order: one index for some first axes, a range of one, all of the others.
        result : ndarray, of the shape of the box, dtype `itemtype`
        """
        assert self._boxes is not None
        low, high = np.maximum(self._boxes[0], start), np.minimum(self._boxes[1], stop)
        for index in np.flatnonzero((low < high).all(axis=1)).tolist():
            self._copy_part(index, low[index], high[index], start, result)

    def _copy_part(
        self, index: int, low: NDArray[np.int64], high: NDArray[np.int64], origin: tuple[int, ...], result: NDArray[Any]
    ) -> None:
        shape = (high - low).tolist()
        first = 0
        for begin, end, position in zip(self._starts[index], self._stops[index], low.tolist(), strict=True):
            first = first * (end - begin) + position - begin
        near = self._pool.take(math.prod(shape) * self.itemtype.itemsize)
        offset = self._offsets[index] + first * self.itemtype.itemsize
        self._file.read(offset, near)
        place = tuple(slice(int(a) - o, int(b) - o) for a, b, o in zip(low, high, origin, strict=True))
        result[place] = near.view(self.itemtype).reshape(shape)


class Unspooling:
    """A piece that is taken from a `Spool`, which is filled first by whoever needs it first."""

    def __init__(self, spool: Spool, start: tuple[int, ...], stop: tuple[int, ...], shares: int, scratch: int) -> None:
        self.shares = shares
        self.scratch = scratch
        self._spool = spool
        self._start = start
        self._stop = stop
        self._shape = tuple(high - low for low, high in zip(start, stop, strict=True))
        self._last = Lock()
        self.nbytes = math.prod(self._shape) * spool.itemtype.itemsize

    def run(self, out: NDArray[np.uint8]) -> None:
        """Help to fill the spool, then copy the piece out of it."""
        self._spool.fill()
        if self._last.acquire(blocking=False):  # never released: one of those that helped goes on
            self._spool.copy(self._start, self._stop, out.view(self._spool.itemtype).reshape(self._shape))

    def stop(self) -> None:
        """Come to an end after the current chunk."""
        self._spool.stop()


def unspooled(spool: Spool, most: int, shares: int, scratch: int) -> Iterator[Unspooling]:
    """Cut what is in a spool into pieces of at most `most` elements."""
    for box in everything(spool.shape).blocks(most):
        spans = [axis for axis in box.axes if isinstance(axis, Span)]
        start = tuple(span.start for span in spans)
        stop = tuple(span.start + span.count for span in spans)
        yield Unspooling(spool, start, stop, shares, scratch)
