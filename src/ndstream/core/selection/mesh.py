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
    return tuple(
        [
            _array(entry, low, high) if isinstance(entry, Entry) and low <= entry.dim < high else _plain(entry)
            for entry in entries
        ]
    )


def _plain(entry: Entry | int) -> Any:
    return entry if isinstance(entry, int) else entry.index


def _array(entry: Entry, low: int, high: int) -> Indices:
    """Shape an index for broadcasting over the dimensions from `low` to `high`."""
    index = _expand(entry)
    return index.reshape((1,) * (entry.dim - low) + index.shape + (1,) * (high - entry.dim - index.ndim))


def _expand(entry: Entry) -> Indices:
    if not isinstance(entry.index, slice):
        return entry.index
    spread: Indices = np.arange(entry.length, dtype=np.int64) * entry.index.step + entry.index.start
    return spread


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
        wider = min(low, *[e.dim for e in between], low), max(high, *[e.dim + _rank(e) for e in between], high)
        if wider == (low, high):
            break
        low, high = wider
    before = sum(isinstance(entry, Entry) for entry in entries[: advanced[0]])
    if before == low:
        return low, high
    return 0, max(entry.dim + _rank(entry) for entry in kept)
