"""Elements into a dataset, through the HDF5 library or past its filters."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5s, h5t
from numpy.typing import NDArray

from ndstream.core.casting import broadcast, cast, check_cast
from ndstream.core.dtypes import DType, is_fixed, item_size, readable, to_numpy
from ndstream.core.limits import MiB
from ndstream.core.model import Filter
from ndstream.core.operations import Payload
from ndstream.core.selection import Part, Selection, Span
from ndstream.errors import Forbidden, InvalidRequest, UnsupportedDType
from ndstream.stores.hdf5.dtypes import type_id, type_of
from ndstream.stores.hdf5.encode import Encoding, ahead, encoding
from ndstream.stores.hdf5.faults import LIBRARY_ERRORS, reason_of
from ndstream.stores.hdf5.filters import check_filter, filters_of, may_fail
from ndstream.stores.hdf5.items import element_type
from ndstream.stores.hdf5.masks import put, unmask
from ndstream.stores.hdf5.plan import grid_of

#: Bytes that are cast, or read and written again, in one go.
_BLOCK = 16 * MiB
#: Elements that are written one by one in one go.
_POINTS = 1 << 14
_OBJECTS = 1 << 16
_UNIT = 1 * MiB
#: Chunks that are being made, or wait to be stored.
_AHEAD = 8
#: Chunks of one dataset of which it is remembered that the library can write to them.
_READY = 1 << 16

_REFERENCES = (h5py.Reference, h5py.RegionReference)


@dataclass(slots=True)
class Place:
    """A dataset that is open for writing.

    Attributes
    ----------
    id : h5py.h5d.DatasetID
        Another one after a chunk was stored; not valid any more after that was done in another place for the dataset.
    address : int
        Of the object in its file.
    dtype : DType
        In which elements are handed to the library.
    memory : h5py.h5t.TypeID
        The same for the library.
    itemsize : int or None, bytes
        None when the type is not fixed.
    grid : tuple of int or None
        Shape of the chunks.
    filters : tuple of Filter
    encoding : Encoding or None
        What makes chunks of elements without the library, when there are filters.
    """

    id: h5d.DatasetID
    address: int
    dtype: DType
    memory: h5t.TypeID
    itemsize: int | None
    grid: tuple[int, ...] | None
    filters: tuple[Filter, ...]
    encoding: Encoding | None
    _ready: set[tuple[int, ...]] = field(default_factory=set, repr=False)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape as it is now; None for a null dataspace."""
        space = self.id.get_space()
        return None if space.get_simple_extent_type() == h5s.NULL else tuple(space.get_simple_extent_dims())

    @property
    def maxshape(self) -> tuple[int | None, ...]:
        """Largest shape, None for an axis without end."""
        most = self.id.get_space().get_simple_extent_dims(True)
        return tuple(None if side == h5s.UNLIMITED else side for side in most)

    @property
    def width(self) -> int:
        """Bytes that an element takes in the file, itself or what stands for it."""
        size: int = self.id.get_type().get_size()
        return size

    def put(self, corner: tuple[int, ...], stored: NDArray[np.uint8], mask: int = 0) -> None:
        """Store a chunk, whose first element has the index `corner`, past the filters, those in `mask` skipped."""
        if not self.filters:
            self.id.write_direct_chunk(corner, stored)
            return
        self.id = put(self.id, corner, stored, mask)
        self._ready.discard(corner)

    def make_ready(self, selection: Selection) -> None:
        """Make sure that the library can write to the chunks in which there is something of a selection."""
        if not self.filters or self.grid is None or self.itemsize is None:
            return
        for part in selection.over(self.grid):
            self.make_chunk_ready(tuple(number * length for number, length in zip(part.chunk, self.grid, strict=True)))

    def settle(self) -> None:
        """Have the library apply filters that may fail to what it still keeps.

        It would do so when the dataset is closed, and nobody would be told. What it fails for is given up: as long as
        the library has it, it closes neither dataset nor file.

        Raises
        ------
        InvalidRequest
            A filter makes nothing of the elements.
        """
        if not any(may_fail(stage) for stage in self.filters):
            return
        try:
            self.id.flush()
        except LIBRARY_ERRORS as error:
            self.id.set_extent((0,) * len(self.grid or ()))
            raise InvalidRequest(f"the filters do not go with the elements: {reason_of(error)}") from error

    def make_chunk_ready(self, corner: tuple[int, ...]) -> None:
        """Do so for one chunk of a dataset with filters, and elements of fixed size."""
        if corner in self._ready:
            return
        self.id = unmask(self.id, corner)
        if len(self._ready) >= _READY:
            self._ready.clear()
        self._ready.add(corner)


def place_of(dataset: h5d.DatasetID, address: int, name: str) -> Place:
    """Look at a dataset that is to be written to.

    Raises
    ------
    Forbidden
        Its elements are in other files.
    UnsupportedDType
        They cannot be written here.
    """
    properties = dataset.get_create_plist()
    layout = properties.get_layout()
    if layout == h5d.VIRTUAL or (layout == h5d.CONTIGUOUS and properties.get_external_count()):
        raise Forbidden(f"{name}: its elements are in other files, which must be written to by their own names")
    filters = filters_of(properties)
    for stage in filters:
        check_filter(stage.id)
    stored = type_of(dataset.get_type())
    dtype = readable(stored)
    if dtype is None:
        raise UnsupportedDType(f"{name}: elements of its type cannot be written")
    itemsize = item_size(dtype)
    plain = itemsize is not None and dtype is stored
    return Place(
        id=dataset,
        address=address,
        dtype=dtype,
        memory=_memory(dtype) if not plain else dataset.get_type(),
        itemsize=itemsize,
        grid=tuple(properties.get_chunk()) if layout == h5d.CHUNKED else None,
        filters=filters,
        encoding=encoding(filters) if filters and plain else None,
    )


def _memory(dtype: DType) -> h5t.TypeID:
    if is_fixed(dtype):
        return type_id(dtype)
    return h5t.py_create(to_numpy(dtype, references=_REFERENCES))


class Source:
    """Elements to be written, taken piece by piece: cast, and in the form that the library takes.

    Parameters
    ----------
    payload : Payload
    place : Place
        What they are for.
    shape : tuple of int
        To which they are broadcast.

    Raises
    ------
    InvalidRequest
        The data is not what its type and shape say, or has another shape.
    UnsupportedDType
        The data cannot be cast.
    """

    def __init__(self, payload: Payload, place: Place, shape: tuple[int, ...]) -> None:
        check_cast(payload.dtype, place.dtype)
        self._array = broadcast(payload, shape)
        inner = self._array.shape[len(shape) :]
        whole = prod(payload.shape or ()) == prod(shape)
        self._flat = self._array.reshape(-1, *inner) if whole else None
        self._shape = shape
        self._from, self._place = payload.dtype, place
        self.limited = self._flat is None

    def take(self, start: int, stop: int) -> NDArray[Any]:
        """Elements by their number in C order: one axis, then those of an array type that is not fixed."""
        if self._flat is not None:
            taken = self._flat[start:stop]
        elif self._shape:
            taken = self._array[np.unravel_index(np.arange(start, stop), self._shape)]
        else:
            taken = self._array[np.newaxis]
        made = cast(taken, self._from, self._place.dtype)
        itemsize = self._place.itemsize
        if itemsize is None:
            return np.ascontiguousarray(made)
        return np.ascontiguousarray(made).reshape(-1).view(np.uint8).view(element_type(itemsize))


def store(place: Place, selection: Selection, payload: Payload, threads: ThreadPoolExecutor) -> None:
    """Write elements where a selection is; `changing` must have been said before.

    Parameters
    ----------
    place : Place
    selection : Selection
        Of its shape.
    payload : Payload
        Has the shape of the selection, or one that is broadcast to it.
    threads : ThreadPoolExecutor
        In which chunks are compressed.

    Raises
    ------
    InvalidRequest, UnsupportedDType
        Before anything is written, unless it is about values, or filters that make nothing of them.
    """
    source = Source(payload, place, selection.shape)
    if not selection.count:
        return
    try:
        _store(place, selection, source, threads)
    finally:
        place.settle()


def _store(place: Place, selection: Selection, source: Source, threads: ThreadPoolExecutor) -> None:
    blocks = _blocks(place, selection, source)
    if place.encoding is not None and all(isinstance(axis, Span) and axis.step == 1 for axis in selection.axes):
        _write_encoded(place, place.encoding, blocks, threads)
        return
    if selection.joint or not all(isinstance(axis, Span) for axis in selection.axes):
        write = _scatter if place.itemsize is not None else _scatter_points
    else:
        write = _write_box
    for block, data in blocks:
        place.make_ready(block)
        write(place, block, data)


def _blocks(place: Place, selection: Selection, source: Source) -> Iterator[tuple[Selection, NDArray[Any]]]:
    most = _OBJECTS if place.itemsize is None or source.limited else max(1, _BLOCK // place.itemsize)
    if place.grid is not None:
        # A chunk that is cut in two would be compressed twice.
        most = max(most, min(prod(place.grid), 4 * most))
    done = 0
    for block in selection.blocks(most, place.grid):
        yield block, source.take(done, done + block.count)
        done += block.count


def _write_box(place: Place, block: Selection, data: NDArray[Any]) -> None:
    """Write a block of spans only."""
    if not block.axes:
        place.id.write(h5s.create(h5s.SCALAR), h5s.create(h5s.SCALAR), data, place.memory)
        return
    spans = [axis for axis in block.axes if isinstance(axis, Span)]
    counts = tuple(span.count for span in spans)
    data = data.reshape(counts + data.shape[1:])
    if any(span.step < 0 for span in spans):
        data = np.ascontiguousarray(data[tuple(slice(None, None, -1 if span.step < 0 else 1) for span in spans)])
    starts = tuple(min(span.start, span.last) for span in spans)
    space = place.id.get_space()
    space.select_hyperslab(starts, counts, tuple(abs(span.step) for span in spans))
    place.id.write(h5s.create_simple(counts), space, data, place.memory)


def _scatter(place: Place, block: Selection, data: NDArray[Any]) -> None:
    """Write a block of any form: what it touches of each chunk is read, changed and written again."""
    assert place.itemsize is not None
    grid = place.grid or grid_of(block.source, place.itemsize, _UNIT)
    values = data.reshape(block.shape)
    for part in block.over(grid):
        start, counts = _bounds(part, grid, block.source)
        chunk: NDArray[Any] = np.empty(grid, data.dtype)
        inside = tuple(slice(0, count) for count in counts)
        space = place.id.get_space()
        space.select_hyperslab(start, counts)
        memory = h5s.create_simple(counts)
        box = np.empty(counts, data.dtype)
        if not part.whole:
            place.id.read(memory, space, box, place.memory)
            chunk[inside] = box
        chunk[part.source] = values[part.target]
        box = np.ascontiguousarray(chunk[inside])
        place.id.write(memory, space, box, place.memory)


def _bounds(part: Part, grid: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    start = tuple(number * length for number, length in zip(part.chunk, grid, strict=True))
    counts = tuple(min(length, side - low) for length, side, low in zip(grid, shape, start, strict=True))
    return start, counts


def _scatter_points(place: Place, block: Selection, data: NDArray[Any]) -> None:
    """Write a block of elements of variable length one by one: they must not be read, to be written as they are."""
    starts, lengths = block.runs()
    positions = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(block.count)
    # Of positions that repeat the last one stays.
    _, last = np.unique(positions[::-1], return_index=True)
    chosen = np.sort(positions.size - 1 - last)
    for start in range(0, chosen.size, _POINTS):
        some = chosen[start : start + _POINTS]
        points = np.stack(np.unravel_index(positions[some], block.source), axis=1)
        space = place.id.get_space()
        space.select_elements(points)
        place.id.write(h5s.create_simple((some.size,)), space, np.ascontiguousarray(data[some]), place.memory)


def _write_encoded(
    place: Place,
    encoding: Encoding,
    blocks: Iterator[tuple[Selection, NDArray[Any]]],
    threads: ThreadPoolExecutor,
) -> None:
    """Write blocks of spans of step 1: whole chunks are made in threads and stored past the library."""
    assert place.grid is not None
    grid = place.grid

    def chunks() -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
        for block, data in blocks:
            values = data.reshape(tuple(axis.count for axis in block.axes))
            for part in Selection(source=block.source, axes=block.axes).over(grid):
                start, counts = _bounds(part, grid, block.source)
                if part.whole and counts == grid:
                    yield start, values[part.target]
                else:
                    _write_part(place, part, values)

    def work(chunk: tuple[tuple[int, ...], NDArray[Any]]) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
        start, elements = chunk
        return start, encoding.encode(np.ascontiguousarray(elements).reshape(-1).view(np.uint8))

    for start, stored in ahead(threads, work, chunks(), _AHEAD):
        place.put(start, stored)


def _write_part(place: Place, part: Part, values: NDArray[Any]) -> None:
    """Write a part of a chunk."""
    assert place.grid is not None
    place.make_chunk_ready(tuple(number * length for number, length in zip(part.chunk, place.grid, strict=True)))
    piece = np.ascontiguousarray(values[part.target])
    local = [entry if isinstance(entry, slice) else slice(int(entry), int(entry) + 1) for entry in part.source]
    start = tuple(
        number * length + entry.start for number, length, entry in zip(part.chunk, place.grid, local, strict=True)
    )
    space = place.id.get_space()
    space.select_hyperslab(start, piece.shape)
    place.id.write(h5s.create_simple(piece.shape), space, piece, place.memory)
