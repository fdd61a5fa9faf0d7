"""Chunks on their way out as they are stored, for clients that decode them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import Limits
from ndstream.core.model import Dataset
from ndstream.core.ports import Lent
from ndstream.core.selection import Selection, Span, chunk_counts
from ndstream.errors import Replaced
from ndstream.stores.hdf5.descriptors import OpenFile
from ndstream.stores.hdf5.layout import Chunked
from ndstream.stores.hdf5.messages import Located
from ndstream.stores.hdf5.reading import PieceReading
from ndstream.stores.hdf5.work import Loading, loadings


class StoredRows:
    """The stored chunks that a selection touches.

    Parameters
    ----------
    layout : Chunked
    selection : Selection
        Of the shape of the dataset.

    Attributes
    ----------
    index : ndarray, shape (n, 3), uint64
        As of `ndstream.core.ports.StoredReading`.
    """

    def __init__(self, layout: Chunked, selection: Selection) -> None:
        self._shape = selection.source
        self._layout = layout
        rows = _touched(layout, selection)
        self._numbers = layout.index.numbers[rows]
        self._offsets, self._sizes = _places(layout, rows)
        masks = layout.index.masks
        self.index = np.zeros((rows.size, 3), np.uint64)
        self.index[:, 0] = self._numbers
        self.index[:, 1] = self._sizes
        self.index[:, 2] = masks[rows] if masks.size else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all together."""
        return int(self._sizes.sum(dtype=np.int64))

    def refresh(self, located: Located) -> None:
        """Make sure that the chunks are what they were, and where they were; raises `Replaced`.

        A dataset that became longer may have its last chunks elsewhere, in another length than was announced, or others
        in their place.
        """
        layout = located.layout
        if isinstance(layout, Chunked) and not self._packed_again(located.dataset.shape or ()):
            numbers = layout.index.numbers
            rows = np.searchsorted(numbers, self._numbers)
            if self._numbers.size == 0 or (rows < numbers.size).all():
                offsets, sizes = _places(layout, rows)
                if np.array_equal(offsets, self._offsets) and np.array_equal(sizes, self._sizes):
                    return
        raise Replaced("chunks have been stored elsewhere while they were read")

    def _packed_again(self, shape: tuple[int, ...]) -> bool:
        """Whether chunks were full in part, where the dataset became longer, and went through the filters anew."""
        if not self._layout.filters or not self._numbers.size:
            return False
        counts = chunk_counts(self._shape, self._layout.chunks)
        places = np.unravel_index(self._numbers.astype(np.int64), counts)
        axes = zip(shape, self._shape, self._layout.chunks, counts, places, strict=True)
        return any(now > then and then % side and (at == count - 1).any() for now, then, side, count, at in axes)

    def works(self, file: OpenFile, limits: Limits) -> Iterator[Loading]:
        """Cut what is to be read into pieces, in the order of the index."""
        ranges = zip(self._offsets.tolist(), self._sizes.tolist(), strict=True)
        return loadings(file, ranges, limits)


class StoredChunkReading:
    """Stored chunks on their way out; see `ndstream.core.ports.StoredReading`."""

    def __init__(self, dataset: Dataset, rows: StoredRows, reading: PieceReading) -> None:
        self.dataset = dataset
        self.index: NDArray[np.uint64] = rows.index
        self.nbytes = rows.nbytes
        self._reading = reading

    def buffers(self) -> AsyncIterator[memoryview]:
        """The chunks one behind the other, in pieces."""
        return self._reading.buffers()

    def lend(self) -> AsyncIterator[memoryview | Lent]:
        """Give the same, but for what the page cache has: see `ndstream.core.ports.Lending`."""
        return self._reading.lend()

    async def aclose(self) -> None:
        """Give back what the reading holds."""
        await self._reading.aclose()


def _places(layout: Chunked, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    return layout.index.offsets[rows], layout.index.sizes[rows]


def _touched(layout: Chunked, selection: Selection) -> NDArray[np.int64]:
    """Rows of the chunk index that a selection touches, ascending."""
    numbers = layout.index.numbers
    if selection.is_everything or not selection.count or not numbers.size:
        return np.arange(numbers.size if selection.count else 0)
    counts = chunk_counts(selection.source, layout.chunks)
    # A long index is looked at between the bounds along the first axis alone.
    low, high = selection.axes[0].bounds()
    across = prod(counts[1:])
    edges = np.array((low // layout.chunks[0] * across, -(-high // layout.chunks[0]) * across), np.uint64)
    begin, end = np.searchsorted(numbers, edges).tolist()
    numbers = numbers[begin:end]
    places = np.unravel_index(numbers.astype(np.int64), counts)
    keep = np.ones(numbers.size, np.bool_)
    for number, axis in enumerate(selection.axes):
        if number in selection.joint:
            continue
        needed = np.zeros(counts[number], np.bool_)
        length = layout.chunks[number]
        if isinstance(axis, Span) and abs(axis.step) <= length:
            low, high = axis.bounds()
            needed[low // length : -(-high // length)] = True
        else:
            needed[axis.expand() // length] = True
        keep &= needed[places[number]]
    if selection.joint:
        grid = tuple(counts[number] for number in selection.joint)
        points = [selection.axes[number].expand() // layout.chunks[number] for number in selection.joint]
        mine = np.ravel_multi_index(tuple(points), grid)
        keep &= np.isin(np.ravel_multi_index(tuple(places[number] for number in selection.joint), grid), mine)
    found: NDArray[np.int64] = begin + np.flatnonzero(keep)
    return found
