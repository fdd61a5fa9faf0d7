"""The journal of one file, being written: bytes are laid down, then decided, then marked as carried out.

What the bytes of it mean is in `ndstream.stores.hdf5.records`.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ndstream.core.limits import KiB, MiB
from ndstream.stores.hdf5.disk import Buffer, DiskFile
from ndstream.stores.hdf5.records import (
    FIXED,
    HEADERS,
    SECTOR,
    SLOT,
    Extent,
    Header,
    Kind,
    Record,
    pack_extents,
    sectors,
)

_BUFFER = 1 * MiB
_LARGE = 256 * KiB  # what is larger becomes a record of its own, and is not copied
_MANY = 4096  # extents in one record
_AHEAD = 1 * MiB
#: Bytes written to the main file after which the journal is told that we are at it still.
REFRESH = 256 * MiB
_BLANK = bytes(2 * SECTOR)


class Touch(NamedTuple):
    """What is known of the main file: its length and modification time when we had last written to it.

    When `dirty`, we may have written to it since then.
    """

    size: int
    mtime: int
    dirty: bool = False


def touch_of(status: os.stat_result) -> Touch:
    """Take what is known from what the file system says."""
    return Touch(status.st_size, status.st_mtime_ns)


class Log:
    """The journal from its last checkpoint on.

    Small writes stay in a buffer of 1 MiB until they are committed or the buffer is full, so that a small commit is
    one system call. A position is one in the journal file, whether the bytes are there yet or still in the buffer.
    Raises plain `OSError`; what was written then and not decided is gone after `rollback`.

    Parameters
    ----------
    file : DiskFile
        Open for reading and writing. It is overwritten.
    header : Header
        Whose journal it is; the epoch is chosen here.
    touch : Touch
        The main file as it is now.
    ahead : bool
        Write zeros ahead of the records: to synchronise bytes that overwrite others takes two thirds of the time that
        new ones take.
    """

    def __init__(self, file: DiskFile, header: Header, touch: Touch, *, ahead: bool) -> None:
        self.file = file
        self.decided = header.commit  #: number of the last commit that has its record
        self.touch = touch  #: the main file, as the last mark has it
        self._ahead = ahead
        self._buffer = memoryview(bytearray(_BUFFER))
        self._restart(header)

    def checkpoint(self, end: int, touch: Touch) -> None:
        """Begin anew: all commits are in the main file for good, and `end` is its length.

        The old records are void once the file is synchronised, which is up to the caller.
        """
        self.touch = touch
        self._restart(self._header._replace(commit=self.decided, end=end))

    def _restart(self, header: Header) -> None:
        self._header = header = header._replace(epoch=int.from_bytes(os.urandom(8), "little"))
        page = bytearray(SLOT + SECTOR)
        packed = header.pack()
        for place in HEADERS:
            page[place : place + len(packed)] = packed
        self.file.write(0, page)
        self._length = self.file.status().st_size
        self._slot, self._checksum, self._applied = SLOT, header.seed, header.commit
        self._began: tuple[int, int] | None = None
        self._clear()
        self.mark(self.touch)

    def _clear(self) -> None:
        self._fill = 0
        self._base = self._slot + SECTOR + FIXED
        self._extents: list[Extent] = []
        self._sealed = False

    @property
    def nbytes(self) -> int:
        """Bytes of the journal that mean something; the buffer does not count."""
        return self._slot + SECTOR

    @property
    def empty(self) -> bool:
        """Whether there is no record since the last checkpoint."""
        return self._slot == SLOT

    def shrink(self, length: int) -> None:
        """Give disk space back beyond `length` bytes, right after a checkpoint."""
        if self._length > length:
            self._length = max(length, self.nbytes)
            self.file.resize(self._length)

    def add(self, offset: int, data: memoryview) -> int:
        """Lay down bytes that belong at `offset` of the main file; returns their position."""
        if self._sealed:
            self._clear()
        if len(data) > _LARGE:
            self._flush()
            position = self._base
            self._append(Kind.PART, data, [Extent(offset, len(data), False)])
            self._clear()
            self.file.hasten(len(data))
            return position
        if self._fill + len(data) > _BUFFER or len(self._extents) >= _MANY:
            self._flush()
        position = self._base + self._fill
        self._buffer[self._fill : self._fill + len(data)] = data
        self._fill += len(data)
        self._extend(offset, len(data), zeros=False)
        return position

    def add_zeros(self, offset: int, length: int) -> None:
        """Lay down that `length` bytes at `offset` of the main file are zero."""
        if self._sealed:
            self._clear()
        if len(self._extents) >= _MANY:
            self._flush()
        self._extend(offset, length, zeros=True)

    def _extend(self, offset: int, length: int, *, zeros: bool) -> None:
        if self._extents:
            last = self._extents[-1]
            if last.zeros == zeros and last.offset + last.length == offset:
                offset, length = last.offset, last.length + length
                self._extents.pop()
        self._extents.append(Extent(offset, length, zeros))

    def patch(self, position: int, data: memoryview) -> bool:
        """Overwrite bytes laid down at `position`; False when they have left the buffer."""
        where = position - self._base
        if self._sealed or where < 0 or where + len(data) > self._fill:
            return False
        self._buffer[where : where + len(data)] = data
        return True

    def view(self, position: int, length: int) -> memoryview | None:
        """Bytes laid down, as a view of the buffer that lasts to the next call; None when they have left it."""
        where = position - self._base
        return self._buffer[where : where + length] if where >= 0 and where + length <= self._fill else None

    def read(self, position: int, into: memoryview) -> None:
        """Fill `into` with bytes laid down at `position`."""
        view = self.view(position, len(into))
        if view is not None:
            into[:] = view
        elif self.file.read(position, into) < len(into):
            raise OSError("the journal was cut short while it was in use")

    def commit(self, end: int, touch: Touch, note: bytes) -> int:
        """Write the record that decides on all that was laid down; returns the number of the commit.

        Parameters
        ----------
        end : int, bytes
            Length of the main file after the commit.
        touch : Touch
            The main file as it is now.
        note : bytes
            Comes back when the journal is replayed.
        """
        if self._sealed:
            self._clear()
        self.touch = touch
        self._append(Kind.COMMIT, self._buffer[: self._fill], self._extents, end, note)
        self.decided += 1
        self._began = None
        self._sealed = True
        return self.decided

    def mark(self, touch: Touch, applied: int | None = None) -> None:
        """Note what became of the main file, and the number of the last commit that is carried out there."""
        if applied is not None:
            self._applied = applied
        self.touch = touch
        head, _ = self._record(Kind.MARK).pack()
        self.file.write(self._slot, head)

    def distrust(self) -> None:
        """Have all commits since the checkpoint replayed, as what was synchronised may not be on the disk."""
        self.mark(self.touch._replace(dirty=True), self._header.commit)

    def rollback(self) -> None:
        """Forget what was laid down and not decided."""
        if self._began is not None:
            self._slot, self._checksum = self._began
            # A record that failed half way may be whole but for bytes that happen to be there.
            self._length = self.nbytes
            self.file.resize(self._length)
            self._began = None
        self._clear()

    def _flush(self) -> None:
        if self._extents:
            self._append(Kind.PART, self._buffer[: self._fill], self._extents)
            self._clear()

    def _record(self, kind: Kind, end: int = 0) -> Record:
        commit = self.decided if kind is Kind.MARK else self.decided + 1
        touch = self.touch
        # fmt: off
        return Record(
            kind, touch.dirty, self._checksum, self._header.epoch, commit, end, self._applied, time.time_ns(),
            touch.size, touch.mtime,
        )
        # fmt: on

    def _append(self, kind: Kind, payload: Buffer, ranges: list[Extent], end: int = 0, note: bytes = b"") -> None:
        extents = pack_extents(ranges)
        record = self._record(kind, end)._replace(payload=len(payload), extents=len(ranges), note=len(note))
        head, checksum = record.pack(payload, extents, note)
        start = self._slot + SECTOR
        slot = start + sectors(record.length)
        if self._began is None:
            self._began = self._slot, self._checksum
        if slot + SECTOR > self._length and self._ahead and record.length <= _LARGE:
            self.file.write(self._length, bytes(slot + _AHEAD - self._length))
            self._length = slot + _AHEAD
        # The slot behind the record must be blank: what was there in another epoch is not a damaged mark.
        self.file.write(start, head, payload, extents, note, _BLANK[: slot + SECTOR - start - record.length])
        self._length = max(self._length, slot + SECTOR)
        self._slot, self._checksum = slot, checksum
