"""What stands in a journal, byte by byte; nothing here opens a file.

A journal is a header, twice, in its first page, and behind it records. Every record is followed by a slot of one
sector for a mark, which says how far the commits are carried out, and may be written again and again; the first slot
stands before the first record. All numbers are little-endian. Records begin at whole sectors::

    page 0      header, the same header at byte 2048
    4096        slot
    4608        record = fixed part, payload, extents, note
                slot
                record …

A PART holds bytes of a commit that is not complete, a COMMIT the rest of them and the decision. An extent is a range of
the main file; the payload holds the bytes of the extents one behind the other, in the order of writing, later ones on
top. Extents of zeros have no bytes. Every record and every mark holds the checksum of the record before it, so that a
record counts only with all that were before it; the first one has the checksum of the epoch there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from ndstream.stores.hdf5.disk import Buffer, Identity

try:
    from isal.isal_zlib import crc32  # three times as fast
except ImportError:
    from zlib import crc32

SECTOR = 512
HEADERS = (0, 2048)
SLOT = 4096  #: where the first slot is; the first record is one sector further on

_MAGIC = b"NDJRNL\x00\x02"  # the last byte is the version
_HEADER = struct.Struct("<8sQQQ16sQQQI")
_FIXED = struct.Struct("<HHIQQQQQQqQII")
_SUM = struct.Struct("<I")
_EXTENT = struct.Struct("<QQ")
_ZEROS = 1 << 63

#: Length of the fixed part of a record, or of a mark.
FIXED = _FIXED.size + _SUM.size
#: Length of the checksum that the fixed part begins with.
SUM = _SUM.size
#: Where the epoch is in a record.
EPOCH = SUM + struct.calcsize("<HHI")
#: Length of an extent.
EXTENT = _EXTENT.size


class Header(NamedTuple):
    """What a journal belongs to, and where it begins.

    Attributes
    ----------
    identity : Identity
        The main file.
    boot : bytes, 16
        Of the kernel that the journal was written under.
    epoch : int
        Random; records with another one are left over.
    commit : int
        Number of the last commit that is in the main file, and synchronised.
    end : int, bytes
        Length of the main file after it.
    """

    identity: Identity
    boot: bytes
    epoch: int
    commit: int
    end: int

    def pack(self) -> bytes:
        """Bytes of the header, with its checksum."""
        which = self.identity
        # fmt: off
        head = _HEADER.pack(
            _MAGIC, which.device, which.inode, which.generation, self.boot, self.epoch, self.commit, self.end, 0,
        )[: -_SUM.size]
        # fmt: on
        return head + _SUM.pack(crc32(head))

    @property
    def seed(self) -> int:
        """What stands for the checksum of a record before the first."""
        return crc32(pack_epoch(self.epoch))


HEADER = _HEADER.size


def unpack_header(data: Buffer) -> Header | None:
    """Header in `data`, which holds `HEADER` bytes; None when it is damaged, or none at all."""
    magic, device, inode, generation, boot, epoch, commit, end, checksum = _HEADER.unpack(data)
    if magic != _MAGIC or checksum != crc32(memoryview(data)[: -_SUM.size]):
        return None
    return Header(Identity(device, inode, generation), boot, epoch, commit, end)


class Kind(IntEnum):
    """What a record is."""

    PART = 1
    COMMIT = 2
    MARK = 3


class Record(NamedTuple):
    """The fixed part of a record.

    Attributes
    ----------
    kind : int
        Of `Kind`.
    touched : int
        1 when we may have written to the main file since it had `size` and `mtime`.
    before : int
        Checksum of the record before.
    epoch : int
        Of the header.
    commit : int
        Number of the commit that the record is a part of; in a mark of the one before the slot.
    end : int, bytes
        Length of the main file after that commit.
    applied : int
        Number of the last commit that had been carried out in the main file.
    time : int, nanoseconds
        When the record was written.
    size, mtime : int, bytes and nanoseconds
        Length and modification time of the main file after we wrote to it.
    payload : int, bytes
    extents : int, count
    note : int, bytes
    """

    kind: int
    touched: int
    before: int
    epoch: int
    commit: int
    end: int
    applied: int
    time: int
    size: int
    mtime: int
    payload: int = 0
    extents: int = 0
    note: int = 0

    @property
    def length(self) -> int:
        """Bytes of the whole record."""
        return FIXED + self.payload + self.extents * _EXTENT.size + self.note

    def pack(self, payload: Buffer = b"", extents: bytes = b"", note: bytes = b"") -> tuple[bytes, int]:
        """Fixed part of the record as bytes, and the checksum of all of it, which is its beginning."""
        head = _FIXED.pack(*self)
        checksum = carry_on(0, head, payload, extents, note)
        return _SUM.pack(checksum) + head, checksum


def unpack_record(data: Buffer) -> tuple[Record, int]:
    """Fixed part of a record, whatever the bytes, and the checksum that it should have."""
    return Record(*_FIXED.unpack_from(data, _SUM.size)), _SUM.unpack_from(data)[0]


def pack_epoch(epoch: int) -> bytes:
    """Bytes of an epoch as they stand at `EPOCH` of every record."""
    return epoch.to_bytes(8, "little")


def carry_on(checksum: int, *parts: Buffer) -> int:
    """Carry a checksum on over `parts`."""
    for part in parts:
        checksum = crc32(part, checksum)
    return checksum


class Extent(NamedTuple):
    """A range of the main file that a record writes; `zeros` has no bytes in the payload."""

    offset: int
    length: int
    zeros: bool


def pack_extents(extents: Iterable[Extent]) -> bytes:
    """Bytes of a list of extents."""
    return b"".join(_EXTENT.pack(offset | _ZEROS if zeros else offset, length) for offset, length, zeros in extents)


def unpack_extents(data: Buffer) -> Iterator[Extent]:
    """Extents from their bytes."""
    for offset, length in _EXTENT.iter_unpack(data):
        yield Extent(offset & ~_ZEROS, length, bool(offset & _ZEROS))


def sectors(length: int) -> int:
    """Bytes that `length` bytes take in whole sectors."""
    return -(-length // SECTOR) * SECTOR
