"""Index expressions: numpy and h5py are the oracles."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.selection import Picks, Span, Spans, everything, select
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge
from ndstream.testing.strategies import expected, h5py_keys, keys, multi_slices, numbered, shapes


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_selects_what_numpy_selects(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    key = data.draw(keys(array.shape))
    selection = select(key, array.shape)
    wanted = expected(array, key)
    np.testing.assert_array_equal(selection.apply(array), wanted)
    assert selection.shape == wanted.shape
    assert selection.count == wanted.size
    assert selection.source == array.shape


@pytest.fixture(scope="module")
def file() -> Iterator[h5py.File]:
    with h5py.File(io.BytesIO(), "w") as file:
        yield file


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_selects_what_h5py_selects(file: h5py.File, data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    key = data.draw(h5py_keys(array.shape))
    name = "x".join(map(str, array.shape)) or "scalar"
    if name not in file:
        file[name] = array
    wanted = file[name][key]
    found = select(key, array.shape).apply(array)
    np.testing.assert_array_equal(found, wanted)
    assert found.shape == np.shape(wanted)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_bounds_are_the_smallest_box(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    selection = select(data.draw(keys(array.shape)), array.shape)
    found = np.unravel_index(selection.apply(array).reshape(-1), array.shape) if array.ndim else ()
    if selection.count:
        assert selection.bounds == tuple([(axis.min(), axis.max() + 1) for axis in found])
    else:
        assert all(start == stop for start, stop in selection.bounds)


@pytest.mark.parametrize(
    "key",
    [..., (), slice(None), (slice(0, 9), ...), [0, 1, 2], np.ones(3, bool), (slice(None), slice(None))],
    ids=str,
)
def test_everything_is_recognised_in_every_spelling(key: Any) -> None:
    assert select(key, (3, 2)).is_everything


@pytest.mark.parametrize(
    "key", [slice(None, None, -1), slice(0, 2), [2, 1, 0], (..., 0), np.ones((3, 2), bool)], ids=str
)
def test_a_part_or_another_order_is_not_everything(key: Any) -> None:
    assert not select(key, (3, 2)).is_everything


def test_everything_of_nothing_is_everything() -> None:
    assert everything((0, 3)).is_everything
    assert everything(()).is_everything
    assert everything(()).shape == ()


@pytest.mark.parametrize(
    ("key", "axis"),
    [
        ([3], Span(3, 1)),
        ([1, 3, 5], Span(1, 3, 2)),
        ([5, 4, 3], Span(5, 3, -1)),
        ([], Span(0, 0)),
        (slice(7, 7), Span(0, 0)),
        (slice(7, 8, 5), Span(7, 1)),
        (np.arange(10) % 2 == 0, Span(0, 5, 2)),
    ],
    ids=str,
)
def test_regular_lists_become_spans(key: Any, axis: Span) -> None:
    assert select(key, (10,)).axes == (axis,)


def test_irregular_lists_stay_lists() -> None:
    (axis,) = select([1, 2, 4], (10,)).axes
    assert isinstance(axis, Picks)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "new axis"),
        ((0, np.newaxis), "new axis"),
        ("name", "name of a field"),
        (1.0, "not an integer"),
        (np.float64(1), "not an integer"),
        (True, "neither an index nor a mask"),
        (np.True_, "neither an index nor a mask"),
        (np.array(True), "neither an index nor a mask"),
        ([0.5], "float64 selects nothing"),
        (np.zeros(0), "float64 selects nothing"),
        (["a"], "selects nothing"),
        ([[0], [1, 2]], "not a list of indices"),
        (object, "neither an index nor a mask"),
        ({}, "neither an index nor a mask"),
        ((0, 0, 0), "3 indices for an array of 2 axes"),
        ((..., 0, ...), "more than one"),
        (slice(None, None, 0), "slice of axis 0"),
        ((0, slice("a")), "slice of axis 1"),
        (np.ones(4, bool), r"mask of shape \(4,\) for axes of shape \(5,\)"),
        (np.ones((5, 5), bool), r"mask of shape \(5, 5\) for axes of shape \(5, 6\)"),
        (([0, 1], [0, 1, 2]), "cannot be broadcast"),
    ],
    ids=str,
)
def test_refuses_what_selects_nothing(key: Any, reason: str) -> None:
    with pytest.raises(InvalidSelection, match=reason) as caught:
        select(key, (5, 6))
    assert caught.type is InvalidSelection


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (5, "index 5 leaves axis 0 of size 5"),
        ((0, -7), "index -7 leaves axis 1 of size 6"),
        ([0, 5], "index 5 leaves axis 0 of size 5"),
        ((0, [[-7]]), "index -7 leaves axis 1 of size 6"),
        (np.array([1 << 63], np.uint64), "index 9223372036854775808 leaves"),
        (np.array([200], np.uint8), "index 200 leaves"),
        (1 << 70, "leaves axis 0"),
    ],
    ids=str,
)
def test_refuses_indices_outside(key: Any, reason: str) -> None:
    with pytest.raises(OutOfBounds, match=reason):
        select(key, (5, 6))


@pytest.mark.parametrize("key", [0, slice(None), [0], np.ones(1, bool), (..., 0)], ids=str)
def test_a_scalar_has_no_axis_to_index(key: Any) -> None:
    with pytest.raises(InvalidSelection, match="for an array of 0 axes"):
        select(key, ())


def test_integers_of_every_kind_are_ints() -> None:
    class Index:
        def __index__(self) -> int:
            return 2

    for index in (2, np.int8(2), np.uint64(2), np.array(2), Index(), -3):
        selection = select(index, (5, 6))
        assert selection.axes[0] == Span(2, 1)
        assert selection.shape == (6,)


@pytest.mark.parametrize(("key", "shape"), [(..., ()), ((1, 1), (2, 2))], ids=["scalar", "ints"])
def test_one_element_stays_an_array_of_its_type(key: Any, shape: tuple[int, ...]) -> None:
    found = select(key, shape).apply(np.ones(shape, ">f4"))
    assert isinstance(found, np.ndarray)
    assert found.shape == ()
    assert found.dtype == np.dtype(">f4")


def test_points_are_counted_before_they_are_made() -> None:
    rows, columns = np.zeros((1 << 20, 1), np.int64), np.zeros((1, 1 << 20), np.int64)
    with pytest.raises(TooLarge, match="1099511627776 points"):
        select((rows, columns), (5, 6), most=1 << 24)


def test_a_selection_keeps_nothing_of_the_list_it_was_made_from() -> None:
    rows = np.array([0, 1, 4])
    selection = select(rows, (5,))
    rows[:] = 2
    assert selection.apply(np.arange(5)).tolist() == [0, 1, 4]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_ranges_stand_for_their_indices(data: st.DataObject) -> None:
    array = numbered((*data.draw(shapes(min_rank=1, max_rank=1)), 3, 4))
    spans = data.draw(multi_slices(array.shape[:1])).axes[0]
    ranged = spans if isinstance(spans, Spans) else Spans(np.array([spans.bounds()[0]]), np.array([0]))
    for key in [(ranged,), (ranged, 1), (ranged, slice(None, None, 2), [[0], [1]])]:
        plain = tuple([item.expand() if isinstance(item, Spans) else item for item in key])
        np.testing.assert_array_equal(select(key, array.shape).apply(array), expected(array, plain))


def test_ranges_in_an_expression_must_be_inside() -> None:
    with pytest.raises(OutOfBounds, match="4:6"):
        select((Spans(np.array([0, 4]), np.array([2, 2])),), (5,))
