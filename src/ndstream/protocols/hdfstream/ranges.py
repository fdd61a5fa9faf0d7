"""Selections made of slice requests: which requests, and where their answers go.

A slice request carries many ascending ranges of the first axis and one range of each later axis (specification
section 4). Whatever is asked for, `plan` finds requests of that form. When the answer to a request is, byte for byte,
a part of the result, it is received there; else it is received in a block of bounded size and sorted in.

What is fetched besides what is wanted is weighed against the cost of one more request: steps and scattered indices of
later axes are fetched as one range, until a gap would cost more bytes than a request is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import KiB, MiB
from ndstream.core.selection import Axis, Picks, Selection, Span
from ndstream.protocols.hdfstream.descriptor import MOST_RANGES, Descriptor

Indices: TypeAlias = NDArray[np.int64]

REQUEST_COST = 64 * KiB  # bytes of data that one more request is worth
RANGE_COST = 32  # bytes of data that one more range of the first axis is worth
BLOCK = 64 * MiB  # an answer that must be sorted in is not longer
BLOCK_ELEMENTS = 1 << 23  # nor are index arrays made for more elements at a time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """A request whose answer is the elements `start` to `stop` of the flattened result."""

    descriptor: Descriptor
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scattered:
    """A request whose answer is sorted into the elements `start` to `stop` of the flattened result.

    Those elements, in the shape `frame`, have one axis for each axis of the answer, in order, except that all axes in
    `joint` share one, at position `joint_at`. `sources` index the answer (`joint` first), `targets` the frame (the
    shared axis first).
    """

    descriptor: Descriptor
    start: int
    stop: int
    frame: tuple[int, ...]
    joint: tuple[int, ...]
    joint_at: int
    sources: tuple[Indices | slice, ...]
    targets: tuple[Indices | slice, ...]

    def place(self, answer: NDArray[Any], result: NDArray[Any]) -> None:
        """Sort the answer into `result`, the whole result with its axes flattened into the first.

        Further axes of both belong to the elements.
        """
        frame = result[self.start : self.stop].reshape(self.frame + result.shape[1:])
        shared = len(self.joint)
        if shared:
            others = [axis for axis in range(answer.ndim) if axis not in self.joint]
            answer = answer.transpose(*self.joint, *others)[self.sources[:shared]]
            frame = np.moveaxis(frame, self.joint_at, 0)
            taken = (slice(None), *self.sources[shared:])
        else:
            taken = self.sources
        frame[_mesh(self.targets, frame.shape)] = answer[_mesh(taken, answer.shape)]


Transfer: TypeAlias = Whole | Scattered


def plan(selection: Selection, itemsize: int, most_ranges: int = MOST_RANGES) -> Iterator[Transfer]:
    """Find the requests that together bring a selection.

    Parameters
    ----------
    selection : Selection
    itemsize : int
        Bytes of one element on the wire; an estimate will do, it only steers what is fetched together.
    most_ranges : int
        Ranges of the first axis that one request may have.

    Yields
    ------
    Whole or Scattered
        Every element of the result is covered once. Nothing for an empty selection.
    """
    if not selection.count:
        return
    if not selection.source:
        yield Whole(descriptor=Descriptor.parse([]), start=0, stop=1)
        return
    # A span with a step would become one range per index: that is done block by block. Other axes already are arrays.
    if _contiguous(selection.axes[0]) or not isinstance(selection.axes[0], Span):
        whole = _straight(selection, 0, most_ranges)
        if whole is not None:
            yield from whole
            return
    start = 0
    for block in selection.blocks(max(1, min(BLOCK // itemsize, BLOCK_ELEMENTS))):
        whole = None
        if not _near(block.axes[0], itemsize * prod(axis.count for axis in block.axes[1:])):
            whole = _straight(block, start, most_ranges)
        yield from whole if whole is not None else _scattered(block, start, itemsize, most_ranges)
        start += block.count


def _straight(selection: Selection, start: int, most_ranges: int) -> list[Whole] | None:
    """Requests whose answers are the result, one behind the other; None when there are none such."""
    if selection.joint or not all(_contiguous(axis) for axis in selection.axes[1:]):
        return None
    starts, counts = selection.axes[0].runs()
    if np.any(starts[1:] < starts[:-1] + counts[:-1]):
        return None
    rest = tuple((axis.bounds()[0], axis.count) for axis in selection.axes[1:])
    row = prod(count for _, count in rest)
    transfers = []
    for first in range(0, starts.size, most_ranges):
        part = slice(first, first + most_ranges)
        descriptor = Descriptor(starts[part], counts[part], rest)
        stop = start + row * int(counts[part].sum())
        transfers.append(Whole(descriptor=descriptor, start=start, stop=stop))
        start = stop
    return transfers


def _scattered(block: Selection, start: int, itemsize: int, most_ranges: int) -> Iterator[Scattered]:
    """Requests for boxes that cover a block of the selection."""
    wanted = [_Wanted(axis) for axis in block.axes]
    others = [axis for axis in range(len(wanted)) if axis not in block.joint]
    joint_at = _joint_at(block, others)
    frame = [wanted[axis].count for axis in others]
    if block.joint:
        frame.insert(joint_at, wanted[block.joint[0]].count)
    for box in _boxes(block, wanted, itemsize):
        for starts, counts in _first_axis(block, wanted[0], box, itemsize, most_ranges):
            sources: dict[int, Indices | slice] = {}
            targets: dict[int, Indices | slice] = {}
            for axis in others:
                sources[axis], targets[axis] = (
                    wanted[axis].among(starts, counts) if axis == 0 else wanted[axis].between(*box.later[axis])
                )
            points: tuple[Indices | slice, ...] = ()
            if block.joint:
                chosen = box.points
                if 0 in block.joint:
                    chosen = chosen[_within(wanted[0].indices[chosen], starts, counts)]
                for axis in block.joint:
                    indices = wanted[axis].indices[chosen]
                    sources[axis] = _offsets(indices, starts, counts) if axis == 0 else indices - box.later[axis][0]
                points = (chosen,)
            yield Scattered(
                descriptor=Descriptor(starts, counts, tuple((low, high - low) for low, high in box.later_axes())),
                start=start,
                stop=start + block.count,
                frame=tuple(frame),
                joint=block.joint,
                joint_at=joint_at,
                sources=tuple(sources[axis] for axis in (*block.joint, *others)),
                targets=(*points, *(targets[axis] for axis in others)),
            )


class _Wanted:
    """What is wanted of one axis, sorted, and where each index goes. Made when asked for: most axes are spans."""

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.count = axis.count
        self._indices: Indices | None = None
        self._order: Indices | None = None
        self._sorted: Indices | None = None

    @property
    def indices(self) -> Indices:
        """Every index, in the order of the result."""
        if self._indices is None:
            self._indices = self.axis.expand()
        return self._indices

    @property
    def sorted(self) -> Indices:
        """Every index, ascending."""
        if self._sorted is None:
            self._sorted = self.indices[self.order]
        return self._sorted

    @property
    def order(self) -> Indices:
        """Positions in the result of `sorted`."""
        if self._order is None:
            self._order = np.argsort(self.indices, kind="stable")
        return self._order

    def runs(self, gap: int) -> tuple[Indices, Indices]:
        """Ascending runs that hold every index; gaps of at most `gap` indices are bridged."""
        if isinstance(self.axis, Span) and abs(self.axis.step) <= gap + 1:
            low, high = self.axis.bounds()
            return np.array([low], np.int64), np.array([high - low], np.int64)
        return runs_of(self.sorted, gap)

    def between(self, low: int, high: int) -> tuple[Indices | slice, Indices | slice]:
        """Offsets from `low`, and positions in the result, of the indices in a range."""
        if isinstance(self.axis, Span):
            return _span_between(self.axis, low, high)
        first, last = np.searchsorted(self.sorted, (low, high))
        return self.sorted[first:last] - low, self.order[first:last]

    def among(self, starts: Indices, counts: Indices) -> tuple[Indices | slice, Indices | slice]:
        """Offsets into ranges put one behind the other, and positions in the result, of the indices in them."""
        if starts.size == 1:
            return self.between(int(starts[0]), int(starts[0] + counts[0]))
        first, last = np.searchsorted(self.sorted, (starts[0], starts[-1] + counts[-1]))
        return _offsets(self.sorted[first:last], starts, counts), self.order[first:last]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Box:
    """A range of each later axis, and the joint points that go with it (positions in the result)."""

    later: dict[int, tuple[int, int]]
    points: Indices

    def later_axes(self) -> Iterator[tuple[int, int]]:
        return (self.later[axis] for axis in sorted(self.later))


def _boxes(block: Selection, wanted: Sequence[_Wanted], itemsize: int) -> Iterator[_Box]:
    """Ranges of the later axes that are worth a request each."""
    free = [axis for axis in range(1, len(wanted)) if axis not in block.joint]
    shared = [axis for axis in block.joint if axis]
    parts = _parts(block, wanted, free, itemsize)
    row = itemsize * prod(sum(high - low for low, high in parts[axis]) for axis in free)
    points = np.arange(wanted[block.joint[0]].count, dtype=np.int64) if block.joint else np.zeros(0, np.int64)
    clusters = _clusters(block, wanted, shared, points, row) if shared else [points]
    for cluster in clusters:
        fixed = {}
        for axis in shared:
            indices = wanted[axis].indices[cluster]
            fixed[axis] = (int(indices.min()), int(indices.max()) + 1)
        for choice in product(*(parts[axis] for axis in free)):
            yield _Box(later=fixed | dict(zip(free, choice, strict=True)), points=cluster)


def _parts(
    block: Selection, wanted: Sequence[_Wanted], free: Sequence[int], itemsize: int
) -> dict[int, list[tuple[int, int]]]:
    """Cut each free later axis where a gap costs more than the requests it saves."""
    bounds = block.bounds
    parts = {axis: [bounds[axis]] for axis in free}
    first = wanted[0].runs(0)[1].sum() if free else 1
    width = {axis: bounds[axis][1] - bounds[axis][0] for axis in free}
    for axis in free:
        beside = itemsize * int(first) * prod(width[other] for other in free if other != axis)
        requests = prod(len(parts[other]) for other in free if other != axis)
        gap = REQUEST_COST * requests // max(1, beside)
        starts, counts = wanted[axis].runs(gap)
        parts[axis] = list(zip(starts.tolist(), (starts + counts).tolist(), strict=True))
        width[axis] = int(counts.sum())
    for axis in free:
        # One row of the first axis must fit into a block.
        longest = {other: max(high - low for low, high in parts[other]) for other in free}
        row = itemsize * prod(longest.values())
        if row > BLOCK:
            parts[axis] = _cut(parts[axis], max(1, BLOCK * longest[axis] // row))
            parts[axis] = [part for part in parts[axis] if not _is_gap(wanted[axis], *part)]
    return parts


def _clusters(
    block: Selection, wanted: Sequence[_Wanted], shared: Sequence[int], points: Indices, row: int
) -> Iterator[Indices]:
    """Halve the joint points until the boxes around them are not worth another request."""
    pending = [points]
    while pending:
        cluster = pending.pop()
        cost = _cost(block, wanted, shared, cluster, row)
        halves = _halves(wanted, shared, cluster)
        if halves and (
            sum(_cost(block, wanted, shared, half, row) for half in halves) + REQUEST_COST < cost
            or row * _area(wanted, shared, cluster) > BLOCK
        ):
            pending.extend(reversed(halves))
        else:
            yield cluster


def _cost(block: Selection, wanted: Sequence[_Wanted], shared: Sequence[int], points: Indices, row: int) -> int:
    """Bytes of the box around joint points."""
    rows = np.unique(wanted[0].indices[points]).size if 0 in block.joint else wanted[0].count
    return row * rows * _area(wanted, shared, points)


def _area(wanted: Sequence[_Wanted], shared: Sequence[int], points: Indices) -> int:
    """Elements of the box around joint points, over the later of the joint axes."""
    return prod(int(np.ptp(wanted[axis].indices[points])) + 1 for axis in shared)


def _halves(wanted: Sequence[_Wanted], shared: Sequence[int], points: Indices) -> list[Indices]:
    """Cut joint points in the middle of the axis over which they spread most; nothing when they do not."""
    spread = {axis: int(np.ptp(wanted[axis].indices[points])) for axis in shared}
    widest = max(shared, key=spread.__getitem__)
    if not spread[widest]:
        return []
    indices = wanted[widest].indices[points]
    ordered = np.sort(indices)
    # The cut falls between two different indices, at the median or next to it.
    middle = ordered[ordered.size // 2]
    if middle == ordered[0]:
        middle = ordered[np.searchsorted(ordered, middle, side="right")]
    return [points[indices < middle], points[indices >= middle]]


def _first_axis(
    block: Selection, wanted: _Wanted, box: _Box, itemsize: int, most_ranges: int
) -> Iterator[tuple[Indices, Indices]]:
    """Ranges of the first axis for one box, in groups that one request can carry and one block can hold."""
    row = itemsize * prod(high - low for low, high in box.later.values())
    gap = RANGE_COST // row
    starts, counts = runs_of(np.unique(wanted.indices[box.points]), gap) if 0 in block.joint else wanted.runs(gap)
    most_rows = max(1, BLOCK // row)
    reached = np.cumsum(counts)
    done = 0
    while done < reached[-1]:
        first = int(np.searchsorted(reached, done, side="right"))
        last = int(np.searchsorted(reached, done + most_rows, side="left"))
        last = min(last, first + most_ranges - 1, starts.size - 1)
        stop = min(done + most_rows, int(reached[last]))
        some_starts, some_counts = starts[first : last + 1].copy(), counts[first : last + 1].copy()
        before = done - (int(reached[first]) - int(counts[first]))
        some_starts[0] += before
        some_counts[0] -= before
        some_counts[-1] -= int(reached[last]) - stop
        yield some_starts, some_counts
        done = stop


def runs_of(indices: Indices, gap: int = 0) -> tuple[Indices, Indices]:
    """Starts and counts of the runs in ascending indices (repeated ones are one), bridging gaps of up to `gap`."""
    breaks = np.flatnonzero(np.diff(indices) > gap + 1) + 1
    starts = indices[np.concatenate(([0], breaks))]
    lasts = indices[np.concatenate((breaks - 1, [indices.size - 1]))]
    return starts, lasts - starts + 1


def _span_between(span: Span, low: int, high: int) -> tuple[slice, slice]:
    """As `_Wanted.between`, in slices."""
    if span.step > 0:
        first, last = -(-(low - span.start) // span.step), -(-(high - span.start) // span.step)
    else:
        first, last = -((high - 1 - span.start) // -span.step), (low - span.start) // span.step + 1
    first, last = max(0, first), min(span.count, last)
    if first >= last:
        return slice(0, 0), slice(0, 0)
    offset = span.start + first * span.step - low
    stop = offset + (last - first) * span.step
    return slice(offset, stop if stop >= 0 else None, span.step), slice(first, last)


def _offsets(indices: Indices, starts: Indices, counts: Indices) -> Indices:
    """Positions of indices in ranges put one behind the other."""
    before = np.cumsum(counts) - counts
    which = np.searchsorted(starts, indices, side="right") - 1
    return before[which] + indices - starts[which]


def _within(indices: Indices, starts: Indices, counts: Indices) -> NDArray[np.bool_]:
    """Which indices lie between the first and the last of the ranges (where every gap is unwanted anyway)."""
    within: NDArray[np.bool_] = (indices >= starts[0]) & (indices < starts[-1] + counts[-1])
    return within


def _cut(parts: Sequence[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    return [(at, min(at + longest, high)) for low, high in parts for at in range(low, high, longest)]


def _is_gap(wanted: _Wanted, low: int, high: int) -> bool:
    """Whether nothing in the range is wanted."""
    _, targets = wanted.between(low, high)
    return targets.stop <= targets.start if isinstance(targets, slice) else not targets.size


def _near(axis: Axis, row: int) -> bool:
    """Whether bridging the steps of the first axis is cheaper than a range for each index."""
    return isinstance(axis, Span) and axis.count > 1 and axis.step > 1 and (axis.step - 1) * row <= RANGE_COST


def _contiguous(axis: Axis) -> bool:
    """Whether the axis is one ascending range without gaps."""
    if isinstance(axis, Span):
        return axis.step == 1 or axis.count == 1
    if isinstance(axis, Picks):
        return bool((np.diff(axis.indices) == 1).all())
    held = axis.counts > 0
    starts, counts = axis.starts[held], axis.counts[held]
    return bool((starts[1:] == starts[:-1] + counts[:-1]).all())


def _joint_at(selection: Selection, others: Sequence[int]) -> int:
    """Position of the joint points among all other axes, the dropped ones counted too."""
    kept = 0
    for position, axis in enumerate(others):
        if kept == selection.joint_at:
            return position
        kept += axis not in selection.dropped
    return len(others)


def _mesh(parts: Sequence[Indices | slice], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Index for the outer product of slices and index arrays."""
    arrays = [part for part in parts if not isinstance(part, slice)]
    if len(arrays) <= 1:
        return tuple(parts)
    return np.ix_(
        *(
            np.arange(length)[part] if isinstance(part, slice) else part
            for part, length in zip(parts, shape, strict=False)  # the last axes may belong to the elements
        )
    )
