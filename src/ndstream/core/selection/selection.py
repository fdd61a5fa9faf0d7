"""Selections as values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.selection.axes import Axis, Indices, Picks, Span, pick
from ndstream.core.selection.blocks import boxes, edge
from ndstream.core.selection.grid import Grid, Part
from ndstream.core.selection.runs import runs
from ndstream.errors import InvalidSelection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """Elements of an array of shape `source`, as one entry per axis of it.

    Entries are combined as an outer product, except those named in `joint`: these are all `Picks` of one length and
    go together point by point (numpy's rule for several index arrays, and for a mask of the whole shape). Axes in
    `dropped` were selected by an integer: they hold one index and are not in the shape of the result. The points of
    `joint` appear in the result as `joint_shape`, before the `joint_at`-th of the other axes that are kept.
    """

    source: tuple[int, ...]
    axes: tuple[Axis, ...]
    dropped: frozenset[int] = frozenset()
    joint: tuple[int, ...] = ()
    joint_shape: tuple[int, ...] = ()
    joint_at: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        if not self.joint:
            return tuple([axis.count for number, axis in enumerate(self.axes) if number not in self.dropped])
        kept = [self.axes[number].count for number in self._alone()]
        return (*kept[: self.joint_at], *self.joint_shape, *kept[self.joint_at :])

    @property
    def count(self) -> int:
        """Number of elements selected, repeated ones counted each time."""
        if not self.joint:
            return math.prod([axis.count for axis in self.axes])
        return math.prod([self.axes[number].count for number in self.order])

    @property
    def is_everything(self) -> bool:
        """Whether this is the whole array in its own order and shape."""
        if self.dropped or self.joint:
            return False
        return all(axis == Span(0, side) for axis, side in zip(self.axes, self.source, strict=True))

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Smallest box that holds the selection: (start, stop) per source axis, stop == start when empty."""
        if self.count == 0:
            return ((0, 0),) * len(self.axes)
        return tuple([axis.bounds() for axis in self.axes])

    @property
    def run_start(self) -> int | None:
        """Where the result begins in the flattened source if it is one contiguous run of it; None for others.

        Runs that only happen to continue each other are not found: nothing is listed.
        """
        if self.joint:
            return None
        start, stride, whole = 0, 1, True
        for axis, side in zip(reversed(self.axes), reversed(self.source), strict=True):
            if not isinstance(axis, Span) or (axis.count > 1 and (axis.step != 1 or not whole)):
                return None
            start += axis.start * stride
            stride *= side
            whole = whole and axis.count == side
        return start

    @property
    def order(self) -> tuple[int, ...]:
        """Source axes in the order they have in the result, dropped ones left out; `joint` is there with its first."""
        if not self.joint and not self.dropped:
            return tuple(range(len(self.axes)))
        alone = self._alone()
        return (*alone[: self.joint_at], *self.joint[:1], *alone[self.joint_at :])

    @property
    def dims(self) -> dict[int, range]:
        """Dimensions of the result that each kept axis runs over; joint axes share theirs."""
        found = {}
        dim = 0
        for number in self.order:
            length = len(self.joint_shape) if number in self.joint else 1
            found[number] = range(dim, dim + length)
            dim += length
        if self.joint:
            found |= dict.fromkeys(self.joint, found[self.joint[0]])
        return found

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Take the selection from a local array of shape `source` (the reference for all other ways).

        Returns
        -------
        ndarray of `shape`
            A view where only spans and ints are selected, else a copy.

        Raises
        ------
        InvalidSelection
            When the array has another shape.
        """
        if array.shape != self.source:
            raise InvalidSelection(f"a selection from shape {self.source} for an array of shape {array.shape}")
        # The ellipses keep an array of rank 0 an array: as a scalar it would lose its byte order.
        index: list[Any] = [axis.slice if isinstance(axis, Span) else slice(None) for axis in self.axes]
        taken = array[(*index, ...)]
        for number, axis in enumerate(self.axes):
            if number not in self.joint and not isinstance(axis, Span):
                taken = taken.take(axis.expand(), number)
        if not self.joint:
            index = [0 if number in self.dropped else slice(None) for number in range(taken.ndim)]
            return taken[(*index, ...)]
        taken = np.moveaxis(taken, self.joint, range(len(self.joint)))
        taken = taken[tuple([self.axes[number].expand() for number in self.joint])]
        kept = [self.axes[number].count for number in self._alone()]
        taken = taken.reshape(*self.joint_shape, *kept)
        there = range(self.joint_at, self.joint_at + len(self.joint_shape))
        return np.moveaxis(taken, range(len(self.joint_shape)), there)

    def compose(self, inner: Selection) -> Selection:
        """Take `inner`, a selection from an array of shape ``self.shape``, from what this one selects.

        Where both have joint points these become one list of points: of the size of their product, at worst of the
        result.

        Raises
        ------
        InvalidSelection
            When `inner` selects from another shape.
        """
        if inner.source != self.shape:
            raise InvalidSelection(f"a selection from shape {inner.source} for a result of shape {self.shape}")
        if self.joint or inner.joint:
            return _tie(self, inner)
        axes = list(self.axes)
        for dim, number in enumerate(self.order):
            axes[number] = axes[number].compose(inner.axes[dim])
        dropped = [number for dim, number in enumerate(self.order) if dim in inner.dropped]
        return Selection(source=self.source, axes=tuple(axes), dropped=self.dropped.union(dropped))

    def blocks(self, most: int, chunks: tuple[int, ...] | None = None) -> Iterator[Selection]:
        """Cut into selections of at most `most` elements, whose results in turn are the result in C order.

        Cuts fall on the grid of `chunks` where `most` allows it, so that few chunks are needed by two blocks. Lazy:
        nothing of the size of the selection is made.

        Raises
        ------
        ValueError
            When `most` is not positive, or `chunks` not one positive length for each axis.
        """
        if most < 1:
            raise ValueError(f"blocks of at most {most} elements")
        if chunks is not None:
            self._check(chunks)
        order = self.order
        counts = [self.axes[number].count for number in order]

        def cut(dim: int, start: int, stop: int) -> int:
            number = order[dim]
            return stop if chunks is None else edge(self.axes[number], start, stop, chunks[number])

        return map(self._within, boxes(counts, most, cut))

    def over(self, chunks: tuple[int, ...]) -> Iterator[Part]:
        """Split over a chunk grid: every chunk that is touched, once, with where its elements go.

        Parts come in C order of the grid. Needs memory for the index arrays of every axis: call it on a block.

        Raises
        ------
        ValueError
            When `chunks` is not one positive length for each axis.
        """
        self._check(chunks)
        single = self._part_of_one(chunks)
        if single is not None:
            return iter((single,))
        places = {number: dim for dim, number in enumerate(self.order)}
        if self.joint:
            places |= dict.fromkeys(self.joint, places[self.joint[0]])
        grid = Grid(
            axes=self.axes,
            dims=tuple([places.get(number, -1) for number in range(len(self.axes))]),
            joint=self.joint,
            joint_shape=self.joint_shape,
            source=self.source,
            chunks=chunks,
        )
        return grid.parts()

    def runs(self) -> tuple[Indices, Indices]:
        """Contiguous runs in the flattened source (starts, lengths, in elements), in the order of the result.

        Neighbouring runs that continue each other are merged. Of the size of the number of runs: call it on a block.

        Raises
        ------
        TooLarge
            When positions in the flattened source do not fit in 64 bits.
        """
        return runs(self.source, self.axes, (*self.dropped, *self.order), self.joint)

    def _check(self, chunks: tuple[int, ...]) -> None:
        if len(chunks) != len(self.source) or any(chunk < 1 for chunk in chunks):
            raise ValueError(f"chunks of shape {chunks} for an array of shape {self.source}")

    def _part_of_one(self, chunks: tuple[int, ...]) -> Part | None:
        """Find the part when all is in one chunk of the grid; None when it is not, or cannot be told at a glance."""
        if self.joint:
            return None
        chunk: list[int] = []
        source: list[int | slice] = []
        target: list[slice] = []
        whole = True
        for number, (axis, side, extent) in enumerate(zip(self.axes, chunks, self.source, strict=True)):
            if not isinstance(axis, Span) or axis.step != 1 or not axis.count:
                return None
            row, first = divmod(axis.start, side)
            stop = first + axis.count
            if stop > side:
                return None
            chunk.append(row)
            whole = whole and axis.count == min(side, extent - row * side)
            if number in self.dropped:
                source.append(first)
            else:
                source.append(slice(first, stop, 1))
                target.append(slice(0, axis.count, 1))
        return Part(tuple(chunk), tuple(source), tuple(target), whole)

    def _alone(self) -> list[int]:
        """Axes that are kept and not joint."""
        return [number for number in range(len(self.axes)) if number not in self.dropped and number not in self.joint]

    def _within(self, box: list[tuple[int, int]]) -> Selection:
        """Take the positions (start, stop) of each dimension of the result, joint points as one dimension."""
        axes = list(self.axes)
        shape = self.joint_shape
        for number, (start, stop) in zip(self.order, box, strict=True):
            if number in self.joint:
                if stop - start < axes[number].count:
                    shape = (stop - start,)
                for k in self.joint:
                    axes[k] = Picks(self.axes[k].expand()[start:stop])
            elif stop - start < axes[number].count:
                axes[number] = axes[number].take(start, stop)
        return Selection(
            source=self.source,
            axes=tuple(axes),
            dropped=self.dropped,
            joint=self.joint,
            joint_shape=shape,
            joint_at=self.joint_at,
        )


def _tie(outer: Selection, inner: Selection) -> Selection:
    """Compose when points are involved.

    An axis is tied when its indices depend on points of `outer` or of `inner`; so is one whose dimension lies between
    those, because the points stand together in the result.
    """
    mine, theirs = outer.dims, inner.dims
    tied = {number for number, dims in mine.items() if number in outer.joint or dims.start in inner.joint}
    reached = [theirs[dim] for number in tied for dim in mine[number] if dim in theirs]
    low, high = min([dims.start for dims in reached], default=0), max([dims.stop for dims in reached], default=0)
    for number, dims in mine.items():
        if number not in tied and dims.start in theirs and theirs[dims.start].start in range(low, high):
            tied.add(number)
    shape = inner.shape[low:high]

    def positions(dim: int) -> Indices:
        # Of the points, in a dimension of the outer result; shaped for broadcasting.
        dims = theirs.get(dim, range(low, low))
        sides = inner.shape[dims.start : dims.stop]
        return inner.axes[dim].expand().reshape((1,) * (dims.start - low) + sides + (1,) * (high - dims.stop))

    axes = list(outer.axes)
    dropped = set(outer.dropped)
    for number, dims in mine.items():
        axis = axes[number]
        if number in outer.joint:
            points = axis.expand().reshape(outer.joint_shape)[tuple([positions(dim) for dim in dims])]
        elif number in tied:
            points = axis.at(positions(dims.start))
        else:
            axes[number] = axis.compose(inner.axes[dims.start])
            if dims.start in inner.dropped:
                dropped.add(number)
            continue
        axes[number] = Picks(np.broadcast_to(points, shape).reshape(-1))
    joint = tuple(sorted(tied))
    before = [number for number in range(joint[0]) if number not in dropped]
    if not reached or (len(joint) == len(shape) == 1 and len(before) == low):
        # One point that ints chose, or the points of one axis in its own place: not joint any more.
        axes = [pick(axis.expand()) if number in tied else axis for number, axis in enumerate(axes)]
        dropped |= set() if reached else tied
        return Selection(source=outer.source, axes=tuple(axes), dropped=frozenset(dropped))
    return Selection(
        source=outer.source,
        axes=tuple(axes),
        dropped=frozenset(dropped),
        joint=joint,
        joint_shape=shape,
        joint_at=low,
    )
