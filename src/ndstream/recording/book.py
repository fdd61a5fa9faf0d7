"""One file of a recording: which message belongs to which entry, and what writes it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from ndstream.core.gaps import Series
from ndstream.core.limits import Limits
from ndstream.core.operations import Operation
from ndstream.core.packets import Buffer, Image, Packet, Position
from ndstream.errors import MessageError
from ndstream.recording.columns import attributes
from ndstream.recording.entries import Chunk, Entry, chunks_of
from ndstream.recording.log import Log, Reference

Key: TypeAlias = tuple[str, Hashable]
"""What is counted, and in which series."""

#: Series that are under way at a time, and entries of one of them, when its images take turns in their form.
_TRACKS = 16
_ENTRIES = 8
_MOST = 1 << 62


class Track:
    """A series that is under way; it goes on from file to file.

    Attributes
    ----------
    series : Series
        Account of its numbers.
    base : int or None
        Number of row 0 in all files; None when rows follow each other as they come.
    start : Packet or None
        Message that it began with.
    first : int or None
        Number that came first.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.series = Series(*key, 1)
        self.base: int | None = None
        self.start: Packet | None = None
        self.first: int | None = None
        self._rows = 0

    def reaches(self, number: int, gap: int) -> bool:
        """Whether a number can have a row: not before the first, and not more than `gap` behind the last."""
        return self.base is None or 0 <= number - self.base <= self._rows + gap

    def count(self, number: int, gap: int) -> None:
        """Note the number of a message."""
        if self.base is None:
            self.first = number
            # Numbers count from 0, unless somebody who listens in has missed very many.
            self.base = 0 if 0 <= number <= gap else number
            if self.base == 0 and self.series.name is not None and not self.series.started:
                self.series.begin(None)
                self.series.started = False
        self._rows = max(self._rows, number - self.base + 1)
        self.series.count(number)


class Book:
    """What is written to one file.

    Parameters
    ----------
    limits : Limits
    tracks : dict of Key to Track
        Series that are under way, from the file before; kept up to date for the file after.

    Attributes
    ----------
    nbytes : int
        Lengths of the messages that were taken.
    waiting : int
        Of these, of those that `operations` has not given yet.
    unwritten : int
        Messages of which that is so.
    frames : int
        Rows that were filled.
    unplaced : int
        Messages that got no row, as their number came before, or is too far from all others: they are in the log alone.
    """

    def __init__(self, limits: Limits, tracks: dict[Key, Track]) -> None:
        self.nbytes = self.waiting = self.unwritten = self.frames = self.unplaced = 0
        self._limits = limits
        self._tracks = tracks
        self._entries: dict[Key, list[Entry]] = {}
        self._all: list[Entry] = []
        self._count = 0
        self._log = Log()
        self._begun = self._told_default = False

    @property
    def messages(self) -> int:
        """Messages that were taken."""
        return self._log.count

    # -- taking messages --

    def add(self, packet: Packet, time: int) -> None:
        """Take a message, which came at `time`, in ns."""
        self._took(packet.frames)
        self._log.add(time, packet.frames, self._filed(packet, time))

    def add_parts(self, frames: Sequence[Buffer], time: int) -> None:
        """Take a message that cannot be decoded: it is kept as it is."""
        self._took(frames)
        self._log.add(time, frames)

    def _took(self, frames: Sequence[Buffer]) -> None:
        nbytes = sum(map(len, frames))
        self.nbytes += nbytes
        self.waiting += nbytes
        self.unwritten += 1

    def _filed(self, packet: Packet, time: int) -> list[Reference]:
        """Put what a message has where it belongs; returns which of its bytes are there."""
        position = packet.position
        if position is None:
            if not _images(packet):
                return []
            position = Position(counter="")
        key = position.counter, position.series
        if position.event == "start":
            return self._start(key, position, packet, time)
        if position.event == "end":
            if key in self._tracks:
                self._tracks[key].series.ended = True
            return []
        return self._row(key, position.number, packet, time)

    def _start(self, key: Key, position: Position, packet: Packet, time: int) -> list[Reference]:
        track = self._tracks.get(key)
        if track is None or track.series.started or track.series.ended:
            track = self._anew(key)
        track.start = packet
        track.series.begin(position.expected)
        entries = self._entries.get(key)
        if not entries:
            return self._open(track, time)[1]
        return entries[0].begin(packet, _images(packet))

    def _row(self, key: Key, number: int | None, packet: Packet, time: int) -> list[Reference]:
        images = _images(packet)
        chunks = chunks_of(images, packet.frames, self._limits)
        if not images and not packet.values and key not in self._tracks:
            return []  # nothing that a row could hold
        track = self._tracks.get(key) or self._anew(key)
        if number is None or key[0] == "pulse_id":
            entry = self._entry(track, chunks, time)
            row = entry.rows
        elif (found := self._numbered(track, number, chunks, time)) is not None:
            entry, row = found
        else:
            self.unplaced += 1
            return []
        self.frames += 1
        return entry.put(row, number, time, packet.values, images, chunks)

    def _numbered(self, track: Track, number: int, chunks: dict[str, Chunk], time: int) -> tuple[Entry, int] | None:
        """Entry and row of a number; None when it gets none."""
        gap = self._limits.record_gap
        if not -_MOST < number < _MOST:
            return None
        entry = self._entry(track, chunks, time)
        reaches = track.reaches(number, gap)
        begins = number == track.first and any(one.has(number) for one in self._entries[track.key])
        if track.series.name is None and (not reaches or begins):
            track = self._anew(track.key)  # the sender began again
            entry = self._entry(track, chunks, time)
        elif not reaches or entry.has(number):
            return None
        track.count(number, gap)
        assert track.base is not None
        entry.base = track.base
        return entry, number - track.base

    # -- series and entries --

    def _anew(self, key: Key) -> Track:
        self._tracks.pop(key, None)
        self._entries.pop(key, None)
        track = self._tracks[key] = Track(key)
        if len(self._tracks) > _TRACKS:
            gone = next(iter(self._tracks))
            del self._tracks[gone]
            self._entries.pop(gone, None)
        return track

    def _entry(self, track: Track, chunks: dict[str, Chunk], time: int) -> Entry:
        """Entry that the images fit into; a new one when there is none."""
        entries = self._entries.setdefault(track.key, [])
        for entry in reversed(entries):
            if entry.fits(chunks):
                return entry
        return self._open(track, time)[0]

    def _open(self, track: Track, time: int) -> tuple[Entry, list[Reference]]:
        """Begin an entry; and which bytes of the message that its series began with are in it."""
        self._count += 1
        entry = Entry(f"/entry_{self._count:04d}", track.series, track.key[0], track.base, self._limits, time)
        references = entry.begin(track.start, _images(track.start)) if track.start is not None else []
        entries = self._entries.setdefault(track.key, [])
        entries.append(entry)
        del entries[:-_ENTRIES]
        self._all.append(entry)
        return entry, references

    # -- writing --

    def operations(self) -> Iterator[Operation]:
        """What writes all that was taken since the last time."""
        if not self._begun:
            self._begun = True
            yield attributes(
                "/", {"NX_class": "NXroot", "creator": "ndstream", "ndstream_recording": np.asarray(1, "<i4")}
            )
        if self._all and not self._told_default:
            self._told_default = True
            yield attributes("/", {"default": self._all[0].name[1:]})
        live = {id(entry) for entries in self._entries.values() for entry in entries}
        for entry in self._all:
            yield from entry.operations()
        self._all = [entry for entry in self._all if id(entry) in live]
        yield from self._log.operations()
        self.waiting = self.unwritten = 0


def _images(packet: Packet) -> dict[str, Image]:
    """Arrays of a message; none when what describes them makes no sense, which is no reason not to record it."""
    try:
        return packet.images
    except MessageError:
        return {}
