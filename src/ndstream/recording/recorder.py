"""Recording: messages are collected, and written in commits while others come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from ndstream.core.limits import DEFAULT_LIMITS, Limits, MiB
from ndstream.core.operations import Operation
from ndstream.core.packets import Buffer, Packet
from ndstream.errors import InvalidRequest
from ndstream.recording.book import Book, Key, Track
from ndstream.recording.targets import Target

#: Bytes of messages that are committed together, at most; as many wait meanwhile.
_COMMIT = 64 * MiB
#: Commits under way: while one is written, the next is made ready.
_UNDER_WAY = 2
#: Digits of the numbers of files that follow each other.
_DIGITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """When the next file begins; None is never.

    Attributes
    ----------
    size : int, bytes
        As soon as the messages of a file are together as long.
    count : int
        When a file has so many messages.
    seconds : float
        When the first message of a file came so long ago.
    """

    size: int | None = None
    count: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if any(limit is not None and limit <= 0 for limit in (self.size, self.count, self.seconds)):
            raise InvalidRequest("a file that is rolled has a size, count or time above 0")

    @property
    def ever(self) -> bool:
        """Whether there can be more than one file."""
        return (self.size, self.count, self.seconds) != (None, None, None)


@dataclass(slots=True)
class Recorded:
    """What a recorder has done so far.

    Attributes
    ----------
    messages, nbytes : int
        That were taken, and the lengths of their parts.
    frames : int
        Rows that were filled: images, or pulses.
    unplaced : int
        Messages of a series that got no row: repeated, or far from all others.
    undecodable : int
        Messages that could not be decoded, and are kept as they are.
    committed : int
        Messages that are in files for good.
    commits : int
    files : list of str
        In the order in which they were begun.
    """

    messages: int = 0
    nbytes: int = 0
    frames: int = 0
    unplaced: int = 0
    undecodable: int = 0
    committed: int = 0
    commits: int = 0
    files: list[str] = field(default_factory=list)


class Recorder:
    """Writes messages to files.

    Parameters
    ----------
    target : Target
    name : str
        Of the file; with `rolling` each file has a number before its suffix: ``run.h5`` makes ``run_00000.h5``, ….
    interval : float, seconds
        Between two commits; they come earlier when much has come.
    rolling : Rolling
    limits : Limits
        `record_gap` and `chunk` apply.

    Attributes
    ----------
    statistics : Recorded

    Notes
    -----
    For one task. `add` and `add_parts` wait for nothing; `turn` is awaited after each of them, or when none came for a
    while, and waits only when the disk is slower than the stream.
    """

    def __init__(
        self,
        target: Target,
        name: str,
        *,
        interval: float = 1.0,
        rolling: Rolling | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        if not interval >= 0:
            raise InvalidRequest(f"the interval is {interval} seconds; it can be 0 or more")
        self.statistics = Recorded()
        self._target = target
        self._name = PurePath(name)
        self._interval = interval
        self._rolling = rolling or Rolling()
        self._limits = limits
        self._tracks: dict[Key, Track] = {}
        self._book: Book | None = None
        self._file = ""
        self._begun = self._due = 0.0
        self._commits: deque[asyncio.Task[None]] = deque()
        self._making = False  # whether the last of these makes its file

    @property
    def first_file(self) -> str:
        """Name of the file that is written first."""
        return self._file_name(0)

    # -- taking messages --

    def add(self, packet: Packet, time_ns: int | None = None) -> None:
        """Take a message, whose parts must not change any more; `time_ns` is when it came, now by default."""
        book = self._opened()
        frames, unplaced = book.frames, book.unplaced
        book.add(packet, time.time_ns() if time_ns is None else time_ns)
        self.statistics.frames += book.frames - frames
        self.statistics.unplaced += book.unplaced - unplaced
        self._took(packet.frames)

    def add_parts(self, frames: Sequence[Buffer], time_ns: int | None = None) -> None:
        """Take a message that cannot be decoded."""
        self._opened().add_parts(frames, time.time_ns() if time_ns is None else time_ns)
        self.statistics.undecodable += 1
        self._took(frames)

    def _opened(self) -> Book:
        if self._book is None:
            self._book = Book(self._limits, self._tracks)
            self._begun = time.monotonic()
            self._file = self._file_name(len(self.statistics.files))
        if not self._book.unwritten:
            self._due = time.monotonic() + self._interval
        return self._book

    def _file_name(self, number: int) -> str:
        if not self._rolling.ever:
            return str(self._name)
        return str(self._name.with_name(f"{self._name.stem}_{number:0{_DIGITS}d}{self._name.suffix}"))

    def _took(self, frames: Sequence[Buffer]) -> None:
        self.statistics.messages += 1
        self.statistics.nbytes += sum(map(len, frames))

    # -- writing --

    async def turn(self) -> None:
        """Write if it is time.

        Raises
        ------
        Exists
            The file that is to be begun is there already.
        NDStreamError
            Something could not be written; what was committed before is in the files.
        """
        book = self._book
        await self._settled(_UNDER_WAY)
        if book is None:
            return
        full = self._is_full(book)
        if full or book.waiting >= _COMMIT or (book.unwritten and time.monotonic() >= self._due):
            if self._commits and not full and book.waiting < _COMMIT:
                return  # what has come by the time that they are done comes in the next one
            await self._settled(0 if self._making else _UNDER_WAY - 1)
            self._begin_commit(book, last=full)

    def _is_full(self, book: Book) -> bool:
        rolling = self._rolling
        return (
            (rolling.count is not None and book.messages >= rolling.count)
            or (rolling.size is not None and book.nbytes >= rolling.size)
            or (rolling.seconds is not None and time.monotonic() - self._begun >= rolling.seconds)
        )

    def _begin_commit(self, book: Book, *, last: bool) -> None:
        messages, operations = book.unwritten, list(book.operations())
        first = self._making = self._file not in self.statistics.files
        if first:
            self.statistics.files.append(self._file)
        commit = self._commit(self._file, operations, messages, first=first, last=last)
        self._commits.append(asyncio.create_task(commit))
        if last:
            self._book = None

    async def _commit(self, name: str, operations: list[Operation], messages: int, *, first: bool, last: bool) -> None:
        if first:
            await self._target.check(name)
        await self._target.apply(name, operations)
        self.statistics.committed += messages
        self.statistics.commits += 1
        if last:
            await self._target.finish(name)

    async def _settled(self, most: int = 0) -> None:
        """Look at commits that are done, and wait until at most so many are under way; once one failed, all fail."""
        while self._commits and (len(self._commits) > most or self._commits[0].done()):
            oldest = self._commits[0]
            await asyncio.wait((oldest,))  # whoever gives up waiting leaves it be
            if oldest.exception() is not None:
                await asyncio.gather(*self._commits, return_exceptions=True)
            oldest.result()
            self._commits.popleft()

    async def commit(self) -> None:
        """Write all that was taken, and return when it is in files for good; raises as `turn`."""
        await self._settled()
        if self._book is not None and self._book.unwritten:
            self._begin_commit(self._book, last=self._is_full(self._book))
            await self._settled()
