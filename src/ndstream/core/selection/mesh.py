"""Index tuples for numpy whose result has its dimensions in a wanted order.

Numpy moves dimensions: ``a[0, :, [1, 2]]`` has the list first, because list and int are apart. Slices are much faster
than index arrays, so as few of them as possible are turned into arrays until the order is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ndstream.core.selection.axes import Indices

Index: TypeAlias = slice | Indices


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What is taken from one axis, and where its dimensions stand in the result.

    A slice has one dimension, an array as many as its rank; `length` is the number of indices of a slice.
    """

    index: Index
    dim: int
    length: int


def ordered(entries: list[Entry | int]) -> tuple[Any, ...]:
    """Build the index tuple for entries of successive axes; an int drops its axis.

    The result of indexing with it has every dimension where its entry says. Entries that share dimensions are index
    arrays of one shape, and go point by point.
    """
    low, high = _hull(entries)
    if low == high:
        return tuple([entry if isinstance(entry, int) else entry.index for entry in entries])
    return tuple([_shaped(entry, low, high) for entry in entries])


def _shaped(entry: Entry | int, low: int, high: int) -> int | Index:
    """Shape an index for broadcasting, if it is for a dimension from `low` to `high`."""
    if isinstance(entry, int):
        return entry
    index = entry.index
    if not low <= entry.dim < high:
        return index
    if isinstance(index, slice):
        index = np.arange(entry.length, dtype=np.int64) * index.step + index.start
    return index.reshape((1,) * (entry.dim - low) + index.shape + (1,) * (high - entry.dim - index.ndim))


def _rank(entry: Entry) -> int:
    return 1 if isinstance(entry.index, slice) else entry.index.ndim


def _hull(entries: list[Entry | int]) -> tuple[int, int]:
    """Range of dimensions that must be index arrays, for numpy to leave all of them where they belong."""
    kept = [entry for entry in entries if isinstance(entry, Entry)]
    arrays = [entry for entry in kept if not isinstance(entry.index, slice)]
    if not arrays:
        return 0, 0
    low, high = min(entry.dim for entry in arrays), max(entry.dim + _rank(entry) for entry in arrays)
    while True:
        # Numpy: arrays and ints side by side put their dimensions in the place of the first; apart, in front.
        advanced = [k for k, entry in enumerate(entries) if isinstance(entry, int) or low <= entry.dim < high]
        between = [entry for entry in entries[advanced[0] : advanced[-1]] if isinstance(entry, Entry)]
        wider = min([low, *[e.dim for e in between]]), max([high, *[e.dim + _rank(e) for e in between]])
        if wider == (low, high):
            break
        low, high = wider
    before = sum(isinstance(entry, Entry) for entry in entries[: advanced[0]])
    if before == low:
        return low, high
    return 0, max(entry.dim + _rank(entry) for entry in kept)
