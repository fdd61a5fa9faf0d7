"""Making one piece of a result, in one thread or in several at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import Limits, MiB
from ndstream.core.ports import Lent
from ndstream.core.selection import Part, Selection
from ndstream.stores.hdf5.chunks import Chunks
from ndstream.stores.hdf5.descriptors import OpenFile
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.runs import read_runs
from ndstream.wire.buffers import BufferPool, Scratch

#: Bytes that are copied at once on the event loop: few, and in the processor's cache when they are sent.
_LOADED = 2 * MiB
#: Bytes that are lent at once: each time has its price, and the kernel takes no more in one go.
_LENT = 4 * MiB


class Work(Protocol):
    """A piece to be made.

    Attributes
    ----------
    nbytes : int, bytes
        Size of the result.
    scratch : int, bytes
        What is needed besides, until it is made.
    shares : int
        How many threads can work on it at once; each calls `run` once, and it is made when all have returned.
    """

    nbytes: int
    scratch: int
    shares: int

    def run(self, out: NDArray[np.uint8]) -> None:
        """Do a share of the work, in the thread of whoever calls.

        Parameters
        ----------
        out : ndarray, shape (nbytes,), uint8
            The same for all shares; written completely by them together.
        """
        ...

    def stop(self) -> None:
        """Come to an end soon: nobody wants the result any more."""
        ...


class Filling:
    """A piece of a dataset that was never written: fill value throughout."""

    shares = 1
    scratch = 0

    def __init__(self, block: Selection, itemsize: int, fill: bytes | None) -> None:
        self.nbytes = block.count * itemsize
        self._itemtype = element_type(itemsize)
        self._fill = fill if fill and any(fill) else None

    def run(self, out: NDArray[np.uint8]) -> None:
        """Fill the piece."""
        if self._fill is None:
            out.fill(0)
        else:
            out.view(self._itemtype)[...] = np.frombuffer(self._fill, self._itemtype)[0]

    def stop(self) -> None:
        """Do nothing: it is short work."""


class Copying:
    """A piece of a contiguous dataset: bytes go from the file to their place."""

    shares = 1
    scratch = 0

    def __init__(self, file: OpenFile, offset: int, block: Selection, itemsize: int, pool: BufferPool) -> None:
        self.nbytes = block.count * itemsize
        self._file = file
        self._offset = offset
        self._block = block
        self._itemsize = itemsize
        self._pool = pool

    def run(self, out: NDArray[np.uint8]) -> None:
        """Read the piece."""
        read_runs(self._file, self._offset, self._block, self._itemsize, out, self._pool)

    def stop(self) -> None:
        """Do nothing: it is short work."""


class Loading:
    """A piece that is in the file as it leaves: ranges of bytes, one behind the other.

    Long enough to be lent; who reads it cuts it first, between its units.
    """

    shares = 1
    scratch = 0

    def __init__(self, file: OpenFile, ranges: list[tuple[int, int]], unit: int = 1) -> None:
        self.nbytes = sum([count for _, count in ranges])
        self._file = file
        self._unit = unit
        self._ranges = ranges

    def run(self, out: NDArray[np.uint8]) -> None:
        """Read the piece."""
        at = 0
        for offset, count in self._ranges:
            self._file.read(offset, out[at : at + count])
            at += count

    def run_now(self, out: NDArray[np.uint8]) -> bool:
        """Do the same if it takes no waiting, because the page cache has it all; False leaves `out` undefined."""
        at = 0
        for offset, count in self._ranges:
            if not self._file.read_now(offset, out[at : at + count].data):
                return False
            at += count
        return True

    def cut(self) -> list[Loading]:
        """Pieces that are not too long to be read at once, one behind the other."""
        some = _cut(self._ranges, _whole(_LOADED, self._unit))
        return [Loading(self._file, ranges, self._unit) for ranges in some]

    def lend(self) -> Lent | None:
        """Lend the piece instead, if it is one range that can be."""
        return self._file.lend(*self._ranges[0]) if len(self._ranges) == 1 else None

    def stop(self) -> None:
        """Do nothing: it is short work."""


def loadings(file: OpenFile, ranges: Iterable[tuple[int, int]], limits: Limits, *, unit: int = 1) -> Iterator[Loading]:
    """Cut ranges of bytes of a file, (offset, count), into pieces of whole units of so many bytes."""
    for some in _cut(ranges, _whole(min(limits.piece, _LENT), unit)):
        yield Loading(file, some, unit)


def _whole(most: int, unit: int) -> int:
    """Bytes of as many units as `most` bytes hold, but of one at least."""
    return max(1, most // unit) * unit


def _cut(ranges: Iterable[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    """Cut ranges, (offset, count), into lists of `most` bytes each; those that touch become one."""
    some: list[tuple[int, int]] = []
    room = most
    for offset, size in ranges:
        start = 0
        while start < size:
            count = min(size - start, room)
            if some and sum(some[-1]) == offset + start:
                some[-1] = (some[-1][0], some[-1][1] + count)
            else:
                some.append((offset + start, count))
            start += count
            room -= count
            if not room:
                yield some
                some, room = [], most
    if some:
        yield some


class Parts:
    """Parts of a block, taken one by one by the threads that share the work."""

    def __init__(self, parts: Iterator[Part]) -> None:
        self._parts = parts
        self._lock = Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[Part]:
        return self

    def __next__(self) -> Part:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._parts)

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped = True


class Decoding:
    """A piece of a chunked dataset: chunks are read, decoded and put in their places by several threads."""

    def __init__(self, chunks: Chunks, block: Selection, shares: int, scratch: int, pool: BufferPool) -> None:
        self.nbytes = block.count * chunks.itemtype.itemsize
        self.shares = shares
        self.scratch = scratch
        self._chunks = chunks
        self._shape = block.shape
        self._pool = pool
        self._parts = Parts(block.over(chunks.grid))

    def run(self, out: NDArray[np.uint8]) -> None:
        """Put chunks into the piece until there are no more."""
        result: NDArray[Any] = out.view(self._chunks.itemtype).reshape(self._shape)
        scratch = Scratch(self._pool)
        try:
            for part in self._parts:
                self._chunks.put(part, result, scratch)
        except BaseException:
            self._parts.stop()
            raise

    def stop(self) -> None:
        """Come to an end after the current chunk."""
        self._parts.stop()
