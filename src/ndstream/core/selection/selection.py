"""Selections as values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Span:
    """`count` indices from `start`, `step` apart; `step` may be negative, never zero."""

    start: int
    count: int
    step: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Many ranges of one axis, put one behind the other: the multi-slice of one request.

    `starts` and `counts` are int64 arrays of equal length; ranges may overlap, repeat and come in any order.
    """

    starts: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """Single indices of one axis (int64, in range, not negative), in any order, repeated or not."""

    indices: NDArray[np.int64]


Axis: TypeAlias = Span | Spans | Picks


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
        raise NotImplementedError

    @property
    def count(self) -> int:
        """Number of elements selected, repeated ones counted each time."""
        raise NotImplementedError

    @property
    def is_everything(self) -> bool:
        """Whether this is the whole array in its own order and shape."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Smallest box that holds the selection: (start, stop) per source axis, stop == start when empty."""
        raise NotImplementedError

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Take the selection from a local array of shape `source` (the reference for all other ways)."""
        raise NotImplementedError

    def compose(self, inner: Selection) -> Selection:
        """Take `inner`, a selection from an array of shape ``self.shape``, from what this one selects."""
        raise NotImplementedError

    def blocks(self, most: int, chunks: tuple[int, ...] | None = None) -> Iterator[Selection]:
        """Cut into selections of at most `most` elements, whose results in turn are the result in C order.

        Cuts fall on the grid of `chunks` where `most` allows it, so that few chunks are needed by two blocks. Lazy:
        nothing of the size of the selection is made.
        """
        raise NotImplementedError

    def over(self, chunks: tuple[int, ...]) -> Iterator[Part]:
        """Split over a chunk grid: every chunk that is touched, once, with where its elements go."""
        raise NotImplementedError

    def runs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Contiguous runs in the flattened source (starts, lengths, in elements), in the order of the result.

        Neighbouring runs that continue each other are merged. Of the size of the number of runs: call it on a block.
        """
        raise NotImplementedError
