"""Buffers that are used again: touching fresh memory costs more than anything done with it afterwards."""

from __future__ import annotations

import ctypes
import mmap
import sys
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 64 << 10
_HUGE_PAGE = 2 << 20

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h
_KEPT = 128 << 20
_MAPPED = 32 << 20  # the most that it can be told


def bytes_of(array: NDArray[Any]) -> memoryview:
    """Bytes of elements in C order, those of dates too: a view when the array is contiguous, else of a copy."""
    view: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return view


def keep_heap() -> None:
    """Have the C library of this process keep up to 128 MiB of freed memory for what comes next.

    For processes that make and drop bytes objects of megabytes all the time. The GNU library gives their memory back to
    the system at once, and has every page again by a fault. Other libraries are left as they are.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _MAPPED)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)


class _Loan(weakref.ref[NDArray[np.uint8]]):
    """Weak reference to an array that was handed out, with the memory that comes back when the array is gone."""

    __slots__ = ("block", "size")

    block: mmap.mmap
    size: int


class BufferPool:
    """Page-aligned buffers whose memory comes back by itself.

    A buffer returns to the pool when the last array or memoryview on it is dropped, whoever held that: a transport
    may keep sending from it long after it was handed over. Buffers up to 64 KiB are plain memory, not pooled.

    Parameters
    ----------
    limit : int, bytes
        Buffers that come back are kept for reuse while all together, in use or not, take at most this much. It
        does not bound what is in use: that is for whoever takes.

    Notes
    -----
    Safe to use from several threads at once. There is no lock, because memory can come back at any moment, in any
    thread, even within a call of `take` (garbage collection): every step is one atomic operation of a dict or deque.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free: dict[int, deque[mmap.mmap]] = {}
        self._out: dict[int, _Loan] = {}

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Hand out a buffer.

        Parameters
        ----------
        nbytes : int, bytes

        Returns
        -------
        ndarray, shape (nbytes,), uint8
            Contents undefined: whatever was there before. ``memoryview(buffer)`` and views keep it alive.
        """
        if nbytes <= _SMALL:
            return np.empty(nbytes, np.uint8)
        size = _capacity(nbytes)
        try:
            block = self._free[size].pop()
        except (KeyError, IndexError):
            block = _map(size)
        # The base of this array is no array, so that views of views keep this very array alive, not its base.
        buffer = np.frombuffer(block, np.uint8, nbytes)
        loan = _Loan(buffer, self._returned)
        loan.block = block
        loan.size = size
        self._out[id(loan)] = loan
        return buffer

    @property
    def out(self) -> int:
        """Bytes in use now, rounded up as they are allocated."""
        return sum(loan.size for loan in list(self._out.values()))

    @property
    def kept(self) -> int:
        """Bytes waiting to be used again."""
        return sum(size * len(blocks) for size, blocks in list(self._free.items()))

    def clear(self) -> None:
        """Give the memory that is not in use back to the system."""
        for blocks in list(self._free.values()):
            blocks.clear()

    def _returned(self, loan: weakref.ref[NDArray[np.uint8]]) -> None:
        assert isinstance(loan, _Loan)
        del self._out[id(loan)]
        if self.out + self.kept + loan.size <= self._limit:
            self._free.setdefault(loan.size, deque()).append(loan.block)


class Scratch:
    """Buffers of a single thread for what one step hands to the next, taken once and used again and again.

    Parameters
    ----------
    pool : BufferPool
    """

    __slots__ = ("_buffers", "_next", "_pool")

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        # A step reads one and writes another; the third is what the first step began with.
        self._buffers = [_NOTHING] * 3
        self._next = 0

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Hand out a buffer, as `BufferPool.take` does; it is used again by the third call after this one."""
        at = self._next
        self._next = (at + 1) % 3
        buffer = self._buffers[at]
        if buffer.size < nbytes:
            # Chunks differ in length: with some room the next one fits as well.
            buffer = self._buffers[at] = self._pool.take(nbytes + nbytes // 8)
        return buffer[:nbytes]


_NOTHING: NDArray[np.uint8] = np.empty(0, np.uint8)


def _capacity(nbytes: int) -> int:
    # Few sizes, so that buffers fit again: powers of two and three steps between, at most a quarter too large.
    step = max(1 << (nbytes - 1).bit_length() - 3, mmap.PAGESIZE)
    return -(-nbytes // step) * step


def _map(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block
