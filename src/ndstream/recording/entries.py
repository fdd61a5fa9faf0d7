"""Entries of a recording: what came of one series, laid out as NeXus does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import prod
from typing import Any

import numpy as np

from ndstream.core.dtypes import from_numpy
from ndstream.core.gaps import Series
from ndstream.core.limits import KiB, Limits
from ndstream.core.model import Filter
from ndstream.core.operations import CreateDataset, CreateGroup, Operation, Resize, Write, WriteChunk
from ndstream.core.packets import Buffer, Image, Packet
from ndstream.errors import DecodeError, MessageError
from ndstream.recording.columns import Column, Frames, as_array, attributes
from ndstream.recording.log import Reference
from ndstream.recording.values import Names, Plain, is_stored, numbers, payload, plain, stored
from ndstream.wire.compression import stored_chunk, unpack

#: Arrays below this size that came as they are do not get a chunk each.
_SMALL = 4 * KiB
#: Text of an attribute, at most: longer ones become datasets, as HDF5 has little room in the head of an object.
_TEXT = 1 * KiB
_ATTRIBUTES = 400
#: Datasets of one entry; what hostile senders tell beyond that is in the messages alone.
_COLUMNS = 10_000
_MOST = (1 << 63) - 1


class Chunk:
    """An image as HDF5 holds it.

    Parameters
    ----------
    image : Image
    frames : sequence of buffers
        Parts of its message.

    Raises
    ------
    MessageError
        It is framed wrongly.

    Attributes
    ----------
    dtype, shape, filters
        Of the dataset.
    data : buffer
        To be stored as it is.
    place : tuple of int or None
        Part, start, length and bytes of `data` in front, where the end of `data` is part of the message.
    """

    __slots__ = ("data", "dtype", "filters", "place", "shape")

    def __init__(self, image: Image, frames: Sequence[Buffer]) -> None:
        self.dtype, self.shape = image.dtype, image.shape
        self.filters: tuple[Filter, ...] = ()
        self.place: tuple[int, int, int, int] | None = None
        if image.element not in (0, image.dtype.itemsize) and image.encoding in ("bslz4", "bszstd"):
            # HDF5's filter shuffles elements of the dataset, not those of another size.
            self.data: Buffer = unpack(image).reshape(-1).view(np.uint8).data
            return
        self.filters, parts = stored_chunk(image)
        nbytes = prod(image.shape) * image.dtype.itemsize
        if not self.filters and len(parts[0]) != nbytes:
            raise DecodeError(f"{len(parts[0])} bytes, where an array of {nbytes} belongs")
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        found = _find(parts[-1], frames)
        if found is not None:
            self.place = (*found, len(parts[-1]), len(self.data) - len(parts[-1]))


def _find(data: Buffer, frames: Sequence[Buffer]) -> tuple[int, int] | None:
    """Part of a message, and position in it, that a view is of; None when it is of other memory."""
    begin = _address(data)
    for number, frame in enumerate(frames):
        if len(frame) and 0 <= begin - _address(frame) <= len(frame) - len(data):
            return number, begin - _address(frame)
    return None


def _address(data: Buffer) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


def chunks_of(images: Mapping[str, Image], frames: Sequence[Buffer], limits: Limits) -> dict[str, Chunk]:
    """Images of a message that get a chunk each, as they are stored."""
    found = ((name, _chunk(image, frames, limits)) for name, image in images.items() if not _is_small(image))
    return {name: chunk for name, chunk in found if chunk is not None}


def _chunk(image: Image, frames: Sequence[Buffer], limits: Limits) -> Chunk | None:
    nbytes = prod(image.shape) * image.dtype.itemsize
    if not 0 < nbytes <= limits.chunk or not len(image.payload) or not is_stored(image.dtype):
        return None
    try:
        return Chunk(image, frames)
    except MessageError:
        return None  # the message is kept as it is, only not as an image


class Entry:
    """What came of one series, in one file.

    Parameters
    ----------
    name : str
        Path of its group.
    series : Series
        Account of its numbers.
    counter : str
        What its rows are numbered by: ``frame``, ``image_id``, ``pulse_id``; empty when messages have no numbers.
    base : int or None
        Number of row 0; None when rows follow each other as they come.
    limits : Limits
    time : int, ns
        When it began.

    Attributes
    ----------
    rows : int
        Length of its datasets.
    """

    def __init__(self, name: str, series: Series, counter: str, base: int | None, limits: Limits, time: int) -> None:
        self.name = name
        self.rows = 0
        self.base = base
        self._series, self._counter = series, counter
        self._limits = limits
        self._filled = bytearray()
        self._names = Names("missing", "data", "timestamp")
        self._detector, self._attributes = Names(), Names("NX_class")
        self._columns: dict[str, Column] = {}
        self._frames: dict[str, Frames] = {}
        self._told: dict[str, int] = {}
        self._missing: list[tuple[int, int]] = []
        self._listed = False
        self._pending: list[Operation] = list(self._begin(time))
        self._numbers: Column | None = None
        if counter:
            called = self._names.new("pulse_id" if counter == "pulse_id" else "frame_number")
            self._numbers = Column(f"{name}/data/{called}", np.asarray(0, "<i8"), fill=-1, counter=counter)
            self._axis = called
        self._times = Column(f"{name}/data/timestamp", np.asarray(0, "<i8"), units="ns", origin="1970-01-01T00:00:00Z")
        self._axes_told = False

    def _begin(self, time: int) -> Iterator[Operation]:
        name, series = self.name, self._series.name
        yield CreateGroup(name=f"{name}/data")
        yield CreateGroup(name=f"{name}/instrument/detector")
        yield attributes(name, {"NX_class": "NXentry", "default": "data"})
        yield attributes(f"{name}/data", {"NX_class": "NXdata"})
        yield attributes(f"{name}/instrument", {"NX_class": "NXinstrument"})
        yield attributes(f"{name}/instrument/detector", {"NX_class": "NXdetector"})
        begun = payload(datetime.fromtimestamp(time // 10**9, UTC).isoformat())
        yield CreateDataset(name=f"{name}/start_time", dtype=begun.dtype, shape=(), data=begun)
        if isinstance(series, int | str):
            yield from (attributes(name, {key: value}) for key, value in plain({"series": series}))

    # -- what a series begins with --

    def begin(self, start: Packet, images: Mapping[str, Image]) -> list[Reference]:
        """Take the values and arrays that a series begins with; returns which bytes of the message are in datasets."""
        group = f"{self.name}/instrument/detector"
        told: dict[str, Plain] = {}
        for name, value in plain(start.values):
            short = len(value) <= _TEXT if isinstance(value, str) else value.ndim == 0
            if short and len(told) < _ATTRIBUTES:
                told[self._attributes.new(name)] = value
            else:
                data = payload(value)
                made = f"{group}/{self._detector.new(name)}"
                self._pending.append(CreateDataset(name=made, dtype=data.dtype, shape=data.shape, data=data))
        if told:
            self._pending.append(attributes(group, told))
        references = []
        for name, image in images.items():
            chunk = _chunk(image, start.frames, self._limits)
            if chunk is None:
                continue
            made = f"{group}/{self._detector.new(name)}"
            self._pending.append(_whole(made, chunk))
            origin = tuple(0 for _ in chunk.shape) or (0,)
            self._pending.append(WriteChunk(name=made, start=origin, data=stored(chunk.data)))
            references += _reference(chunk, made, 0)
        return references

    # -- rows --

    def has(self, number: int) -> bool:
        """Whether a number is here already."""
        row = number - (self.base or 0)
        return 0 <= row < len(self._filled) and bool(self._filled[row])

    def fits(self, chunks: Mapping[str, Chunk]) -> bool:
        """Whether images can be put into the datasets that are there, or into new ones."""
        return all(
            name not in self._frames or self._frames[name].fits(chunk.dtype, chunk.shape, chunk.filters)
            for name, chunk in chunks.items()
        )

    def put(
        self,
        row: int,
        number: int | None,
        time: int,
        values: Mapping[str, Any],
        images: Mapping[str, Image],
        chunks: Mapping[str, Chunk],
    ) -> list[Reference]:
        """Take a message as a row; returns which bytes of it are in datasets."""
        self.rows = max(self.rows, row + 1)
        self._filled.extend(bytes(max(0, self.rows - len(self._filled))))
        self._filled[row] = 1
        self._times.put(row, np.asarray(time, "<i8"))
        if self._numbers is not None and number is not None:
            self._numbers.put(row, np.asarray(number, "<i8"))
        references = []
        for name, chunk in chunks.items():
            to = self._frames.get(name)
            if to is None:
                if self._is_full():
                    continue
                path = f"{self.name}/data/{self._new(name)}"
                to = self._frames[name] = Frames(path, chunk.dtype, chunk.shape, chunk.filters)
            to.put(row, chunk.filters, chunk.data)
            references += _reference(chunk, to.name, row)
        for name, value in (*plain(values), *_small_arrays(images)):
            column = self._columns.get(name)
            if column is None:
                if self._is_full() or (not isinstance(value, str) and not is_stored(value.dtype)):
                    continue
                column = self._columns[name] = Column(f"{self.name}/data/{self._new(name)}", value)
            if column.fits(value):
                column.put(row, value)
        return references

    def _is_full(self) -> bool:
        return len(self._columns) + len(self._frames) >= _COLUMNS

    def _new(self, name: str) -> str:
        # The one array of an Eiger is called "image"; NeXus calls the signal of a detector "data".
        if name == "image" and self._counter == "frame" and not self._frames:
            return "data"
        return self._names.new(name)

    # -- writing --

    def operations(self) -> Iterator[Operation]:
        """What writes all that was taken."""
        yield from self._pending
        self._pending = []
        if not self.rows:
            return
        if self._numbers is not None:
            yield from self._numbers.operations(self.rows)
        yield from self._times.operations(self.rows)
        parts: list[Frames | Column] = [*self._frames.values(), *self._columns.values()]
        for part in parts:
            yield from part.operations(self.rows)
        if not self._axes_told:
            self._axes_told = True
            yield attributes(f"{self.name}/data", self._axes())
        yield from self._account()

    def _axes(self) -> dict[str, Plain | list[str]]:
        axis = self._axis if self._numbers is not None else "timestamp"
        told: dict[str, Plain | list[str]] = {"axes": [axis]}
        signals = [frames.name.rpartition("/")[2] for frames in self._frames.values()]
        if not signals:
            columns = (column for column in self._columns.values() if column.dtype is not None)
            signals = [column.name.rpartition("/")[2] for column in columns]
        if signals:
            told["signal"] = signals[0]
        if len(signals) > 1:
            told["auxiliary_signals"] = signals[1:64]
        if self._frames:
            told["axes"] = [axis, *("." for _ in next(iter(self._frames.values())).shape)]
        return told

    def _account(self) -> Iterator[Operation]:
        """List the numbers that are missing, and how many came."""
        if self.base is None:
            return
        series = self._series
        told = {"received": series.received, "missing": _clamped(series.missing)}
        if series.expected is not None:
            told["expected"] = _clamped(series.expected)
        if told != self._told:
            self._told = told
            yield attributes(self.name, {key: np.asarray(value, "<i8") for key, value in told.items()})
        missing = [(hole.start, hole.stop) for hole in series.holes]
        last = self.base + self.rows
        if series.ended and series.expected is not None and series.expected > last:
            missing.append((last, _clamped(series.expected)))
        if missing != self._missing:
            name = f"{self.name}/data/missing"
            if not self._listed:
                self._listed = True
                dtype = from_numpy(np.dtype("<i8"))
                yield CreateDataset(name=name, dtype=dtype, shape=(0, 2), maxshape=(None, 2), chunks=(256, 2))
            yield Resize(name=name, shape=(len(missing), 2))
            yield Write(name=name, data=numbers(as_array(missing)))
            self._missing = missing


def _is_small(image: Image) -> bool:
    return image.encoding == "none" and prod(image.shape) * image.dtype.itemsize < _SMALL


def _small_arrays(images: Mapping[str, Image]) -> Iterator[tuple[str, Plain]]:
    for name, image in images.items():
        nbytes = prod(image.shape) * image.dtype.itemsize
        if nbytes and _is_small(image) and len(image.payload) == nbytes:
            yield name, unpack(image)


def _whole(name: str, chunk: Chunk) -> CreateDataset:
    """What makes the dataset of an array that comes once."""
    shape = chunk.shape or (1,)
    return CreateDataset(name=name, dtype=from_numpy(chunk.dtype), shape=shape, chunks=shape, filters=chunk.filters)


def _clamped(number: int) -> int:
    return min(number, _MOST)


def _reference(chunk: Chunk, source: str, row: int) -> list[Reference]:
    if chunk.place is None:
        return []
    part, start, nbytes, skip = chunk.place
    return [Reference(part=part, start=start, nbytes=nbytes, source=source, row=row, skip=skip)]
