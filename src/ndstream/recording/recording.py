"""Reading recordings: the messages of a file as they came, byte by byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import DEFAULT_LIMITS, Limits, MiB
from ndstream.core.model import Dataset
from ndstream.core.ports import ANYBODY, Detail
from ndstream.core.selection import select
from ndstream.errors import Corrupt, InvalidRequest, NotFound
from ndstream.recording.log import INDEX, INDEX_TYPE, PIECE_TYPE, PIECES, SOURCES, TEXT_SOURCE, TEXTS
from ndstream.stores.hdf5.store import HDF5Store

#: Messages that are looked up together, and bytes of them that are read together.
_MESSAGES = 1024
_BYTES = 32 * MiB
#: Text that is asked for again and again, such as headers that repeat, is kept up to this number of parts.
_KEPT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMessage:
    """A message of a recording.

    Attributes
    ----------
    time : int, ns
        When it came, since 1970.
    parts : list of bytes
    """

    time: int
    parts: list[bytes]


class Recording:
    """A file that `ndstream record` wrote; it may still grow. What a recorder that died left to be done is done first.

    Parameters
    ----------
    path : Path
    limits : Limits
        ``message_…`` hold for what is made of the file, which may come from anybody.

    Notes
    -----
    For one task of an event loop. `aclose` ends the processes that read.
    """

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        if not path.is_file():
            raise NotFound(f"there is no file {path}")
        self._path = path
        self._limits = limits
        # One process reads: here is one who asks.
        self._store = HDF5Store({"": path.parent}, limits=replace(limits, workers=1))
        self._sources: list[str] = []
        self._kept: dict[tuple[int, int], bytes] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the file."""
        await self._store.aclose()

    async def count(self) -> int:
        """Messages that are in the file now.

        Raises
        ------
        InvalidRequest
            It is no recording.
        """
        return await self._length(INDEX)

    async def messages(self, start: int = 0) -> AsyncIterator[RecordedMessage]:
        """Messages that are in the file now, from the one of that number on, in the order in which they came.

        Raises
        ------
        InvalidRequest
            It is no recording.
        Corrupt
            What it says does not fit together.
        """
        count = await self.count()
        total = await self._length(PIECES)
        self._sources = await self._texts()
        for first in range(start, count, _MESSAGES):
            last = min(first + _MESSAGES, count)
            index = await self._records(INDEX, INDEX_TYPE, first, min(last + 1, count))
            begins = index["piece"].tolist()
            if last == count:
                begins.append(total)  # what a commit adds is all there
            times = index["time"].tolist()
            self._check_index(begins, total)
            number = 0
            for group in await self._groups(begins):
                found = await self._bytes_of(group)
                at = 0
                while at < len(group):
                    stop = at + begins[number + 1] - begins[number]
                    parts = self._joined(group[at:stop], found[at:stop])
                    yield RecordedMessage(time=times[number], parts=parts)
                    number, at = number + 1, stop

    def _check_index(self, begins: list[int], total: int) -> None:
        most = 2 * self._limits.message_parts
        if begins[0] < 0 or begins[-1] > total or not all(0 < b - a <= most for a, b in pairwise(begins)):
            raise Corrupt(f"{self._path.name}: the index of messages is not in order")

    async def _groups(self, begins: list[int]) -> list[NDArray[np.void]]:
        """Pieces of messages, of as many together as are read together."""
        pieces = await self._records(PIECES, PIECE_TYPE, begins[0], begins[-1])
        starts = [begin - begins[0] for begin in begins]
        sizes = np.add.reduceat(pieces["nbytes"], starts[:-1]).tolist()
        groups, first, taken = [], 0, 0
        for number, size in enumerate(sizes):
            if number > first and taken + size > _BYTES:
                groups.append(pieces[starts[first] : starts[number]])
                first, taken = number, 0
            taken += size
        return [*groups, pieces[starts[first] :]]

    def _joined(self, pieces: NDArray[np.void], found: list[memoryview]) -> list[bytes]:
        parts: list[list[memoryview]] = []
        for part, data in zip(pieces["part"].tolist(), found, strict=True):
            if part == len(parts):
                parts.append([])
            elif part != len(parts) - 1:
                raise Corrupt(f"{self._path.name}: a message has no part {len(parts)}")
            parts[-1].append(data)
        return [b"".join(part) for part in parts]

    async def _bytes_of(self, pieces: NDArray[np.void]) -> list[memoryview]:
        """Bytes of each piece."""
        if (pieces["nbytes"] < 0).any() or pieces["nbytes"].max(initial=0) > self._limits.message_part:
            raise Corrupt(f"{self._path.name}: a part is longer than message_part")
        found: list[memoryview] = [memoryview(b"")] * len(pieces)
        for source in np.unique(pieces["source"]).tolist():
            where = np.flatnonzero(pieces["source"] == source)
            some = pieces[where]
            read = self._text_of(some) if source == TEXT_SOURCE else self._chunks_of(source, some)
            for place, data in zip(where.tolist(), await read, strict=True):
                found[place] = data
        return found

    # -- text --

    async def _text_of(self, pieces: NDArray[np.void]) -> list[memoryview]:
        wanted = list(zip(pieces["at"].tolist(), pieces["nbytes"].tolist(), strict=True))
        # What messages have of their own lies together; what repeats may be far in front of it.
        missing = sorted({one for one in wanted if one[1] and one not in self._kept})
        fresh: dict[tuple[int, int], memoryview] = {}
        for run in _together(missing):
            begin, end = run[0][0], max(at + nbytes for at, nbytes in run)
            data = memoryview(await self._raw(TEXTS, begin, end))
            fresh |= {(at, nbytes): data[at - begin : at - begin + nbytes] for at, nbytes in run}
        result = [fresh.get(one) or memoryview(self._kept.get(one, b"")) for one in wanted]
        self._keep(wanted, fresh)
        return result

    def _keep(self, wanted: list[tuple[int, int]], fresh: dict[tuple[int, int], memoryview]) -> None:
        """Keep what the last messages had: it is what the next ones may have again."""
        for one in wanted[-_KEPT:]:
            if one in fresh:
                self._kept[one] = bytes(fresh[one])
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]

    async def _raw(self, name: str, begin: int, end: int) -> bytes:
        length = await self._length(name)
        if not 0 <= begin <= end <= length:
            raise Corrupt(f"{self._path.name}: {name} has no elements {begin} to {end}")
        return await self._read(name, begin, end)

    # -- stored chunks --

    async def _chunks_of(self, source: int, pieces: NDArray[np.void]) -> list[memoryview]:
        if not 0 <= source < len(self._sources):
            raise Corrupt(f"{self._path.name}: there is no source {source}")
        name = self._sources[source]
        described = await self._dataset(name)
        rows = pieces["at"].tolist()
        chunks = await self._stored(name, described, sorted(set(rows)))
        found = []
        for row, skip, nbytes in zip(rows, pieces["skip"].tolist(), pieces["nbytes"].tolist(), strict=True):
            chunk = chunks.get(row)
            if chunk is None or not 0 <= skip <= skip + nbytes <= len(chunk):
                raise Corrupt(f"{self._path.name}: {name} lacks a chunk that a message was in")
            found.append(chunk[skip : skip + nbytes])
        return found

    async def _stored(self, name: str, described: Dataset, rows: list[int]) -> dict[int, memoryview]:
        """Stored chunks by row."""
        assert described.shape is not None
        whole = described.chunks == described.shape
        if not whole and (rows[0] < 0 or rows[-1] >= described.shape[0]):
            raise Corrupt(f"{self._path.name}: {name} has no row {rows[-1]}")
        selection = None if whole else select((rows,), described.shape)
        reading = await self._store.stored(self._path.name, name, ANYBODY, selection)
        try:
            data = memoryview(b"".join([bytes(piece) async for piece in reading.buffers()]))
        finally:
            await reading.aclose()
        found, at = {}, 0
        for row, nbytes in zip(reading.index[:, 0].tolist(), reading.index[:, 1].tolist(), strict=True):
            found[row] = data[at : at + nbytes]
            at += nbytes
        return found

    # -- the file --

    async def _dataset(self, name: str) -> Dataset:
        try:
            node = await self._store.describe(self._path.name, name, ANYBODY, Detail())
        except NotFound as error:
            raise InvalidRequest(f"{self._path.name} is no recording: it has no {name}") from error
        if not isinstance(node, Dataset) or not node.shape:
            raise InvalidRequest(f"{self._path.name} is no recording: {name} is none of its datasets")
        return node

    async def _length(self, name: str) -> int:
        node = await self._dataset(name)
        assert node.shape is not None
        return node.shape[0]

    async def _records(self, name: str, dtype: np.dtype[np.void], begin: int, end: int) -> NDArray[np.void]:
        data = await self._raw(name, begin, end)
        if len(data) != (end - begin) * dtype.itemsize:
            raise InvalidRequest(f"{self._path.name} is no recording: {name} has other elements")
        return np.frombuffer(data, dtype)

    async def _read(self, name: str, begin: int, end: int) -> bytes:
        if begin == end:
            return b""
        reading = await self._store.read(
            self._path.name, name, ANYBODY, lambda shape: select((slice(begin, end),), shape)
        )
        try:
            return b"".join([bytes(piece) async for piece in reading.buffers()])
        finally:
            await reading.aclose()

    async def _texts(self) -> list[str]:
        reading: Any = await self._store.read(self._path.name, SOURCES, ANYBODY, None)
        try:
            return [item.decode() async for items in reading.elements() for item in items]
        finally:
            await reading.aclose()


def _together(places: Iterable[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Places, in order, in groups that are read at once: without great distances between them."""
    groups: list[list[tuple[int, int]]] = []
    end = 0
    for at, nbytes in places:
        if groups and at - end < 1 * MiB and at + nbytes - groups[-1][0][0] <= _BYTES:
            groups[-1].append((at, nbytes))
        else:
            groups.append([(at, nbytes)])
        end = max(end, at + nbytes)
    return groups
