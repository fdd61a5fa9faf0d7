"""What a selection takes from one axis: a regular span, many ranges, or single indices.

The three classes answer to the same methods, so that the rest of the algebra rarely asks which one it has. Positions
count along the result, indices along the source; both are int64 and start at zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.errors import TooLarge

Indices: TypeAlias = NDArray[np.int64]

LARGEST = (1 << 63) - 1
"""Largest number that an index array can hold."""

_WINDOW = 1 << 16  # indices or ranges looked at in one go
_GROUP = 4096  # ranges that share one entry of the position index of `Spans`


@dataclass(frozen=True, slots=True)
class Span:
    """`count` indices from `start`, `step` apart; `step` may be negative, never zero."""

    start: int
    count: int
    step: int = 1

    @property
    def last(self) -> int:
        """The last index; without meaning when there is none."""
        return self.start + (self.count - 1) * self.step

    @property
    def slice(self) -> slice:
        """The same as a slice."""
        stop = self.start + self.count * self.step
        # Below zero a stop would count from the end.
        return slice(self.start, stop if stop >= 0 else None, self.step)

    def bounds(self) -> tuple[int, int]:
        """Smallest range (start, stop) that holds every index."""
        if self.count == 0:
            return self.start, self.start
        return (self.start, self.last + 1) if self.step > 0 else (self.last, self.start + 1)

    def expand(self) -> Indices:
        """Every index, in order."""
        return self.at(np.arange(self.count, dtype=np.int64))

    def at(self, positions: Indices) -> Indices:
        """Indices at these positions; a new array."""
        return positions * self.step + self.start

    def take(self, start: int, stop: int) -> Span:
        """The part between two positions."""
        return Span(self.start + start * self.step, stop - start, self.step)

    def compose(self, inner: Axis) -> Axis:
        """Select by `inner` from what this selects."""
        if isinstance(inner, Span):
            return span(self.start + self.step * inner.start, inner.count, self.step * inner.step)
        if isinstance(inner, Spans) and self.step == 1:
            return Spans(inner.starts + self.start, inner.counts)
        return pick(self.at(inner.expand()))

    def runs(self) -> tuple[Indices, Indices]:
        """Starts and lengths of ascending runs without gaps, in order."""
        if self.step == 1 and self.count:
            return np.array([self.start], np.int64), np.array([self.count], np.int64)
        return self.expand(), np.ones(self.count, np.int64)

    def simplest(self) -> Span:
        """The same in its plainest form."""
        return span(self.start, self.count, self.step)


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Many ranges of one axis, put one behind the other: the multi-slice of one request.

    `starts` and `counts` are int64 arrays of equal length; ranges may overlap, repeat and come in any order. They are
    kept, not copied, and must not change.

    Raises
    ------
    TooLarge
        When the ranges together hold more indices than a 64-bit number can count.
    """

    starts: Indices
    counts: Indices
    # Positions that are reached after every _GROUP ranges: finds a position without a full running sum, which would
    # take as much memory again as the ranges themselves.
    _reached: Indices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        counts = self.counts
        if counts.size and int(counts.max()) * counts.size > LARGEST and float(counts.sum(dtype=float)) > 2.0**62:
            raise TooLarge(f"{counts.size} ranges hold more elements than can be counted")
        groups = np.arange(0, counts.size, _GROUP)
        sums = np.add.reduceat(counts, groups) if counts.size else np.zeros(0, np.int64)
        object.__setattr__(self, "_reached", np.cumsum(sums, dtype=np.int64))

    @property
    def count(self) -> int:
        """Number of indices in all ranges."""
        return int(self._reached[-1]) if self._reached.size else 0

    def bounds(self) -> tuple[int, int]:
        """Smallest range (start, stop) that holds every index."""
        low, high = LARGEST, 0
        for window in windows(self.counts.size):
            held = self.counts[window] > 0
            starts = self.starts[window][held]
            low = min(low, int(starts.min(initial=LARGEST)))
            high = max(high, int((starts + self.counts[window][held]).max(initial=0)))
        return (low, high) if high else (0, 0)

    def expand(self) -> Indices:
        """Every index, in order."""
        before = np.cumsum(self.counts) - self.counts
        found: Indices = np.arange(self.count, dtype=np.int64) + np.repeat(self.starts - before, self.counts)
        return found

    def at(self, positions: Indices) -> Indices:
        """Indices at these positions; a new array."""
        after = np.cumsum(self.counts)
        which = np.searchsorted(after, positions, side="right")
        found: Indices = self.starts[which] + positions - (after[which] - self.counts[which])
        return found

    def take(self, start: int, stop: int) -> Axis:
        """The part between two positions."""
        first, skipped = self._locate(start)
        last, used = self._locate(stop)
        window = slice(first, last + 1 if used else last)
        starts, counts = self.starts[window].copy(), self.counts[window].copy()
        if used:
            counts[-1] = used
        if skipped:
            starts[0] += skipped
            counts[0] -= skipped
        return Spans(starts, counts).simplest()

    def compose(self, inner: Axis) -> Axis:
        """Select by `inner` from what this selects."""
        if isinstance(inner, Span) and inner.step == 1:
            return self.take(inner.start, inner.start + inner.count)
        return pick(self.at(inner.expand()))

    def runs(self) -> tuple[Indices, Indices]:
        """Starts and lengths of ascending runs without gaps, in order."""
        held = self.counts > 0
        if held.all():
            return merged(self.starts, self.counts)
        return merged(self.starts[held], self.counts[held])

    def simplest(self) -> Axis:
        """The same in its plainest form: a `Span` when regular, `Picks` when no range is longer than one."""
        starts, counts = self.starts, self.counts
        if self.count == 0:
            return Span(0, 0)
        if starts.size == 1:
            return Span(int(starts[0]), int(counts[0]))
        if counts.max() == 1 == counts.min():
            return pick(starts)
        for window in windows(starts.size - 1):
            ends = starts[window] + counts[window]
            if (ends != starts[window.start + 1 : window.stop + 1]).any():
                return self
        return Span(int(starts[0]), self.count)

    def _locate(self, position: int) -> tuple[int, int]:
        """Range that holds a position, and how far inside; one behind the last range for the end."""
        group = int(np.searchsorted(self._reached, position, side="right"))
        if group == self._reached.size:
            return self.starts.size, 0
        inside = position - (int(self._reached[group - 1]) if group else 0)
        after = np.cumsum(self.counts[group * _GROUP : (group + 1) * _GROUP])
        which = int(np.searchsorted(after, inside, side="right"))
        return group * _GROUP + which, inside - (int(after[which - 1]) if which else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """Single indices of one axis (int64, in range, not negative), in any order, repeated or not."""

    indices: Indices

    @property
    def count(self) -> int:
        """Number of indices."""
        return self.indices.size

    def bounds(self) -> tuple[int, int]:
        """Smallest range (start, stop) that holds every index."""
        if self.indices.size == 0:
            return 0, 0
        return int(self.indices.min()), int(self.indices.max()) + 1

    def expand(self) -> Indices:
        """Every index, in order; not a copy."""
        return self.indices

    def at(self, positions: Indices) -> Indices:
        """Indices at these positions; a new array."""
        return self.indices[positions]

    def take(self, start: int, stop: int) -> Picks:
        """The part between two positions; a view."""
        return Picks(self.indices[start:stop])

    def compose(self, inner: Axis) -> Axis:
        """Select by `inner` from what this selects."""
        if isinstance(inner, Span):
            return pick(self.indices[inner.slice])
        return pick(self.at(inner.expand()))

    def runs(self) -> tuple[Indices, Indices]:
        """Starts and lengths of ascending runs without gaps, in order."""
        return merged(self.indices, np.ones(self.indices.size, np.int64))

    def simplest(self) -> Axis:
        """The same in its plainest form: a `Span` when regular."""
        return pick(self.indices)


Axis: TypeAlias = Span | Spans | Picks


def windows(size: int) -> Iterator[slice]:
    """Slices that cover `size` in turn: checks then need no memory of the size of a request, and may end early."""
    return (slice(start, min(start + _WINDOW, size)) for start in range(0, size, _WINDOW))


def span(start: int, count: int, step: int = 1) -> Span:
    """Build a `Span` in its plainest form: no start without an index, no step without a second one."""
    if count > 1:
        return Span(start, count, step)
    return Span(start, 1) if count == 1 else Span(0, 0)


def regular(indices: Indices) -> Span | None:
    """Read `indices` as a `Span`; None when they are not evenly spaced."""
    count = indices.size
    if count < 2:
        return Span(int(indices[0]), 1) if count else Span(0, 0)
    start, step = int(indices[0]), int(indices[1]) - int(indices[0])
    # The last index settles it nearly always.
    if step == 0 or start + step * (count - 1) != indices[-1]:
        return None
    for window in windows(count - 1):
        if (np.diff(indices[window.start : window.stop + 1]) != step).any():
            return None
    return Span(start, count, step)


def pick(indices: Indices) -> Span | Picks:
    """Build what selects `indices`, in its plainest form; they are kept, not copied."""
    return regular(indices) or Picks(indices)


def merged(starts: Indices, counts: Indices) -> tuple[Indices, Indices]:
    """Merge neighbouring ranges of which one continues the other; none of them is empty."""
    if starts.size < 2:
        return starts, counts
    breaks = np.flatnonzero(starts[1:] != starts[:-1] + counts[:-1]) + 1
    if breaks.size == starts.size - 1:
        return starts, counts
    first = np.concatenate((np.zeros(1, np.int64), breaks))
    return starts[first], np.add.reduceat(counts, first)
