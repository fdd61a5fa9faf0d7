"""Splitting a selection over a grid of chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from ndstream.core.selection.axes import Axis, Indices, Picks, Span, Spans, regular
from ndstream.core.selection.mesh import Entry, Index, ordered


@dataclass(frozen=True, slots=True)
class Part:
    """What a selection takes from one chunk of a grid.

    Attributes
    ----------
    chunk
        Position of the chunk in the grid, one number per source axis.
    source
        Numpy index into the chunk (an array of the full chunk shape).
    target
        Numpy index into the result such that ``result[target] = chunk[source]``.
    whole
        True when the part is the entire chunk (clipped to the array), in order: its bytes can be decoded in place.
    """

    chunk: tuple[int, ...]
    source: tuple[Any, ...]
    target: tuple[Any, ...]
    whole: bool


class _Group(NamedTuple):
    """What an axis takes from one row of chunks: `length` indices, `local` in the chunk, `where` in the result.

    `local` is an int for an axis that is dropped; `sliced` says that neither is an array.
    """

    chunk: int
    local: Index | int
    where: Index
    length: int
    whole: bool
    sliced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The axes of a selection on a grid of chunks.

    Attributes
    ----------
    axes, joint, joint_shape
        As in `Selection`.
    dims
        For each axis its place among the dimensions of the result, -1 when dropped; the points of `joint` count as
        one dimension.
    source, chunks
        Shape of the array and of its chunks.
    """

    axes: tuple[Axis, ...]
    dims: tuple[int, ...]
    joint: tuple[int, ...]
    joint_shape: tuple[int, ...]
    source: tuple[int, ...]
    chunks: tuple[int, ...]

    def parts(self) -> Iterator[Part]:
        """Yield the part of every chunk that is touched, in C order of the grid."""
        if any(axis.count == 0 for axis in self.axes):
            return
        if self.joint:
            yield from self._joint_parts()
        elif self.axes:
            later = [list(self._groups(axis)) for axis in range(1, len(self.axes))]
            for first in self._groups(0):
                for groups in product((first,), *later):
                    yield self._part(groups)
        else:
            yield Part((), (), (), True)

    def _groups(self, axis: int) -> Iterator[_Group]:
        """Split one axis over its chunks, ascending."""
        entry, chunk, side = self.axes[axis], self.chunks[axis], self.source[axis]
        if self.dims[axis] < 0:
            return _single_group(entry.bounds()[0], chunk, side)
        if isinstance(entry, Span):
            return _span_groups(entry, chunk, side)
        if isinstance(entry, Picks):
            return _pick_groups(entry.indices, chunk, side)
        return _range_groups(entry, chunk, side)

    def _part(self, groups: Sequence[_Group]) -> Part:
        """Combine what the axes take from one chunk as an outer product."""
        chunk = tuple([group.chunk for group in groups])
        whole = all([group.whole for group in groups])  # noqa: C419  twice as fast, once per chunk
        if all([group.sliced for group in groups]):  # noqa: C419
            target = tuple([group.where for group, dim in zip(groups, self.dims, strict=True) if dim >= 0])
            return Part(chunk, tuple([group.local for group in groups]), target, whole)
        placed = list(zip(groups, self.dims, strict=True))
        source = ordered([_entry(group.local, dim, group.length) for group, dim in placed])
        target = ordered([_entry(group.where, dim, group.length) for group, dim in placed if dim >= 0])
        return Part(chunk, source, target, whole)

    def _joint_parts(self) -> Iterator[Part]:
        """Yield the parts of a selection with joint points."""
        rows = {axis: self.axes[axis].expand() // self.chunks[axis] for axis in self.joint}
        order = np.lexsort([rows[axis] for axis in reversed(self.joint)])
        rows = {axis: row[order] for axis, row in rows.items()}
        others = {axis: list(self._groups(axis)) for axis in range(len(self.axes)) if axis not in rows}

        def walk(axis: int, low: int, high: int, chosen: tuple[_Group | int, ...]) -> Iterator[Part]:
            # The points from low to high of `order` are those in the rows of chunks chosen so far.
            if axis == len(self.axes):
                yield self._joint_part(chosen, order[low:high])
            elif axis in others:
                for group in others[axis]:
                    yield from walk(axis + 1, low, high, (*chosen, group))
            else:
                for start, stop in _equal(rows[axis][low:high]):
                    row = int(rows[axis][low + start])
                    yield from walk(axis + 1, low + start, low + stop, (*chosen, row))

        yield from walk(0, 0, order.size, ())

    def _joint_part(self, chosen: Sequence[_Group | int], points: Indices) -> Part:
        """Combine the points that lie in one chunk with what the other axes take from it."""
        chunk = []
        source = []
        target: dict[int, list[Entry | int]] = {}
        for axis, (group, dim) in enumerate(zip(chosen, self.dims, strict=True)):
            if isinstance(group, int):
                chunk.append(group)
                source.append(_entry(self.axes[axis].expand()[points] - group * self.chunks[axis], dim, points.size))
                target[dim] = [_entry(index, dim, points.size) for index in self._scatter(points)]
            else:
                chunk.append(group.chunk)
                source.append(_entry(group.local, dim, group.length))
                if dim >= 0:
                    target[dim] = [_entry(group.where, dim, group.length)]
        entries = [entry for dim in sorted(target) for entry in target[dim]]
        return Part(tuple(chunk), ordered(source), ordered(entries), whole=False)

    def _scatter(self, points: Indices) -> list[Index]:
        """Where points go in the dimensions of the result that are theirs."""
        if len(self.joint_shape) == 1:
            return [_index(points)]
        return list(np.unravel_index(points, self.joint_shape))


def _entry(index: Index | int, dim: int, length: int) -> Entry | int:
    return index if isinstance(index, int) else Entry(index, dim, length)


def _equal(rows: Indices) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of every stretch of equal numbers."""
    return pairwise([0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), rows.size])


def _index(indices: Indices) -> Index:
    """Read as a slice, if regular."""
    span = regular(indices)
    return indices if span is None else span.slice


def _single_group(index: int, chunk: int, side: int) -> Iterator[_Group]:
    row, local = divmod(index, chunk)
    yield _Group(row, local, slice(0, 1, 1), 1, min(chunk, side - row * chunk) == 1, True)


def _span_groups(span: Span, chunk: int, side: int) -> Iterator[_Group]:
    step, count = abs(span.step), span.count
    lowest = span.bounds()[0]
    # Chunks come in ascending order, so a span that descends is gone through from its end.
    done = 0
    while done < count:
        index = lowest + done * step
        origin = index - index % chunk
        extent = min(chunk, side - origin)
        stop = min(count, (origin + extent - 1 - lowest) // step + 1)
        length = stop - done
        if span.step > 0:
            local = slice(index - origin, index - origin + (length - 1) * step + 1, step)
            where = slice(done, stop, 1)
        else:
            local = Span(index - origin + (length - 1) * step, length, -step).slice
            where = slice(count - stop, count - done, 1)
        yield _Group(origin // chunk, local, where, length, length == extent and (span.step == 1 or length == 1), True)
        done = stop


def _pick_groups(indices: Indices, chunk: int, side: int) -> Iterator[_Group]:
    rows = indices // chunk
    positions = _ascending(rows)
    if positions is not None:
        rows, indices = rows[positions], indices[positions]
    for start, stop in _equal(rows):
        row = int(rows[start])
        where = slice(start, stop, 1) if positions is None else _index(positions[start:stop])
        yield _group(row, indices[start:stop] - row * chunk, where, min(chunk, side - row * chunk))


def _range_groups(spans: Spans, chunk: int, side: int) -> Iterator[_Group]:
    # Ranges are cut at the edges of chunks first; indices are written out for one chunk at a time.
    before = np.cumsum(spans.counts) - spans.counts
    first, last = spans.starts // chunk, (spans.starts + spans.counts - 1) // chunk
    pieces = np.where(spans.counts > 0, last - first + 1, 0)
    which = np.repeat(np.arange(pieces.size), pieces)
    rows = first[which] + np.arange(which.size) - (np.cumsum(pieces) - pieces)[which]
    low = np.maximum(spans.starts[which], rows * chunk)
    counts = np.minimum((spans.starts + spans.counts)[which], rows * chunk + chunk) - low
    where = before[which] + low - spans.starts[which]
    positions = _ascending(rows)
    if positions is not None:
        rows, low, counts, where = rows[positions], low[positions], counts[positions], where[positions]
    for start, stop in _equal(rows):
        row = int(rows[start])
        local = Spans(low[start:stop] - row * chunk, counts[start:stop]).expand()
        target = _index(Spans(where[start:stop], counts[start:stop]).expand())
        yield _group(row, local, target, min(chunk, side - row * chunk))


def _ascending(rows: Indices) -> Indices | None:
    """Positions that sort `rows`, equal ones in their order; None when they are in order."""
    return None if (rows[1:] >= rows[:-1]).all() else np.argsort(rows, kind="stable")


def _group(row: int, indices: Indices, where: Index, extent: int) -> _Group:
    local = _index(indices)
    if not isinstance(local, slice) or not isinstance(where, slice):
        return _Group(row, local, where, indices.size, False, False)
    return _Group(row, local, where, indices.size, local == slice(0, extent, 1) and where.step == 1, True)


def chunk_counts(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """How many chunks of one shape an array has along each axis, those that stick out of it included."""
    return tuple([-(-side // length) for side, length in zip(shape, chunks, strict=True)])
