"""In which pieces a selection is read: C order of the result, within a budget of bytes, each chunk once if possible.

The reasons for the choices made here are in ``design/0007-read-plan.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import Limits
from ndstream.core.selection import Selection, Span
from ndstream.stores.hdf5.layout import Chunked, Layout, Library

#: Bytes between two runs that are cheaper read along with them than skipped by a second system call.
_GAP = 16 << 10
#: Runs of at least this many bytes are read straight to their place, and so are fewer than `_MANY` short ones: going
#: through another buffer costs as much as some system calls.
_LONG = 4 << 10
_MANY = 16
#: Many short runs are read together from windows of about this many bytes, which stay in the processor's cache.
_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the result that is made in one go.

    Attributes
    ----------
    block
        What it takes from the dataset.
    spooled
        True when its chunks reach far beyond it and what it is cut from: it is too large to be held in memory, is
        decoded into a temporary file first and then sent from there in smaller pieces.
    """

    block: Selection
    spooled: bool = False


def plan(selection: Selection, layout: Layout, itemsize: int, limits: Limits) -> Iterator[Piece]:
    """Cut a selection into pieces.

    Parameters
    ----------
    selection : Selection
    layout : Layout
        Where the bytes are.
    itemsize : int, bytes
        Size of one element.
    limits : Limits
        Of these `piece`, `request_memory` and `spool` matter.

    Yields
    ------
    Piece
        Whole elements; their results, one behind the other, are the result of `selection` in C order. Lazy.
    """
    most = max(limits.piece // itemsize, 1)
    if selection.count <= most:
        yield Piece(selection)
        return
    spooled = False
    grid = layout.chunks if isinstance(layout, Chunked | Library) else None
    if isinstance(layout, Chunked):
        memory = max(limits.request_memory // 2 // itemsize, 1)
        band = _band(selection, layout.chunks, most)
        if band is None:
            most = memory
        elif band <= memory:
            most = max(most, band)
        elif layout.filters:
            spooled = limits.spool // itemsize > memory
            # One band at a time, so that the first bytes leave soon and the file stays small.
            most = max(min(limits.spool // itemsize, band), memory)
        # Else chunks are stored as they are: of each only those rows are read that a piece needs.
    for block in selection.blocks(most, grid):
        yield Piece(block, spooled and block.count > memory)


def _band(selection: Selection, grid: tuple[int, ...], most: int) -> int | None:
    """Elements of the smallest part of the result that can be cut off without cutting through chunks.

    None when there is no telling: indices in any order need chunks again and again, unless all is made at once.
    """
    if selection.joint:
        return None
    unit = selection.count
    for axis, length in zip(selection.axes, grid, strict=True):
        if not isinstance(axis, Span):
            return None
        unit //= axis.count
        rows = min(-(-length // abs(axis.step)), axis.count)
        if rows > 1 or unit <= most:
            return rows * unit
        # One row a chunk: cutting between rows is free, and cutting a row is for the next axis to decide.
    return unit


@dataclass(frozen=True, slots=True)
class Gather:
    """Runs of bytes to be read, in ascending order, with what is read together.

    Attributes
    ----------
    starts, lengths, targets : ndarray, shape (n,), int64, elements
        Where each run is in the dataset, how long it is, and where it goes in the result.
    groups : ndarray, shape (m + 1,), int64
        Runs ``groups[i]:groups[i + 1]`` are read in one go, with what is between them.
    ends : ndarray, shape (m,), int64, elements
        Where the last of these bytes are, for each group.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    targets: NDArray[np.int64]
    groups: NDArray[np.int64]
    ends: NDArray[np.int64]


def gather(starts: NDArray[np.int64], lengths: NDArray[np.int64], itemsize: int) -> Gather:
    """Order runs by position and put those together that are short and near each other.

    Parameters
    ----------
    starts, lengths : ndarray, shape (n,), int64, elements
        As `Selection.runs` gives them, n ≥ 1, no run empty.
    itemsize : int, bytes
    """
    targets = np.cumsum(lengths) - lengths
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, lengths, targets = starts[order], lengths[order], targets[order]
    # Runs may overlap: a group ends where its longest reach ends, not its last run.
    reach = np.maximum.accumulate(starts + lengths)
    long = lengths * itemsize >= _LONG
    window = starts // max(_WINDOW // itemsize, 1)
    cut = starts[1:] - reach[:-1] > _GAP // itemsize
    cut |= window[1:] != window[:-1]
    cut |= long[1:] | long[:-1]
    groups = np.concatenate(([0], np.flatnonzero(cut) + 1, [starts.size])).astype(np.int64)
    if groups.size <= starts.size:
        few = np.repeat(np.diff(groups) < _MANY, np.diff(groups))
        cut |= few[1:] | few[:-1]
        groups = np.concatenate(([0], np.flatnonzero(cut) + 1, [starts.size])).astype(np.int64)
    ends = np.maximum.reduceat(starts + lengths, groups[:-1])
    return Gather(starts, lengths, targets, groups, ends)


def grid_of(shape: tuple[int, ...], itemsize: int, most: int) -> tuple[int, ...]:
    """Lengths of boxes of at most `most` bytes that are long along the last axes, for storage without chunks."""
    lengths = [1] * len(shape)
    room = max(most // itemsize, 1)
    for axis in reversed(range(len(shape))):
        lengths[axis] = max(min(shape[axis], room), 1)
        room //= lengths[axis]
    return tuple(lengths)


def box_around(source: tuple[object, ...], grid: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Smallest box (start, stop per axis) of a chunk that holds all of a numpy index into it.

    Parameters
    ----------
    source : tuple
        One entry per axis: int, slice, or array of integers that are not negative.
    grid : tuple of int
        Shape of the chunk.
    """
    start, stop = [], []
    for entry, length in zip(source, grid, strict=True):
        if isinstance(entry, slice):
            chosen = range(length)[entry]
            low, high = (min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])) if chosen else (0, -1)
        elif isinstance(entry, np.ndarray):
            low, high = (int(entry.min()), int(entry.max())) if entry.size else (0, -1)
        else:
            low = high = int(entry)  # type: ignore[call-overload]  # an integer of Python or numpy: nothing else is left
        start.append(low)
        stop.append(high + 1)
    return tuple(start), tuple(stop)


def span_of(start: tuple[int, ...], stop: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, int]:
    """First and one past the last element of a box in the flattened chunk (C order)."""
    if any(low >= high for low, high in zip(start, stop, strict=True)):
        return 0, 0
    first = last = 0
    for low, high, length in zip(start, stop, grid, strict=True):
        first = first * length + low
        last = last * length + high - 1
    return first, last + 1
