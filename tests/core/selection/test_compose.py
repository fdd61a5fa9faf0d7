"""A selection of a selection is a selection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.selection import Spans, everything, ranges, select
from ndstream.errors import InvalidSelection
from ndstream.testing.strategies import numbered, selections, shapes


@settings(max_examples=700, deadline=None)
@given(st.data())
def test_composing_is_applying_in_turn(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    outer = data.draw(selections(array.shape))
    inner = data.draw(selections(outer.shape))
    both = outer.compose(inner)
    wanted = inner.apply(outer.apply(array))
    np.testing.assert_array_equal(both.apply(array), wanted)
    assert both.shape == wanted.shape
    assert both.source == array.shape


def test_spans_stay_spans() -> None:
    both = select((slice(2, 20, 3), slice(None, None, -1)), (30, 10)).compose(select((slice(1, 5, 2), 3), (6, 10)))
    assert both.axes == select((slice(5, 12, 6), 6), (30, 10)).axes
    assert both.dropped == {1}


def test_a_part_of_many_ranges_stays_ranges() -> None:
    outer = ranges((100,), np.arange(0, 90, 10), 5)
    (axis,) = outer.compose(select(slice(7, 33), outer.shape)).axes
    assert isinstance(axis, Spans)
    assert axis.starts.tolist() == [12, 20, 30, 40, 50, 60]
    assert axis.counts.tolist() == [3, 5, 5, 5, 5, 3]


def test_points_of_one_axis_in_its_place_are_no_longer_joint() -> None:
    outer = select(([[0, 1], [2, 4]], slice(None)), (5, 3))
    both = outer.compose(select((0, slice(None), 1), outer.shape))
    assert both.joint == ()
    assert both.shape == (2,)


def test_the_inner_must_fit_the_result() -> None:
    with pytest.raises(InvalidSelection, match=r"from shape \(5, 3\) for a result of shape \(3,\)"):
        select(0, (5, 3)).compose(everything((5, 3)))
