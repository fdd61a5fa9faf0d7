"""Asking the HDF5 library where the bytes of a dataset are. Runs in a worker process.

Whatever cannot be read without the library, or would have to be believed rather than checked, becomes a `Library`
layout: slower, never wrong.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import DType, item_size, readable
from ndstream.core.selection import chunk_counts
from ndstream.errors import Corrupt, UnsupportedFilter
from ndstream.stores.hdf5.decode import pipeline
from ndstream.stores.hdf5.filters import filters_of
from ndstream.stores.hdf5.layout import Chunked, Contiguous, Inline, Layout, Library

_LARGEST_CHUNK = 0xFFFF_FFFF
_OVERHEAD = 64 << 10
_FEW = 256  # chunks that are looked up one by one, and bytes that they hold: looking one up may mean to read it
_FEW_BYTES = 64 << 20

Place: TypeAlias = Callable[[h5py.h5d.DatasetID, tuple[int, ...]], tuple[int, int, int]]
"""Looks one chunk up by the corner of it: mask, offset, size. Fails as the library does when it was never written."""


class Tail(NamedTuple):
    """The end of a dataset: the chunks from row `first` of the grid on, and how they are looked up."""

    first: int
    place: Place


def layout_of(
    dataset: h5py.h5d.DatasetID, dtype: DType, *, file_size: int, chunk_index: int, tail: Tail | None = None
) -> Layout:
    """Find out how a dataset is stored.

    Parameters
    ----------
    dataset : DatasetID
    dtype : DType
        Its element type, as described.
    file_size : int, bytes
        Size of the file on disk; nothing may be stored beyond it.
    chunk_index : int
        A dataset of more chunks than this is left to the library.
    tail : Tail, optional
        List the chunks of the end alone; the rest was checked before.

    Returns
    -------
    Layout
        Offsets are absolute in the file, a user block included.

    Raises
    ------
    Corrupt
        When the file says that bytes are where it has none, or chunks where the dataset has none.

    Notes
    -----
    `chunk_iter` is called once; 8192 chunks take about 10 ms.
    """
    properties = dataset.get_create_plist()
    kind = properties.get_layout()
    grid = properties.get_chunk() if kind == h5py.h5d.CHUNKED else None
    itemsize = dataset.get_type().get_size()
    if readable(dtype) is not dtype or item_size(dtype) != itemsize:
        return Library(reason="elements are not read as they are stored", chunks=grid)
    nbytes = dataset.get_space().get_simple_extent_npoints() * itemsize
    if kind == h5py.h5d.COMPACT:
        return _inline(dataset, nbytes, itemsize)
    if kind == h5py.h5d.CONTIGUOUS:
        return _contiguous(dataset, properties, nbytes, file_size)
    if grid is None:
        return Library(reason="a virtual dataset")
    return _chunked(dataset, properties, grid, itemsize, file_size, chunk_index, tail)


def _inline(dataset: h5py.h5d.DatasetID, nbytes: int, itemsize: int) -> Layout:
    data = np.zeros(nbytes // max(itemsize, 1), f"V{itemsize}")
    if data.size:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, data, dataset.get_type())
    return Inline(data=data.tobytes())


def _contiguous(dataset: h5py.h5d.DatasetID, properties: h5py.h5p.PropDCID, nbytes: int, file_size: int) -> Layout:
    if properties.get_external_count():
        return Library(reason="stored in external files")
    stored = dataset.get_storage_size()
    # The offset alone does not tell: of a dataset without storage it is nonsense when the file has a user block.
    offset = dataset.get_offset() if stored else None
    if offset is None:
        return Contiguous(offset=None, size=nbytes)
    if stored < nbytes or offset + nbytes > file_size:
        raise Corrupt(f"{nbytes} bytes of data at offset {offset} are not all in the file of {file_size} bytes")
    return Contiguous(offset=offset, size=nbytes)


def _chunked(
    dataset: h5py.h5d.DatasetID,
    properties: h5py.h5p.PropDCID,
    grid: tuple[int, ...],
    itemsize: int,
    file_size: int,
    chunk_index: int,
    tail: Tail | None,
) -> Layout:
    if len(grid) != dataset.rank or min(grid) < 1:
        raise Corrupt(f"chunks of shape {grid} in a dataset of rank {dataset.rank}")
    filters = filters_of(properties)
    nbytes = math.prod(grid) * itemsize
    if nbytes > _LARGEST_CHUNK:
        return Library(reason="chunks of 4 GiB and more", chunks=grid)
    try:
        undo = pipeline(filters, nbytes)
    except UnsupportedFilter as error:
        return Library(reason=str(error), chunks=grid)
    counts = chunk_counts(dataset.shape, grid)
    index = _index(dataset, chunk_index) if tail is None else _end_of_index(dataset, grid, counts, nbytes, tail)
    if index is None:
        return Library(reason=f"more than {chunk_index} chunks", chunks=grid)
    corners, masks, offsets, sizes = index
    positions, odd = np.divmod(corners, np.array(grid, np.uint64))
    if odd.any() or (positions >= np.array(counts, np.uint64)).any():
        raise Corrupt("a chunk lies outside of its dataset")
    # Offsets near 2**64 must not wrap around to small ones.
    if (offsets > file_size).any() or (sizes > file_size - offsets).any():
        raise Corrupt(f"a chunk is not all in the file of {file_size} bytes")
    if (sizes > min(2 * nbytes + _OVERHEAD, _LARGEST_CHUNK)).any():
        # The reader counts on stored chunks being about as large as decoded ones at most.
        return Library(reason="chunks are stored in far more bytes than they hold", chunks=grid)
    skipped, which = np.unique(masks, return_inverse=True)
    plain = np.array([undo.passes(int(mask)) for mask in skipped], bool)[which]
    if (sizes[plain] != nbytes).any():
        raise Corrupt(f"a chunk that is not filtered does not have the {nbytes} bytes of one")
    if _may_leave_edges_unfiltered(positions[~plain], sizes[~plain], dataset.shape, grid, nbytes):
        return Library(reason="chunks at the edge may be stored unfiltered", chunks=grid)
    numbers = _numbers(positions, counts)
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    if (numbers[1:] == numbers[:-1]).any():
        raise Corrupt("a chunk is stored twice")
    return Chunked(
        chunks=grid,
        filters=filters,
        numbers=numbers.astype("<u8").tobytes(),
        offsets=offsets[order].astype("<u8").tobytes(),
        sizes=sizes[order].astype("<u4").tobytes(),
        masks=masks[order].astype("<u4").tobytes() if masks.any() else b"",
    )


_UInt64s = NDArray[np.uint64]


def _index(dataset: h5py.h5d.DatasetID, most: int) -> tuple[_UInt64s, _UInt64s, _UInt64s, _UInt64s] | None:
    # Plain machine numbers, as objects of a million chunks would not fit into the memory of a worker.
    corners, masks, offsets, sizes = array("Q"), array("Q"), array("Q"), array("Q")

    def note(info: Any) -> bool | None:
        corner, mask, offset, size = info
        corners.extend(corner)
        masks.append(mask)
        offsets.append(offset)
        sizes.append(size)
        return True if len(masks) > most else None  # anything but None ends the iteration

    dataset.chunk_iter(note)
    if len(masks) > most:
        return None
    as_array = [np.array(numbers, np.uint64) for numbers in (corners, masks, offsets, sizes)]
    return as_array[0].reshape(len(masks), dataset.rank), as_array[1], as_array[2], as_array[3]


def _end_of_index(
    dataset: h5py.h5d.DatasetID, grid: tuple[int, ...], counts: tuple[int, ...], nbytes: int, tail: Tail
) -> tuple[_UInt64s, _UInt64s, _UInt64s, _UInt64s] | None:
    """The same as `_index` of the chunks at the end alone; None when they are too many to look them up one by one."""
    if (counts[0] - tail.first) * math.prod(counts[1:]) > min(_FEW, _FEW_BYTES // max(nbytes, 1)):
        return None
    corners, places = [], []
    for position in product(range(tail.first, counts[0]), *map(range, counts[1:])):
        corner = tuple(number * length for number, length in zip(position, grid, strict=True))
        corners.append(corner)
        places.append(tail.place(dataset, corner))
    table = np.array(places, np.uint64).reshape(len(places), 3)
    return np.array(corners, np.uint64).reshape(len(corners), len(grid)), table[:, 0], table[:, 1], table[:, 2]


def _numbers(positions: _UInt64s, counts: tuple[int, ...]) -> _UInt64s:
    numbers = np.zeros(len(positions), np.uint64)
    for axis, count in enumerate(counts):
        numbers = numbers * np.uint64(count) + positions[:, axis]
    return numbers


def _may_leave_edges_unfiltered(
    positions: _UInt64s, sizes: _UInt64s, shape: tuple[int, ...], grid: tuple[int, ...], nbytes: int
) -> bool:
    """Whether chunks that stick out of the dataset look as if the writer had left them unfiltered.

    HDF5 1.10 has that option (``H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS``), h5py cannot ask for it and the filter masks
    do not show it. Such chunks have the size of a decoded one: all of them, which filtered ones hardly ever have.
    """
    partial = np.zeros(len(positions), bool)
    for axis, (extent, length) in enumerate(zip(shape, grid, strict=True)):
        if extent % length:
            partial |= positions[:, axis] == extent // length
    return bool(partial.any() and (sizes[partial] == nbytes).all())
