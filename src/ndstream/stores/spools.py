"""Temporary files without a name, used again: overwriting what is in the page cache costs a fraction of new pages."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndstream.errors import Busy

#: Files kept for whoever comes next, and how much of each.
_KEPT = 8
_KEPT_BYTES = 256 << 20


class SpoolFile:
    """A temporary file without a name: gone when the last thread lets go of it, however the server ends."""

    __slots__ = ("_fd", "_files")

    def __init__(self, fd: int, files: SpoolFiles) -> None:
        self._fd = fd
        self._files = files

    def __del__(self) -> None:
        self._files.give_back(self._fd)

    @property
    def descriptor(self) -> int:
        """Of the open file, for a process that is to inherit it."""
        return self._fd

    def write(self, offset: int, data: NDArray[np.uint8] | bytes | bytearray | memoryview) -> None:
        """Write all of `data` (bytes, contiguous) at `offset`; raises `Busy` when there is no room."""
        rest = data.data if isinstance(data, np.ndarray) else memoryview(data)
        while rest:
            try:
                count = os.pwrite(self._fd, rest, offset)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise Busy("no room for temporary files on the server") from error
                raise
            rest = rest[count:]
            offset += count

    def read(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` (uint8, contiguous) with what was written at `offset`."""
        rest = out.data
        while rest:
            count = os.preadv(self._fd, (rest,), offset)
            if not count:
                raise Busy("a temporary file of the server was cut short")
            rest = rest[count:]
            offset += count

    def mapped(self, nbytes: int) -> memoryview:
        """Its first `nbytes` bytes, at least one, read-only; it does not come back before the last view is gone."""
        made = _Map(self._fd, nbytes, access=mmap.ACCESS_READ)
        made.file = self
        return memoryview(made)


class _Map(mmap.mmap):
    """A map that keeps its file."""

    file: SpoolFile


def place_of(view: memoryview) -> tuple[int, int] | None:
    """Descriptor and offset of bytes, contiguous and at least one, that lie in a file that was mapped; else None.

    The file stays as it is while somebody has the view.
    """
    whole = view.obj
    if not isinstance(whole, _Map):
        return None
    return whole.file.descriptor, _address(view) - _address(whole)


def _address(buffer: memoryview | mmap.mmap) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


class SpoolFiles:
    """Temporary files, used again by whoever comes next; safe to use from several threads at once."""

    __slots__ = ("_free", "_most")

    def __init__(self) -> None:
        self._free: deque[int] = deque()
        self._most = _KEPT

    def __del__(self) -> None:
        self._most = 0  # garbage that goes together goes in any order: a file may still come back
        self.clear()

    def take(self) -> SpoolFile:
        """Hand out a file of any content and length; it comes back when it is dropped.

        Raises
        ------
        Busy
            There is none.
        """
        try:
            return SpoolFile(self._free.pop(), self)
        except IndexError:
            pass
        try:
            return SpoolFile(nameless(), self)
        except OSError as error:
            raise Busy(f"no temporary files on the server ({error.strerror})") from error

    def give_back(self, descriptor: int) -> None:
        """Keep a file for the next one, or close it."""
        if len(self._free) >= self._most:
            os.close(descriptor)
            return
        if os.fstat(descriptor).st_size > _KEPT_BYTES:
            os.ftruncate(descriptor, _KEPT_BYTES)
        self._free.append(descriptor)

    def clear(self) -> None:
        """Close the files that are not in use."""
        while self._free:
            os.close(self._free.pop())


def mapped(descriptor: int, nbytes: int, offset: int = 0) -> memoryview:
    """Bytes of a file, read-only, mapped now rather than page by page.

    What the kernel copies from pages that are not mapped yet, it copies in small pieces: a large write to a file takes
    twice as long, and then the disk as well.
    """
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    start = offset % mmap.ALLOCATIONGRANULARITY
    return memoryview(mmap.mmap(descriptor, start + nbytes, flags, mmap.PROT_READ, offset=offset - start))[start:]


def nameless() -> int:
    """Open a temporary file that has no name; raises plain `OSError`."""
    descriptor, name = tempfile.mkstemp(prefix="ndstream-")
    Path(name).unlink()
    return descriptor
