"""The messages of a recording as they came: every part, byte by byte, so that they can be sent again.

See design/0010. A part is put together of *pieces*: bytes of ``text``, or of a stored chunk of a dataset that has the
image, so that nothing large is in the file twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ndstream.core.dtypes import from_numpy
from ndstream.core.limits import KiB
from ndstream.core.operations import Append, CreateDataset, CreateGroup, Operation, Payload
from ndstream.core.packets import Buffer
from ndstream.recording.columns import attributes, table
from ndstream.recording.values import TEXT, numbers, stored, texts

GROUP = "/messages"
INDEX, PIECES, TEXTS, SOURCES = (f"{GROUP}/{name}" for name in ("index", "pieces", "text", "sources"))

INDEX_TYPE = np.dtype([("time", "<i8"), ("piece", "<i8")])
"""A message: when it came, in ns since 1970, and the number of its first piece."""

PIECE_TYPE = np.dtype([("part", "<u4"), ("source", "<i4"), ("at", "<i8"), ("skip", "<i8"), ("nbytes", "<i8")])
"""A piece: of which part of its message; `source` is -1 for the text, else an index into the sources; `at` is where it
begins in the text, or the row of the chunk, of which `skip` bytes are left out first."""

TEXT_SOURCE = -1
_ROWS = 2048
_TEXT = 256 * KiB
#: Parts up to this length are compared with those of the message before: headers often repeat.
_COMPARED = 64 * KiB
_WORTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Bytes of a part that a dataset has: `nbytes` from `start` on, in its chunk of that row behind `skip` others."""

    part: int
    start: int
    nbytes: int
    source: str
    row: int
    skip: int


class Log:
    """Messages of one file.

    Attributes
    ----------
    count : int
        Messages so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._index: list[tuple[int, int]] = []
        self._pieces: list[tuple[int, int, int, int, int]] = []
        self._piece = 0  # number of the next piece, and
        self._text: list[Buffer] = []
        self._end = 0  # end of the text, with those that are not written yet
        self._sources: dict[str, int] = {}
        self._new_sources: list[str] = []
        self._before: dict[int, tuple[bytes, int]] = {}
        self._made = False

    def add(self, time: int, frames: Sequence[Buffer], references: Iterable[Reference] = ()) -> None:
        """Note a message, which came at `time`, in ns."""
        self.count += 1
        self._index.append((time, self._piece))
        found: dict[int, list[Reference]] = {}
        for reference in references:
            found.setdefault(reference.part, []).append(reference)
        for number, frame in enumerate(frames):
            self._part(number, frame, sorted(found.get(number, ()), key=lambda one: one.start))

    def _part(self, number: int, frame: Buffer, references: list[Reference]) -> None:
        if not references:
            self._add(number, TEXT_SOURCE, self._place(number, frame), 0, len(frame))
            return
        view = memoryview(frame)
        at = 0
        for one in references:
            if one.start < at:  # two arrays of the same bytes
                continue
            if one.start > at:
                self._literal(number, view[at : one.start])
            self._add(number, self._source(one.source), one.row, one.skip, one.nbytes)
            at = one.start + one.nbytes
        if at < len(view):
            self._literal(number, view[at:])

    def _literal(self, number: int, data: Buffer) -> None:
        self._add(number, TEXT_SOURCE, self._put(data), 0, len(data))

    def _add(self, part: int, source: int, at: int, skip: int, nbytes: int) -> None:
        self._pieces.append((part, source, at, skip, nbytes))
        self._piece += 1

    def _place(self, number: int, frame: Buffer) -> int:
        """Where a part is in the text: where the same one of the message before is, if it is the same."""
        if not _WORTH <= len(frame) <= _COMPARED:
            return self._put(frame)
        before = self._before.get(number)
        if before is not None and before[0] == frame:
            return before[1]
        at = self._put(frame)
        if number < _WORTH:
            self._before[number] = bytes(frame), at
        return at

    def _put(self, data: Buffer) -> int:
        at = self._end
        self._text.append(data)
        self._end += len(data)
        return at

    def _source(self, name: str) -> int:
        if name not in self._sources:
            self._sources[name] = len(self._sources)
            self._new_sources.append(name)
        return self._sources[name]

    def operations(self) -> Iterator[Operation]:
        """What writes the messages that were added."""
        if not self._made:
            self._made = True
            yield from self._create()
        if self._new_sources:
            yield Append(name=SOURCES, data=texts(self._new_sources))
        if self._index:
            text = self._text[0] if len(self._text) == 1 else b"".join(self._text)
            if len(text):
                yield Append(name=TEXTS, data=stored(text))
            yield Append(name=PIECES, data=_records(self._pieces, PIECE_TYPE))
            yield Append(name=INDEX, data=_records(self._index, INDEX_TYPE))
        self._index, self._pieces, self._text, self._new_sources = [], [], [], []

    def _create(self) -> Iterator[Operation]:
        yield CreateGroup(name=GROUP)
        yield attributes(GROUP, {"NX_class": "NXcollection"})
        yield table(INDEX, INDEX_TYPE, _ROWS)
        yield table(PIECES, PIECE_TYPE, _ROWS)
        yield table(TEXTS, np.dtype("u1"), _TEXT)
        yield CreateDataset(name=SOURCES, dtype=TEXT, shape=(0,), maxshape=(None,), chunks=(64,))


def _records(rows: Sequence[tuple[int, ...]], dtype: np.dtype[np.void]) -> Payload:
    return numbers(np.array(list(rows), dtype)) if rows else Payload(dtype=from_numpy(dtype), shape=(0,), data=b"")
