"""The split over a chunk grid: every element once, from where it is to where it belongs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.selection import Part, Selection, everything, ranges, select
from ndstream.testing.strategies import grids, numbered, selections, shapes


def _chunk(array: NDArray[Any], part: Part, chunks: tuple[int, ...]) -> NDArray[Any]:
    """One chunk as it is stored: of full shape, -1 beyond the array."""
    whole = np.full(chunks, -1)
    inside = array[tuple([slice(k * side, (k + 1) * side) for k, side in zip(part.chunk, chunks, strict=True)])]
    whole[tuple([slice(0, side) for side in inside.shape])] = inside
    return whole


def _assemble(array: NDArray[Any], selection: Selection, chunks: tuple[int, ...]) -> NDArray[Any]:
    result = np.full(selection.shape, -2)
    for part in selection.over(chunks):
        result[part.target] = _chunk(array, part, chunks)[part.source]
    return result


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_parts_make_the_result(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    selection = data.draw(selections(array.shape))
    chunks = data.draw(grids(array.shape))
    np.testing.assert_array_equal(_assemble(array, selection, chunks), selection.apply(array))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_chunk_that_is_touched_comes_once_in_order(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes(min_rank=1)))
    selection = data.draw(selections(array.shape))
    chunks = data.draw(grids(array.shape))
    touched = np.stack(np.unravel_index(selection.apply(array).reshape(-1), array.shape), 1) // chunks
    assert [part.chunk for part in selection.over(chunks)] == sorted({*map(tuple, touched.tolist())})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_whole_part_is_the_chunk_in_its_order(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    selection = data.draw(selections(array.shape))
    chunks = data.draw(grids(array.shape))
    result = selection.apply(array)
    for part in selection.over(chunks):
        stored = _chunk(array, part, chunks)
        if part.whole:
            np.testing.assert_array_equal(result[part.target].reshape(-1), stored[stored != -1])


def test_whole_chunks_are_known() -> None:
    parts = list(select((slice(1, None), slice(None)), (5, 6)).over((2, 4)))
    assert [(part.chunk, part.whole) for part in parts] == [
        ((0, 0), False),
        ((0, 1), False),
        ((1, 0), True),
        ((1, 1), True),
        ((2, 0), True),
        ((2, 1), True),
    ]


@pytest.mark.parametrize(
    "selection",
    [
        select((slice(9, 1, -3), 5, slice(None)), (10, 10, 10)),
        select(([1, 2, 3, 7], slice(1, None, 2)), (10, 10, 10)),
        ranges((10, 10, 10), [0, 6], [4, 3], [(2, 5), (0, 10)]),
    ],
    ids=["steps", "list", "ranges"],
)
def test_what_is_regular_in_a_chunk_is_sliced(selection: Selection) -> None:
    for part in selection.over((5, 4, 10)):
        assert all(isinstance(index, slice | int) for index in part.source + part.target)


def test_a_list_goes_to_a_slice_and_leaves_the_other_axes_sliced() -> None:
    (part,) = select(([0, 1, 3], slice(2, 5), slice(None)), (5, 5, 5)).over((5, 5, 5))
    assert part.target == (slice(0, 3, 1), slice(0, 3, 1), slice(0, 5, 1))
    assert part.source[1:] == (slice(2, 5, 1), slice(0, 5, 1))


def test_parts_of_a_huge_selection_come_at_once() -> None:
    first = list(itertools.islice(everything((1 << 40, 10)).over((1, 10)), 3))
    assert [part.chunk for part in first] == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize("chunks", [(2,), (2, 0), (2, 2, 2)])
def test_the_grid_must_fit_the_array(chunks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="chunks of shape"):
        everything((5, 5)).over(chunks)
    with pytest.raises(ValueError, match="chunks of shape"):
        everything((5, 5)).blocks(3, chunks)
