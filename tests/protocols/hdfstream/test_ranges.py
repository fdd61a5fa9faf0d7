"""The request composer, against numpy, with a model of what a server answers to one slice request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ndstream.core.selection import Selection, ranges, select
from ndstream.protocols.hdfstream import ranges as composer
from ndstream.protocols.hdfstream.descriptor import Descriptor
from ndstream.protocols.hdfstream.ranges import Scattered, Whole, plan


def answer(array: NDArray[Any], descriptor: Descriptor) -> NDArray[Any]:
    """What a server answers (specification section 4.3), refusing what it refuses."""
    if descriptor.scalar:
        return array
    assert len(descriptor.rest) == array.ndim - 1
    starts, counts = descriptor.starts, descriptor.counts
    assert (starts[1:] >= starts[:-1] + counts[:-1]).all()
    assert starts[0] >= 0
    assert starts[-1] + counts[-1] <= array.shape[0]
    for (start, count), size in zip(descriptor.rest, array.shape[1:], strict=True):
        assert 0 <= start <= start + count <= size
    later = tuple(slice(start, start + count) for start, count in descriptor.rest)
    pieces = [
        array[(slice(start, start + count), *later)]
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
    ]
    return np.concatenate(pieces)


def gathered(array: NDArray[Any], selection: Selection, **options: Any) -> tuple[NDArray[Any], list[Whole | Scattered]]:
    """Carry out the plan against the model; every element must be written once."""
    result = np.full(selection.count, -1, array.dtype)
    written = np.zeros(selection.count, np.int64)
    transfers = list(plan(selection, array.itemsize, **options))
    for transfer in transfers:
        block = answer(array, transfer.descriptor)
        assert block.shape == transfer.descriptor.shape
        if isinstance(transfer, Whole):
            result[transfer.start : transfer.stop] = block.reshape(-1)
            written[transfer.start : transfer.stop] += 1
        else:
            ones = np.zeros(selection.count, np.int64)
            transfer.place(block, result)
            transfer.place(np.ones_like(block, np.int64), ones)
            written += ones
    assert (written == 1).all()
    return result.reshape(selection.shape), transfers


def numbered(*shape: int, dtype: str = "f8") -> NDArray[Any]:
    return np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)


def axis_keys(size: int) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.integers(-size, size - 1),
        st.slices(size),
        st.lists(st.integers(-size, size - 1), max_size=6),
        hnp.arrays(bool, size),
    )


@st.composite
def arrays_and_keys(draw: st.DrawFn) -> tuple[NDArray[Any], Any]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=7))
    kind = draw(st.sampled_from(["outer", "mask", "points"]))
    if kind == "mask":
        return numbered(*shape), draw(hnp.arrays(bool, shape[: draw(st.integers(1, len(shape)))]))
    if kind == "points":
        points = draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=5)))
        return numbered(*shape), points
    arrays = 0
    key: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        part = draw(axis_keys(size))
        if isinstance(part, (list, np.ndarray)):
            arrays += 1
            if arrays > 1:
                part = slice(None)
        key.append(part)
    return numbered(*shape), tuple(key)


@given(arrays_and_keys(), st.sampled_from([1, 2, 1 << 24]))
@settings(max_examples=600, deadline=None)
def test_any_selection_is_composed_of_requests_that_a_server_accepts(
    case: tuple[NDArray[Any], Any], most_ranges: int
) -> None:
    array, key = case
    selection = select(key, array.shape)
    result, _ = gathered(array, selection, most_ranges=most_ranges)
    np.testing.assert_array_equal(result, selection.apply(array))


@given(arrays_and_keys())
@settings(max_examples=300, deadline=None)
def test_a_small_block_budget_cuts_requests_but_not_the_result(case: tuple[NDArray[Any], Any]) -> None:
    array, key = case
    selection = select(key, array.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composer, "BLOCK", 64)
        patch.setattr(composer, "REQUEST_COST", 24)
        patch.setattr(composer, "RANGE_COST", 8)
        result, transfers = gathered(array, selection)
    np.testing.assert_array_equal(result, selection.apply(array))
    for transfer in transfers:
        if isinstance(transfer, Scattered):
            assert np.prod(transfer.descriptor.shape) * array.itemsize <= 64


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_many_ranges_in_any_order_come_one_behind_the_other(pairs: list[tuple[int, int]]) -> None:
    array = numbered(29, 3)
    starts, counts = (np.array(part, np.int64) for part in zip(*pairs, strict=True))
    result, _ = gathered(array, ranges(array.shape, starts, counts, ((0, 3),)))
    np.testing.assert_array_equal(result, np.concatenate([array[start : start + count] for start, count in pairs]))


def test_a_contiguous_selection_is_one_request_straight_into_the_result() -> None:
    array = numbered(50, 8)
    keys: list[Any] = [np.s_[...], np.s_[3:40], np.s_[7], np.s_[3:40, 2:5], [1, 2, 3, 9], np.s_[::10], np.s_[:, 4]]
    for key in keys:
        result, transfers = gathered(array, select(key, array.shape))
        np.testing.assert_array_equal(result, array[key])
        assert len(transfers) == 1
        assert isinstance(transfers[0], Whole)


def test_unsorted_repeated_indices_are_fetched_once_as_merged_runs() -> None:
    array = numbered(100, 9)
    _, transfers = gathered(array, select(([9, 1, 2, 9, -1], slice(None)), array.shape))
    (transfer,) = transfers
    np.testing.assert_array_equal(transfer.descriptor.starts, [1, 9, 99])
    np.testing.assert_array_equal(transfer.descriptor.counts, [2, 1, 1])


def test_small_steps_are_fetched_as_one_range_and_large_ones_as_many() -> None:
    array = numbered(100_000)
    _, (near,) = gathered(array, select(np.s_[::2], array.shape))
    assert near.descriptor.starts.size == 1
    _, (far,) = gathered(array, select(np.s_[::1000], array.shape))
    assert far.descriptor.starts.size == 100


def test_a_wide_gap_of_a_later_axis_costs_a_request_and_a_narrow_one_does_not() -> None:
    array = numbered(1000, 400)
    _, transfers = gathered(array, select((slice(None), [0, 399]), array.shape))
    assert len(transfers) == 2
    assert sum(np.prod(transfer.descriptor.shape) for transfer in transfers) == 2000
    _, transfers = gathered(array, select((slice(None), [0, 4]), array.shape))
    assert len(transfers) == 1


def test_a_diagonal_is_not_fetched_as_its_whole_box() -> None:
    array = numbered(2000, 2000, dtype="f8")
    points = np.arange(2000)
    _, transfers = gathered(array, select((points, points), array.shape))
    fetched = sum(int(np.prod(transfer.descriptor.shape)) * 8 for transfer in transfers)
    cost = fetched + len(transfers) * composer.REQUEST_COST
    assert cost < array.nbytes / 5


def test_an_empty_selection_needs_no_request() -> None:
    assert list(plan(select(np.s_[3:3], (10,)), 8)) == []


def test_a_scalar_is_one_request_without_axes() -> None:
    result, (transfer,) = gathered(np.full((), 4.0), select((), ()))
    assert result == 4
    assert transfer.descriptor.nested() == []


def test_a_million_sorted_ranges_are_one_request() -> None:
    starts = np.arange(0, 3_000_000, 3, dtype=np.int64)
    (transfer,) = plan(ranges((3_000_000,), starts, np.full(1_000_000, 2), ()), 4)
    assert isinstance(transfer, Whole)
    assert transfer.descriptor.starts.size == 1_000_000
