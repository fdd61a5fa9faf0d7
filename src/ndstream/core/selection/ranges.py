"""Many ranges in one selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ndstream.core.selection.axes import LARGEST, Axis, Indices, Spans, span, windows
from ndstream.core.selection.selection import Selection
from ndstream.errors import InvalidSelection, OutOfBounds


def ranges(
    shape: tuple[int, ...], starts: ArrayLike, counts: ArrayLike, rest: Sequence[tuple[int, int]] = ()
) -> Selection:
    """Select many ranges of the first axis, put one behind the other, and one range of each later axis.

    Parameters
    ----------
    shape
        Shape of the array, rank 1 at least.
    starts, counts : array of int, one per range
        First index and length of each range; they may overlap, repeat and come in any order. `counts` may be one
        number for all. int64 arrays are kept without a copy and must not change afterwards.
    rest
        (start, count) for each later axis.

    Raises
    ------
    OutOfBounds
        When a range leaves the array.
    InvalidSelection
        When there is not one entry per axis, a count is negative, or the arrays are no arrays of integers.
    TooLarge
        When the ranges hold more elements than a 64-bit number can count.
    """
    if len(rest) != len(shape) - 1:
        raise InvalidSelection(f"ranges of {len(rest) + 1} axes for an array of {len(shape)}")
    first = np.atleast_1d(_integers(starts, "the starts"))
    length = _integers(counts, "the counts")
    if first.ndim != 1 or length.ndim > 1 or length.size not in (1, first.size):
        raise InvalidSelection(f"{first.size} starts do not go with {length.size} counts")
    length = np.broadcast_to(length, first.shape)
    check_ranges(first, length, shape[0], axis=0)
    if first.size and length.min() == 0:
        held = length > 0
        first, length = first[held], length[held]
    axes: list[Axis] = [Spans(first, length).simplest()]
    for axis, (start, count) in enumerate(rest, 1):
        if count < 0:
            raise InvalidSelection(f"a range of {count} indices of axis {axis}")
        if start < 0 or start + count > shape[axis]:
            raise OutOfBounds(f"range {start}:{start + count} leaves axis {axis} of size {shape[axis]}")
        axes.append(span(start, count))
    return Selection(source=shape, axes=tuple(axes))


def check_ranges(starts: Indices, counts: Indices, side: int, axis: int) -> None:
    """Refuse ranges of negative length, and those that are not within an axis."""
    for window in windows(starts.size):
        start, count = starts[window], counts[window]
        if count.min() < 0:
            raise InvalidSelection(f"range {window.start + int(count.argmin())} has a length of {count.min()}")
        # A difference, because the sum could be larger than int64.
        wrong = (start < 0) | (count > side - start)
        if wrong.any():
            which = int(wrong.argmax())
            begin, end = int(start[which]), int(start[which]) + int(count[which])
            raise OutOfBounds(f"range {window.start + which}, {begin}:{end}, leaves axis {axis} of size {side}")


def _integers(values: ArrayLike, name: str) -> Indices:
    """Read as int64, without a copy where it is that already."""
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InvalidSelection(f"{name} of the ranges are {array.dtype}, not integers")
    if array.dtype == np.uint64 and int(array.max()) > LARGEST:
        raise OutOfBounds(f"{name} of the ranges go up to {array.max()}")
    return array.astype(np.int64, copy=False)
