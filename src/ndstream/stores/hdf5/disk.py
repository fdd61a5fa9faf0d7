"""A file on disk, as the journal needs it: whole reads, whole writes, locks, and an identity that outlives its name."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from ndstream.errors import NDStreamError, NotFound, StorageFailed, StorageFull

Buffer: TypeAlias = bytes | bytearray | memoryview

_PARTS = 512  # the kernel takes 1024 buffers at once
HASTE = 4 << 20  # bytes that are written before they should be on their way to the disk
_GET_GENERATION = 0x80087601  # FS_IOC_GETVERSION of linux/fs.h
_AGAIN = 0.01  # seconds between two attempts to lock a file
_BEGIN = 2  # SYNC_FILE_RANGE_WRITE
_HOLE = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_ZEROS = memoryview(bytes(1 << 20))
_LOCK = struct.Struct("=hh4xqqi4x")  # struct flock: kind, whence, start, length, process
_CLAIM = 1 << 62, 1  # where the lock of `claim` is, and its length: behind every end
_NO_LOCKS = (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file is, whatever it is called.

    `generation` tells two files apart that had the same inode number one after the other; 0 where the file system
    has none.
    """

    device: int
    inode: int
    generation: int


class DiskFile:
    """An open file; every method is one kind of system call, with the rest of it done too.

    Not for several threads at once. Raises plain `OSError`: who knows what the file is for says it in words of ours.
    Tests put a subclass in its place that fails or dies at a chosen call.

    Attributes
    ----------
    eager : bool
        Whether `hasten` does anything: for files that will be synchronised.
    """

    __slots__ = ("_ahead", "_kept", "_place", "_thread", "descriptor", "eager")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.eager = False
        self._place: tuple[int, int] | None = None
        self._kept = 0  # bytes that were written since the system was told to begin with them
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: Future[None] | None = None

    @classmethod
    def open(cls, path: Path, flags: int = os.O_RDWR, mode: int = 0o600) -> Self:
        """Open the file at `path`, which is no symbolic link; `flags` as for `os.open`."""
        return cls(os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode))

    def read(self, offset: int, into: memoryview) -> int:
        """Read at `offset` until `into` (bytes) is full or the file ends; returns how many bytes came."""
        done = 0
        while done < len(into):
            count = os.preadv(self.descriptor, (into[done:],), offset + done)
            if not count:
                break
            done += count
        return done

    def write(self, offset: int, *parts: Buffer) -> None:
        """Write all of `parts` (buffers of bytes), one behind the other, at `offset`."""
        count = os.pwritev(self.descriptor, parts[:_PARTS], offset)
        if count < sum(map(len, parts)):
            self._write_rest(offset, count, [memoryview(part) for part in parts])

    def _write_rest(self, offset: int, count: int, rest: list[memoryview]) -> None:
        while rest:
            offset += count
            while rest and count >= len(rest[0]):
                count -= len(rest.pop(0))
            if rest:
                rest[0] = rest[0][count:]
                count = os.pwritev(self.descriptor, rest[:_PARTS], offset)

    def resize(self, length: int) -> None:
        """Make the file `length` bytes long; what is added reads as zeros."""
        os.ftruncate(self.descriptor, length)

    def clear(self, offset: int, length: int) -> int:
        """Make `length` bytes at `offset` zero, as far as the file goes; returns how many were written for it.

        These are none, and the bytes take no room on the disk, where the file system has holes.
        """
        stop = min(offset + length, self.status().st_size)
        if offset >= stop or self.punch(offset, stop - offset):
            return 0
        for start in range(offset, stop, len(_ZEROS)):
            self.write(start, _ZEROS[: stop - start])
        return stop - offset

    def punch(self, offset: int, length: int) -> bool:
        """Put a hole in place of `length` bytes at `offset`; False, and nothing is done, where there are no holes."""
        while _fallocate(self.descriptor, _HOLE, offset, length):
            number = ctypes.get_errno()
            if number in (errno.EOPNOTSUPP, errno.ENOSYS):
                return False
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))
        return True

    def sync(self) -> None:
        """Wait until the content, and what is needed to find it, is on the disk."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.result()
        os.fdatasync(self.descriptor)

    def hasten(self, nbytes: int) -> None:
        """Have what was written put on the disk while more is written, when it is much: then `sync` waits less.

        Told after every so many `nbytes`. To have the system begin is not enough: many disks keep what they are given
        until they are told to make it durable. What goes wrong meanwhile is raised by `sync`.
        """
        self._kept += nbytes
        if not self.eager or self._kept < HASTE:
            return
        self._kept = 0
        _sync_file_range(self.descriptor, 0, 0, _BEGIN)
        if self._ahead is None or (self._ahead.done() and self._ahead.exception() is None):
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="ndstream-sync")
            self._ahead = self._thread.submit(os.fdatasync, self.descriptor)

    def status(self) -> os.stat_result:
        """Length, times and numbers of the file as they are now."""
        return os.fstat(self.descriptor)

    def identity(self) -> Identity:
        """Tell which file this is."""
        status = self.status()
        answer = bytearray(8)
        try:
            fcntl.ioctl(self.descriptor, _GET_GENERATION, answer)
        except OSError:
            answer = bytearray(8)  # not every file system counts generations
        return Identity(status.st_dev, status.st_ino, struct.unpack("=I4x", answer)[0])

    def is_at(self, path: Path | str) -> bool:
        """Whether `path` still names this very file."""
        if self._place is None:
            status = self.status()
            self._place = status.st_dev, status.st_ino
        try:
            there = os.lstat(path)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == self._place

    def lock(self, *, shared: bool, patience: float = 0.0) -> bool:
        """Lock the file as HDF5 does (flock), until it is closed.

        Returns False when somebody else holds a lock against it, for so many seconds at least.
        """
        return _keep_trying(lambda: self._flock(shared=shared), patience)

    def _flock(self, *, shared: bool) -> bool:
        try:
            fcntl.flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def claim(self, *, patience: float = 0.0) -> bool:
        """Be the only one of all processes who has claimed this file, under whatever name, until it is closed.

        The file is open for writing. Returns False when somebody else has claimed it, for so many seconds at least.
        Who locks the file as HDF5 does, to read it, keeps nobody from it, nor is kept from it. Where the file system
        has no such locks, nobody is refused.
        """
        try:
            return _keep_trying(self._claim, patience)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return True

    def _claim(self) -> bool:
        if not self._lock_byte(fcntl.F_WRLCK):
            asked = fcntl.fcntl(self.descriptor, fcntl.F_OFD_GETLK, _LOCK.pack(fcntl.F_WRLCK, 0, *_CLAIM, 0))
            kind, _, *place, _ = _LOCK.unpack(asked)
            if kind == fcntl.F_UNLCK or tuple(place) == _CLAIM:
                return False
        # A shared lock is enough to keep others from the other kind. Over NFS, flock is a lock on all of the bytes:
        # those who read have a shared one too.
        return self._lock_byte(fcntl.F_RDLCK)

    def _lock_byte(self, kind: int) -> bool:
        # Of the open file, not of the process: it conflicts within one too, and outlives other descriptors.
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(kind, 0, *_CLAIM, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True

    @classmethod
    def rename(cls, path: Path, target: Path) -> None:
        """Give a file another name in the same directory."""
        path.rename(target)

    @classmethod
    def remove(cls, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    @classmethod
    def sync_directory(cls, path: Path) -> None:
        """Wait until the names in a directory are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the file and give up its locks; nothing can be done with it any more."""
        if self._thread is not None:
            self._thread.shutdown()
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)


def _keep_trying(attempt: Callable[[], bool], patience: float) -> bool:
    until = time.monotonic() + patience
    while not attempt():
        if time.monotonic() >= until:
            return False
        time.sleep(_AGAIN)
    return True


def failure_of(error: OSError, path: Path) -> NDStreamError:
    """Error of ours that says what an error of the operating system means for the file at `path`."""
    if isinstance(error, NDStreamError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"there is no room left for {path.name}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageFailed(f"the server is not allowed to write {path.name}, or beside it")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"there is no file {path.name}")
    return StorageFailed(f"{path.name}: {error.strerror or error}")
