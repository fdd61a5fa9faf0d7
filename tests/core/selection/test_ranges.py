"""Many ranges of the first axis in one request."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.selection import Picks, Span, Spans, ranges
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge
from ndstream.testing.strategies import multi_slices, numbered, shapes


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_ranges_come_one_behind_the_other(data: st.DataObject) -> None:
    array = numbered((data.draw(st.integers(0, 9)), *data.draw(shapes(max_rank=2))))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, len(array)), st.integers(0, 9)), max_size=8))
    pairs = [(start, min(count, len(array) - start)) for start, count in pairs]
    starts, counts = np.array(pairs, np.int64).reshape(-1, 2).T
    rest = [(side // 3, side - side // 3) for side in array.shape[1:]]
    inside = array[(slice(None), *[slice(start, start + count) for start, count in rest])]
    wanted = np.concatenate([inside[:0], *[inside[start : start + count] for start, count in pairs]])
    selection = ranges(array.shape, starts, counts, rest)
    np.testing.assert_array_equal(selection.apply(array), wanted)
    assert selection.shape == wanted.shape


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_part_of_an_axis_is_found(data: st.DataObject) -> None:
    (axis,) = data.draw(multi_slices((50,))).axes
    every = axis.expand()
    start = data.draw(st.integers(0, axis.count))
    stop = data.draw(st.integers(start, axis.count))
    np.testing.assert_array_equal(axis.take(start, stop).expand(), every[start:stop])
    assert axis.bounds() == ((every.min(), every.max() + 1) if every.size else (0, 0))


def test_positions_are_found_among_very_many_ranges() -> None:
    number = 20_000
    starts = np.random.default_rng(1).permutation(number).astype(np.int64) * 5
    counts = starts % 3 + 1
    (axis,) = ranges((5 * number,), starts, counts).axes
    every = axis.expand()
    assert axis.count == counts.sum() == every.size
    for start in (0, 1, 8191, 8192, 8193, 20_000, every.size - 1):
        np.testing.assert_array_equal(axis.take(start, start + 100).expand(), every[start : start + 100])


@pytest.mark.parametrize(
    ("starts", "counts", "axis"),
    [
        ([3], [4], Span(3, 4)),
        ([3, 5, 8], [2, 3, 1], Span(3, 6)),
        ([3, 9, 5], [2, 0, 1], Span(3, 3)),
        ([1, 4, 7], [1, 1, 1], Span(1, 3, 3)),
        ([7, 4], 1, Span(7, 2, -3)),
        ([5, 5], [0, 0], Span(0, 0)),
        ([], [], Span(0, 0)),
        (2, 3, Span(2, 3)),
    ],
)
def test_regular_ranges_become_a_span(starts: Any, counts: Any, axis: Span) -> None:
    assert ranges((10,), starts, counts).axes == (axis,)


def test_ranges_of_one_index_become_a_list() -> None:
    (axis,) = ranges((10,), [1, 2, 5], 1).axes
    assert isinstance(axis, Picks)
    (axis,) = ranges((10,), [1, 2, 5], [1, 1, 2]).axes
    assert isinstance(axis, Spans)


@pytest.mark.parametrize(
    ("starts", "counts", "reason"),
    [
        ([0, -1], [1, 1], "range 1, -1:0, leaves axis 0"),
        ([0, 9], [1, 2], "range 1, 9:11, leaves axis 0"),
        ([11], [0], "range 0, 11:11, leaves"),
        ([5], [(1 << 63) - 1], "leaves axis 0 of size 10"),
        (np.array([1 << 63], np.uint64), [1], "go up to 9223372036854775808"),
    ],
)
def test_ranges_stay_inside(starts: Any, counts: Any, reason: str) -> None:
    with pytest.raises(OutOfBounds, match=reason):
        ranges((10, 4), starts, counts, [(0, 4)])


@pytest.mark.parametrize("rest", [(-1, 2), (3, 2), (5, 0), (1 << 62, 1 << 62)])
def test_the_other_axes_stay_inside(rest: tuple[int, int]) -> None:
    with pytest.raises(OutOfBounds, match="leaves axis 1 of size 4"):
        ranges((10, 4), [0], [1], [rest])


@pytest.mark.parametrize(
    ("shape", "starts", "counts", "rest", "reason"),
    [
        ((10, 4), [0], [1], [], "ranges of 1 axes for an array of 2"),
        ((), [0], [1], [], "ranges of 1 axes for an array of 0"),
        ((10,), [0, 1], [-1, -2], [], "range 1 has a length of -2"),
        ((10, 4), [0], [1], [(0, -1)], "range of -1 indices of axis 1"),
        ((10,), [0, 1, 2], [1, 1], [], "3 starts do not go with 2 counts"),
        ((10,), [[0]], [1], [], "1 starts do not go"),
        ((10,), [0.5], [1], [], "float64, not integers"),
        ((10,), [0], [True], [], "bool, not integers"),
    ],
)
def test_refuses_what_is_no_range(shape: Any, starts: Any, counts: Any, rest: Any, reason: str) -> None:
    with pytest.raises(InvalidSelection, match=reason) as caught:
        ranges(shape, starts, counts, rest)
    assert caught.type is InvalidSelection


def test_more_elements_than_can_be_counted_are_refused() -> None:
    side = (1 << 63) - 1
    with pytest.raises(TooLarge, match="3 ranges"):
        ranges((side,), [0, 0, 0], side)


def test_very_many_ranges_take_little_more_than_their_arrays() -> None:
    number = 1 << 21
    starts = np.arange(number, dtype=np.int64) * 7
    tracemalloc.start()
    selection = ranges((7 * number, 3), starts, 3, [(0, 3)])
    assert selection.count == 9 * number
    assert selection.bounds == ((0, 7 * number - 4), (0, 3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < starts.nbytes // 4
