"""Cutting a result into blocks of bounded size, in C order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from ndstream.core.selection.axes import Axis, Picks, Span

Box: TypeAlias = "list[tuple[int, int]]"


def boxes(counts: list[int], most: int, cut: Callable[[int, int, int], int]) -> Iterator[Box]:
    """Cut a box with `counts` elements along its dimensions into parts of at most `most` elements.

    The parts are (start, stop) per dimension and follow each other in C order: whole in the dimensions behind the one
    that is cut, one index wide before it. ``cut(dim, start, stop)`` may move an end to before `stop`, not to `start`.
    """
    if 0 in counts:
        return
    dim, inner = len(counts), 1
    while dim and inner * counts[dim - 1] <= most:
        dim -= 1
        inner *= counts[dim]
    behind = [(0, count) for count in counts[dim:]]
    if dim == 0:
        yield behind
        return
    dim -= 1
    longest, count = most // inner, counts[dim]
    for number in range(math.prod(counts[:dim])):
        before = _single(number, counts[:dim])
        start = 0
        while start < count:
            stop = min(start + longest, count)
            if stop < count:
                stop = cut(dim, start, stop)
            yield [*before, (start, stop), *behind]
            start = stop


def _single(number: int, counts: list[int]) -> Box:
    """Box of the one element that is `number` in C order."""
    box = []
    for count in reversed(counts):
        number, index = divmod(number, count)
        box.append((index, index + 1))
    return box[::-1]


def edge(axis: Axis, start: int, stop: int, chunk: int) -> int:
    """Last position between `start`, excluded, and `stop` where another chunk begins; `stop` when there is none.

    `stop` is a position of the axis.
    """
    if isinstance(axis, Span):
        return _span_edge(axis, start, stop, chunk)
    if isinstance(axis, Picks):
        changes = np.flatnonzero(np.diff(axis.indices[start : stop + 1] // chunk))
        return start + int(changes[-1]) + 1 if changes.size else stop
    starts, counts = axis.take(start, stop + 1).runs()
    ends = starts + counts
    before = start + np.cumsum(counts) - counts
    first, last = starts // chunk, (ends - 1) // chunk
    inside = (before + last * chunk - starts)[first != last]
    between = before[1:][first[1:] != last[:-1]]
    found = max(int(inside.max(initial=start)), int(between.max(initial=start)))
    return found if found > start else stop


def _span_edge(axis: Span, start: int, stop: int, chunk: int) -> int:
    """First position in the chunk that holds the index at `stop`."""
    number = (axis.start + stop * axis.step) // chunk
    if axis.step > 0:
        found = -((axis.start - number * chunk) // axis.step)
    else:
        found = -((number * chunk + chunk - 1 - axis.start) // -axis.step)
    return found if found > start else stop
