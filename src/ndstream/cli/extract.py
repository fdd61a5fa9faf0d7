"""A dataset, or the part of it that a selection names, read piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.client.datasets import RemoteDataset
from ndstream.core.limits import MiB
from ndstream.core.selection import Picks, Selection, Span, everything, parse_selection, select
from ndstream.errors import InvalidSelection

PIECE = 16 * MiB
_REFERENCE = 16  # bytes that stand for an element of variable length


class Extract:
    """What is to be read.

    Parameters
    ----------
    dataset : RemoteDataset or h5py.Dataset
        Source.
    selection : str, optional
        What to take of it, as text; everything without.

    Raises
    ------
    InvalidSelection, OutOfBounds
        When the selection does not fit, or the dataset has no elements to select from (null dataspace).
    """

    def __init__(self, dataset: Any, selection: str | None = None) -> None:
        if dataset.shape is None:
            raise InvalidSelection(f"{dataset.name}: a null dataspace has no elements")
        self.dataset = dataset
        self.selection = everything(dataset.shape) if selection is None else parse_selection(selection, dataset.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is read, the axes of an array type last."""
        return self.selection.shape + self._element

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of what is read; of an array type its base."""
        dtype: np.dtype[Any] = self.dataset.dtype.base
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of what is read; of elements of variable length, a guess."""
        return math.prod(self.shape) * self._itemsize

    def read(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """Read a part of the result, one slice per axis of it."""
        rank = len(self.selection.shape)
        taken = self._take(self.selection.compose(select(key[:rank], self.selection.shape)))
        inside: tuple[Any, ...] = (*[slice(None)] * rank, *key[rank:], ...)
        found: NDArray[Any] = taken[inside]
        return found

    def pieces(self) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Read all, in C order of the result: where each piece goes, and its elements. Of bounded memory."""
        most = max(PIECE // (self._itemsize * math.prod(self._element)), 1)
        for block in everything(self.selection.shape).blocks(most, self._grid()):
            values = self._take(self.selection.compose(block))
            yield tuple(axis.slice for axis in block.axes if isinstance(axis, Span)), values

    def rows(self) -> Iterator[NDArray[Any]]:
        """Read all as rows along the first axis, some at a time: arrays of shape (rows, elements of a row)."""
        shape = self.shape or (1,)
        width = math.prod(shape[1:])
        step = max(PIECE // max(width * self._itemsize, 1), 1)
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            key = (slice(start, stop), *[slice(0, length) for length in shape[1:]])
            yield self.read(key if self.shape else ()).reshape(stop - start, width)

    @property
    def _element(self) -> tuple[int, ...]:
        """Shape of one element: not () for those of an array type."""
        shape: tuple[int, ...] = self.dataset.dtype.shape
        return shape

    @property
    def _itemsize(self) -> int:
        return _REFERENCE if self.dtype.hasobject else max(self.dtype.itemsize, 1)

    def _grid(self) -> tuple[int, ...] | None:
        """Chunks of the dataset, when the result is all of it: pieces then fall on them."""
        chunks: tuple[int, ...] | None = self.dataset.chunks
        return chunks if self.selection.is_everything else None

    def _take(self, selection: Selection) -> NDArray[Any]:
        result = np.empty(selection.shape, self.dataset.dtype)
        if selection.count == 0:
            return result
        if isinstance(self.dataset, RemoteDataset):
            self.dataset.fetch(selection, result)
            return result
        # h5py knows no negative steps, repeated indices or several lists: numpy does, on the box around them.
        box = selection.bounds
        around = np.empty([stop - start for start, stop in box], self.dataset.dtype)
        found = self.dataset[tuple(slice(*side) for side in box)]
        if box or not around.dtype.hasobject:
            around[...] = found
        else:
            around.reshape(1)[0] = found  # numpy would take a sequence for elements, not for the one element
        return np.asarray(_within(selection, box, self._element).apply(around), order="C")


def _within(selection: Selection, box: tuple[tuple[int, int], ...], element: tuple[int, ...]) -> Selection:
    """Make the same selection relative to a box that holds it, of elements that are arrays themselves."""
    axes = [
        replace(axis, start=axis.start - start) if isinstance(axis, Span) else Picks(axis.expand() - start)
        for axis, (start, _) in zip(selection.axes, box, strict=True)
    ]
    source = tuple(stop - start for start, stop in box)
    return replace(selection, source=source + element, axes=(*axes, *[Span(0, length) for length in element]))
