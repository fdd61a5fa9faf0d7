"""Open descriptors of HDF5 files, read without the HDF5 library."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ndstream.core.ports import Lent
from ndstream.errors import Corrupt, Replaced
from ndstream.stores.hdf5.generation import generation_of, is_unwritten
from ndstream.stores.hdf5.pages import lend

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # not to hang on what became a pipe
_NOT_NOW = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL})
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class OpenFile:
    """One state of a file, held open.

    Closed when the last reference to it is dropped: a thread that still reads keeps the descriptor valid, whatever
    became of the request that it reads for.

    Parameters
    ----------
    path : str
        Real path, not followed if it is a symbolic link by now.
    generation : str
        The state that is meant (`ndstream.stores.hdf5.generation`).

    Raises
    ------
    Replaced
        When the path leads to another state of the file, or nowhere.
    """

    __slots__ = ("_fd", "_status", "generation")

    def __init__(self, path: str, generation: str) -> None:
        self._fd = -1
        self.generation = generation
        try:
            self._fd = os.open(path, _FLAGS)
        except OSError as error:
            raise Replaced(f"the file cannot be opened any more ({error.strerror})") from error
        self._status = os.fstat(self._fd)
        if generation_of(self._status) != generation:
            raise Replaced("the file changed before it was read")

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def check(self) -> None:
        """Raise `Replaced` when the file was written to since its generation was taken."""
        if not is_unwritten(self._status, os.fstat(self._fd)):
            raise Replaced("the file changed while it was read")

    def read(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` (uint8, contiguous) with the bytes at `offset`.

        Raises
        ------
        Replaced, Corrupt
            When the file ends before that, or the disk fails: because it changed, or by itself.
        """
        rest = out.data
        while rest:
            try:
                count = os.preadv(self._fd, (rest,), offset)
            except OSError as error:
                raise Corrupt(f"the file cannot be read ({error.strerror})") from error
            if count == 0:
                self.check()
                raise Corrupt(f"the file ends at {offset}, where data should be")
            rest = rest[count:]
            offset += count

    def read_each(self, offsets: list[int], starts: list[int], stops: list[int], out: NDArray[np.uint8]) -> None:
        """Fill ``out[starts[i]:stops[i]]`` with the bytes at ``offsets[i]``, for every i; raises as `read` does."""
        # A system call takes a microsecond: what Python does around it is kept to the least.
        view, fd, preadv = out.data, self._fd, os.preadv
        for offset, start, stop in zip(offsets, starts, stops, strict=True):
            try:
                complete = preadv(fd, (view[start:stop],), offset) == stop - start
            except OSError as error:
                raise Corrupt(f"the file cannot be read ({error.strerror})") from error
            if not complete:
                self.read(offset, out[start:stop])

    def read_now(self, offset: int, out: memoryview) -> bool:
        """Do the same if it takes no waiting, because the page cache has it all; False leaves `out` undefined."""
        if _NOWAIT is None:
            return False
        try:
            return os.preadv(self._fd, (out,), offset, _NOWAIT) == len(out)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return False
            raise Corrupt(f"the file cannot be read ({error.strerror})") from error

    def lend(self, offset: int, count: int) -> Lent | None:
        """Lend bytes instead of reading them, if the page cache has them all; `check` again when they are sent."""
        return lend(self._fd, offset, count)


class Descriptor:
    """A descriptor of a file with an owner, closed when the last reference to it is dropped.

    Attributes
    ----------
    number : int
    left : os.stat_result or None
        What the file was when its owner had let go of it; None until then.

    Raises
    ------
    Replaced
        When the path leads nowhere.
    """

    __slots__ = ("left", "number")

    def __init__(self, path: str) -> None:
        self.number = -1
        self.left: os.stat_result | None = None
        try:
            self.number = os.open(path, _FLAGS)
        except OSError as error:
            raise Replaced(f"the file cannot be opened any more ({error.strerror})") from error

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """Note what the file is at the end of this, in which its owner lets go of it.

        Until then programs that lock what they write do not write it.
        """
        with contextlib.suppress(OSError):  # there are file systems without locks
            fcntl.flock(self.number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        try:
            yield
        finally:
            self.left = os.fstat(self.number)
            with contextlib.suppress(OSError):
                fcntl.flock(self.number, fcntl.LOCK_UN)


class LiveFile(OpenFile):
    """A file that its owner writes: what was read of it is good, because nobody writes while a piece is read.

    From when its owner has let go of it, it is a file like others, which has to stay as it was left.

    Parameters
    ----------
    descriptor : Descriptor
        Shared by all who read the file.
    generation : str
        The state from which on what is read has been as it is.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: Descriptor, generation: str) -> None:
        self._descriptor = descriptor
        self._fd = descriptor.number
        self.generation = generation

    def __del__(self) -> None:
        """Leave the descriptor to those who share it."""

    def check(self) -> None:
        """Raise `Replaced` when the file was written to since its owner let go of it; before, that is for the gate."""
        left = self._descriptor.left
        if left is not None and not is_unwritten(left, os.fstat(self._fd)):
            raise Replaced("the file changed while it was read")

    def lend(self, offset: int, count: int) -> Lent | None:
        """Lend nothing: its owner may write while the kernel still sends."""
        return None


class Descriptors:
    """The files that were read last, kept open.

    Not safe for several threads: it belongs to the event loop, the files it hands out do not.

    Parameters
    ----------
    limit : int
        How many files to keep.
    """

    __slots__ = ("_files", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._files: dict[str, OpenFile] = {}

    def open(self, path: str, generation: str) -> OpenFile:
        """Open a file, or find it open; raises `Replaced` as `OpenFile` does."""
        file = self._files.pop(path, None)
        if file is None or file.generation != generation:
            file = OpenFile(path, generation)
        self._files[path] = file
        if len(self._files) > self._limit:
            del self._files[next(iter(self._files))]
        return file

    def clear(self) -> None:
        """Let go of all files."""
        self._files.clear()
