"""Contiguous runs of the flattened source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.selection import everything, ranges, select
from ndstream.errors import TooLarge
from ndstream.testing.strategies import numbered, selections, shapes


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_runs_are_the_elements_in_the_order_of_the_result(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    selection = data.draw(selections(array.shape))
    starts, lengths = selection.runs()
    assert starts.dtype == lengths.dtype == np.int64
    found = [k for start, length in zip(starts, lengths, strict=True) for k in range(start, start + length)]
    np.testing.assert_array_equal(found, selection.apply(array).reshape(-1))
    assert (lengths > 0).all()
    assert (starts[1:] != (starts + lengths)[:-1]).all()
    if selection.run_start is not None and selection.count:
        assert (starts.tolist(), lengths.tolist()) == ([selection.run_start], [selection.count])


def test_what_is_contiguous_is_one_run() -> None:
    for key, run in [
        (..., (0, 60)),
        (1, (20, 20)),
        ((slice(1, 2), slice(1, 3)), (25, 10)),
        (([1, 2],), (20, 40)),
        ((2, 3, 4), (59, 1)),
    ]:
        starts, lengths = select(key, (3, 4, 5)).runs()
        assert (starts.tolist(), lengths.tolist()) == ([run[0]], [run[1]])


def test_runs_continue_over_the_end_of_a_row() -> None:
    starts, lengths = select((slice(None), slice(None, None, 3)), (3, 4)).runs()
    assert starts.tolist() == [0, 3, 7, 11]
    assert lengths.tolist() == [1, 2, 2, 1]


def test_many_rows_stay_ranges() -> None:
    starts, lengths = ranges((100, 7, 3), [50, 10, 20, 12], [5, 2, 0, 1], [(0, 7), (0, 3)]).runs()
    assert starts.tolist() == [1050, 210]
    assert lengths.tolist() == [105, 63]


def test_positions_must_fit_in_64_bits() -> None:
    with pytest.raises(TooLarge, match="64 bits"):
        select((0, 0), (1 << 40, 1 << 40)).runs()


def test_nothing_has_no_runs() -> None:
    for selection in (everything((3, 0)), select(([], 1), (3, 4)), select((slice(0), slice(None)), (3, 4))):
        starts, lengths = selection.runs()
        assert starts.size == lengths.size == 0


def test_a_block_of_whole_rows_is_seen_at_once_as_one_run() -> None:
    shape = (3, 4, 5)
    starts = [select(key, shape).run_start for key in [..., 1, (1, slice(1, 3)), (2, 3, 4), (1, 1, slice(2, 4))]]
    assert starts == [0, 20, 25, 59, 27]
    assert [select(key, shape).run_start for key in [(slice(2), 1), (1, slice(None, None, 2)), ([1, 0],)]] == [None] * 3
