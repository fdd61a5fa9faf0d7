"""Ranges of files lent from the page cache: mapped for the kernel to send, never copied into memory of ours."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable

import numpy as np

from ndstream.core.ports import Lent

#: Ranges shorter than this are copied sooner than they are mapped, bytes.
_LENT = 256 << 10
_CACHESTAT = 451  # number of the system call (Linux 6.5) on every processor; the C library has no function for it
_CACHED = 0  # of its five results, the pages that are in memory


def _find_syscall() -> Callable[[int, int, int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    # With the GIL held: it takes microseconds, and a thread that decodes would take longer to give the GIL back.
    function = ctypes.PyDLL(None).syscall
    function.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
    function.restype = ctypes.c_long
    return function


_syscall = _find_syscall()


def lend(fd: int, offset: int, count: int) -> Lent | None:
    """Map a range of a file whose pages are all in memory; None when they are not, or it is too short to be worth it.

    None as well when the kernel does not say: it is older, or the file belongs to somebody else and we may not write
    to it. Who sent what is not in memory would wait for the disk.
    """
    if count < _LENT or not _is_cached(fd, offset, count):
        return None
    start = offset % mmap.ALLOCATIONGRANULARITY
    try:
        pages = mmap.mmap(fd, start + count, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset - start)
    except (OSError, ValueError):
        return None  # it cannot be mapped, or ends before that: who reads it will hear
    return Lent(memoryview(pages)[start:])


def _is_cached(fd: int, offset: int, count: int) -> bool:
    if _syscall is None:
        return False
    asked = np.array((offset, count), np.uint64)
    found = np.empty(5, np.uint64)
    if _syscall(_CACHESTAT, fd, asked.ctypes.data, found.ctypes.data, 0):
        return False
    pages = (offset + count - 1) // mmap.PAGESIZE - offset // mmap.PAGESIZE + 1
    if found[_CACHED] != pages:
        return False
    # What is still being read ahead is counted too; the last of it comes last.
    try:
        return os.preadv(fd, (bytearray(1),), offset + count - 1, os.RWF_NOWAIT) == 1
    except OSError:
        return False
