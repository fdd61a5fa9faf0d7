"""Cutting into blocks: they are the result, in turn, and none is too large."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.selection import everything, ranges, select
from ndstream.testing.strategies import grids, numbered, selections, shapes


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_blocks_in_turn_are_the_result(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    selection = data.draw(selections(array.shape))
    most = data.draw(st.integers(1, max(selection.count, 1) + 2))
    chunks = data.draw(st.none() | grids(array.shape))
    found = [block.apply(array) for block in selection.blocks(most, chunks)]
    np.testing.assert_array_equal(
        np.concatenate([part.reshape(-1) for part in found]) if found else [], selection.apply(array).reshape(-1)
    )
    assert all(0 < part.size <= most for part in found)


def test_a_small_result_is_one_block_with_its_shape() -> None:
    selection = select((1, [[0, 2], [1, 0]]), (4, 5))
    (block,) = selection.blocks(4)
    assert block.shape == selection.shape == (2, 2)


def test_an_empty_result_has_no_blocks() -> None:
    assert list(select((slice(0), 1), (4, 5)).blocks(10)) == []


def test_a_scalar_is_one_block() -> None:
    (block,) = everything(()).blocks(1)
    assert block.shape == ()


def _starts(length: int, most: int, chunk: int, key: slice) -> list[int]:
    """First index of every block."""
    array = np.arange(length)
    return [int(block.apply(array)[0]) for block in select(key, (length,)).blocks(most, (chunk,))]


def test_cuts_fall_between_chunks() -> None:
    assert _starts(100, 25, 10, slice(None)) == [0, 20, 40, 60, 80]
    assert _starts(100, 25, 10, slice(7, None)) == [7, 30, 50, 70, 90]
    assert _starts(100, 12, 10, slice(None, None, 2)) == [0, 20, 40, 60, 80]
    assert _starts(100, 12, 10, slice(1, None, 3)) == [1, 31, 61, 91]
    assert _starts(100, 25, 10, slice(None, None, -1)) == [99, 79, 59, 39, 19]


def test_a_chunk_that_is_larger_than_a_block_is_cut_anywhere() -> None:
    assert _starts(100, 30, 70, slice(None)) == [0, 30, 60, 70]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_cuts_of_one_axis_fall_between_chunks_where_they_can(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes(min_rank=1, max_rank=1, max_side=40)))
    selection = data.draw(selections(array.shape))
    if len(selection.shape) != 1:
        return
    most, chunk = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 8))
    rows = (selection.apply(array) // chunk).tolist()
    stop = 0
    for block in selection.blocks(most, (chunk,)):
        start, stop = stop, stop + block.count
        if stop == len(rows):
            break
        better = [k for k in range(start + 1, start + most + 1) if rows[k - 1] != rows[k]]
        assert stop == (better[-1] if better else start + most)


def test_the_outermost_axis_that_must_be_is_cut() -> None:
    shapes_ = [block.shape for block in everything((3, 4, 5)).blocks(41, (1, 2, 5))]
    assert shapes_ == [(2, 4, 5), (1, 4, 5)]
    shapes_ = [block.shape for block in everything((2, 4, 5)).blocks(17, (1, 2, 5))]
    assert shapes_ == [(1, 2, 5)] * 4


def test_blocks_of_a_huge_selection_come_at_once() -> None:
    first = list(itertools.islice(everything((1 << 40, 1 << 20)).blocks(1 << 10), 3))
    assert [block.count for block in first] == [1 << 10] * 3


def test_blocks_of_many_ranges_take_the_memory_of_a_block() -> None:
    number = 1 << 20
    starts = np.arange(number, dtype=np.int64)[::-1] * 3
    selection = ranges((3 * number,), starts, np.full(number, 2))
    tracemalloc.start()
    total = 0
    for block in selection.blocks(1 << 12):
        total += block.count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 2 * number
    assert peak < 1 << 20


def test_a_block_holds_something() -> None:
    with pytest.raises(ValueError, match="at most 0 elements"):
        everything((3,)).blocks(0)
