"""Reading a journal: which commits are decided in it, and carrying them out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ndstream.core.limits import MiB
from ndstream.errors import Corrupt
from ndstream.stores.hdf5.disk import DiskFile
from ndstream.stores.hdf5.log import REFRESH, Touch
from ndstream.stores.hdf5.records import (
    EPOCH,
    EXTENT,
    FIXED,
    HEADER,
    HEADERS,
    SECTOR,
    SLOT,
    SUM,
    Header,
    Kind,
    Record,
    carry_on,
    pack_epoch,
    sectors,
    unpack_extents,
    unpack_header,
    unpack_record,
)

_PIECE = 1 * MiB


class Stored(NamedTuple):
    """A record, and where in the journal it begins."""

    record: Record
    start: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A decided commit; the last of its records is the one that decides."""

    number: int
    end: int
    note: bytes
    records: tuple[Stored, ...]


@dataclass(slots=True)
class Scan:
    """What stands in a journal.

    Attributes
    ----------
    header : Header
    time : int, nanoseconds
        When the journal was last written.
    slot : int
        Position of the slot behind the last whole record.
    checksum : int
        Of that record, or of the header.
    applied : int
        Number of the last commit that is known to be carried out, as long as the machine runs.
    touch : Touch or None
        The main file when we had last written to it; None when what was noted of it is damaged.
    commits : list of Commit
        The decided ones, oldest first.
    """

    header: Header
    time: int
    slot: int
    checksum: int
    applied: int
    touch: Touch | None
    commits: list[Commit] = field(default_factory=list)

    @property
    def commit(self) -> int:
        """Number of the last decided commit."""
        return self.commits[-1].number if self.commits else self.header.commit

    @property
    def end(self) -> int:
        """Length of the main file after it, in bytes."""
        return self.commits[-1].end if self.commits else self.header.end


def scan(journal: DiskFile) -> Scan | None:
    """Read a journal up to the first record that is not whole; None when it is blank.

    Raises
    ------
    Corrupt
        Both headers are damaged, or a record in the middle is: one that others came after.
    """
    header = _header(journal)
    if header is None:
        return None
    found = Scan(header, journal.status().st_mtime_ns, SLOT, header.seed, header.commit, Touch(0, 0))
    parts: list[Stored] = []
    while True:
        _take_mark(journal, found)
        start = found.slot + SECTOR
        taken = _whole(journal, start, header.epoch)
        if taken is None or taken[0].kind == Kind.MARK or taken[0].before != found.checksum:
            break
        record, found.checksum = taken
        found.slot = start + sectors(record.length)
        _learn(found, record)
        parts.append(Stored(record, start))
        if record.kind == Kind.COMMIT:
            note = _bytes(journal, start + record.length - record.note, record.note)
            found.commits.append(Commit(record.commit, record.end, note, tuple(parts)))
            parts.clear()
    if _goes_on(journal, found):
        raise Corrupt("the journal is damaged in the middle")
    return found


def _header(journal: DiskFile) -> Header | None:
    page = _bytes(journal, 0, SLOT)
    if len(page) < SLOT or not any(page):
        return None  # it was never finished, so nobody was told of a commit in it
    for place in HEADERS:
        header = unpack_header(page[place : place + HEADER])
        if header is not None:
            return header
    raise Corrupt("the header of the journal is damaged")


def _take_mark(journal: DiskFile, found: Scan) -> None:
    taken = _whole(journal, found.slot, found.header.epoch)
    if taken is not None and taken[0].kind == Kind.MARK and taken[0].before == found.checksum:
        _learn(found, taken[0])
        return
    slot = _bytes(journal, found.slot, SECTOR)
    if len(slot) == SECTOR and any(slot):
        found.touch = None


def _learn(found: Scan, record: Record) -> None:
    found.applied = record.applied
    found.touch = Touch(record.size, record.mtime, bool(record.touched))
    found.time = max(found.time, record.time)


def _whole(journal: DiskFile, start: int, epoch: int) -> tuple[Record, int] | None:
    """Record or mark at `start` with its checksum, if all of it is there."""
    head = _bytes(journal, start, FIXED)
    if len(head) < FIXED:
        return None
    record, expected = unpack_record(head)
    if record.epoch != epoch or start + record.length > journal.status().st_size:
        return None
    checksum = carry_on(0, head[SUM:])
    for piece in _pieces(journal, start + FIXED, record.length - FIXED):
        checksum = carry_on(checksum, piece)
    return (record, checksum) if checksum == expected else None


def _goes_on(journal: DiskFile, found: Scan) -> bool:
    """Whether there is a trace, further on, of a commit after the last that was found having been decided.

    A crash leaves the last commit torn at most: nothing is written for the next one before it was decided.
    """
    epoch = pack_epoch(found.header.epoch)
    position, size = found.slot + SECTOR, journal.status().st_size
    while position < size:
        piece = _bytes(journal, position, min(_PIECE, size - position))
        at = piece.find(epoch)
        while at >= 0:
            start = position + at - EPOCH
            taken = _whole(journal, start, found.header.epoch) if start % SECTOR == 0 else None
            if taken is not None and taken[0].commit > found.commit + (taken[0].kind != Kind.MARK):
                return True
            at = piece.find(epoch, at + 1)
        position += _PIECE
    return False


def _mark_dirty(journal: DiskFile, found: Scan) -> None:
    """Note in the journal, durably, that it is we who write to the main file."""
    record = Record(
        Kind.MARK, True, found.checksum, found.header.epoch, found.commit, 0, found.applied, time.time_ns(), 0, 0
    )
    journal.write(found.slot, record.pack()[0])
    journal.sync()


def replay(journal: DiskFile, found: Scan, commits: list[Commit], main: DiskFile) -> int:
    """Carry out `commits` in the main file, whatever was carried out before; returns how many bytes were written.

    What is beyond the end of the last one is cut off. Nothing is synchronised. 1 MiB of memory is used.
    """
    total = since = 0
    # Should we be interrupted, the file was written to by us now, not by others after the journal.
    _mark_dirty(journal, found)
    for commit in commits:
        for stored in commit.records:
            for offset, length, piece in _writes(journal, stored, commit.end):
                if piece is None:
                    written = main.clear(offset, length)
                else:
                    main.write(offset, piece)
                    written = length
                total += written
                since += written
                if since > REFRESH:
                    since = 0
                    _mark_dirty(journal, found)
    if main.status().st_size != found.end:
        main.resize(found.end)
    return total


def _writes(journal: DiskFile, stored: Stored, end: int) -> Iterator[tuple[int, int, memoryview | None]]:
    """Yield what a record writes before `end`: where, how many bytes, and these, or None for zeros."""
    record, start = stored
    payload = start + FIXED
    for extent in unpack_extents(_bytes(journal, payload + record.payload, record.extents * EXTENT)):
        offset, stop = extent.offset, min(extent.offset + extent.length, end)
        if extent.zeros:
            for low in range(offset, stop, REFRESH):
                yield low, min(REFRESH, stop - low), None
        else:
            for piece in _pieces(journal, payload, max(0, stop - offset)):
                yield offset, len(piece), piece
                offset += len(piece)
            payload += extent.length


def _pieces(journal: DiskFile, start: int, length: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(length, _PIECE)))
    while length:
        piece = buffer[: min(length, _PIECE)]
        if journal.read(start, piece) < len(piece):
            raise Corrupt("the journal was cut short while it was read")
        yield piece
        start += len(piece)
        length -= len(piece)


def _bytes(journal: DiskFile, start: int, length: int) -> bytes:
    buffer = bytearray(length)
    return bytes(buffer[: journal.read(start, memoryview(buffer))])
