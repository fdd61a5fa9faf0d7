from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.errors import InvalidRequest, InvalidSelection, OutOfBounds, TooLarge
from ndstream.protocols.hdfstream.messages import Slices
from ndstream.protocols.hdfstream.slices import parse_arrays, parse_text, select, split
from ndstream.wire.integers import write_integers

FEW = replace(DEFAULT_LIMITS, selections=3, selection_text=40)


def arrays(value: Any) -> Slices:
    return parse_arrays(memoryview(msgspec.msgpack.encode(value)), DEFAULT_LIMITS)


def text(value: str) -> Slices:
    return parse_text(value, DEFAULT_LIMITS)


def taken(slices: Slices, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return select(slices, shape).apply(np.arange(int(np.prod(shape))).reshape(shape))


@st.composite
def requests(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[int, int]], list[tuple[int, int]]]:
    """A shape, ascending ranges of its first axis that may touch or be empty, one range of each further axis."""
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)))
    edges = sorted(draw(st.lists(st.integers(0, shape[0]), min_size=2, max_size=8).filter(lambda e: len(e) % 2 == 0)))
    first = [(begin, end - begin) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    rest = []
    for size in shape[1:]:
        start = draw(st.integers(0, size))
        rest.append((start, draw(st.integers(0, size - start))))
    return shape, first, rest


@given(requests())
def test_text_and_arrays_mean_what_numpy_concatenates(
    request: tuple[tuple[int, ...], list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    shape, first, rest = request
    source = np.arange(int(np.prod(shape))).reshape(shape)
    box = tuple(slice(start, start + count) for start, count in rest)
    wanted = np.concatenate([source[(slice(start, start + count), *box)] for start, count in first])
    spelled = ";".join(",".join(f"{s}:{s + c}" for s, c in [one, *rest]) for one in first)
    nested = [[[start for start, _ in first], [count for _, count in first]], *map(list, rest)]
    for slices in (text(spelled), arrays(nested), arrays(spelled)):
        np.testing.assert_array_equal(taken(slices, shape), wanted)


def test_a_single_number_keeps_its_axis() -> None:
    assert taken(text("3, 1:2"), (5, 4)).shape == (1, 1)
    assert taken(text(" 3 "), (5,)).tolist() == [3]


@pytest.mark.parametrize("scalar", [text(""), text("  "), arrays([]), arrays("")])
def test_no_axes_are_a_scalar(scalar: Slices) -> None:
    assert taken(scalar, ()).shape == ()


@pytest.mark.parametrize(
    ("nested", "wanted"),
    [
        ([[0, 3], [0, 2]], [[0, 1], [4, 5], [8, 9]]),
        ([[[0, 4], [1, 1]], [2, 2]], [[2, 3], [18, 19]]),
        ([[[0], [2]], [1, 1]], [[1], [5]]),
        ([[[0, 3], 1], [[1], [1]]], [[1], [13]]),
        ([[[0, 3], [1]], [0, 1]], [[0], [12]]),
        ([[1, [1]], [0, 1]], [[4]]),
        ([[[0, 2, 2], [2, 0, 1]], [0, 1]], [[0], [4], [8]]),
    ],
)
def test_the_forms_of_the_first_axis(nested: list[Any], wanted: list[Any]) -> None:
    assert taken(arrays(nested), (5, 4)).tolist() == wanted


MALFORMED: list[Any] = [
    [[0]],
    [[0, 1, 2]],
    [0, 1],
    [["0", 1]],
    [[0.0, 1]],
    [[None, 1]],
    [[True, 1]],
    [[-1, 1]],
    [[0, -1]],
    [[[0, 1], [1, 1, 1]]],
    [[[], []]],
    [[[0, 1], []]],
    [[0, [1, 2]]],
    [[[0, 2], [1, -1]]],
    [[0, 1], [[0, 1], [1, 1]]],
    [[0, 1], [[], 1]],
    [[[0, 2**63], 1]],
    {"0": 1},
    7,
    None,
    [[0, 1]] * 33,
]


@pytest.mark.parametrize("nested", MALFORMED, ids=str)
def test_malformed_arrays_are_invalid(nested: Any) -> None:
    with pytest.raises(InvalidRequest):
        arrays(nested)


@pytest.mark.parametrize(
    "spelled",
    ["a", ":", "1:", ":1", "1:2:3", "-1", "1:-1", "1.5", "1,", ";", "1;", "3:1", "1;2,3", "0,0;1,1", "١", "9" * 30],
)
def test_malformed_text_is_invalid(spelled: str) -> None:
    with pytest.raises(InvalidRequest):
        text(spelled)
    with pytest.raises(InvalidRequest):
        arrays(spelled)


@pytest.mark.parametrize(
    "nested",
    [[[[2, 0], 1]], [[[0, 1], [2, 1]]], [[[0, 0], 1]], [[[1, 2**63 - 1], 1]], [[[0, 5], [2**63 - 1, 1]]]],
    ids=str,
)
def test_going_backwards_or_overlapping_is_out_of_bounds(nested: list[Any]) -> None:
    with pytest.raises(OutOfBounds):
        arrays(nested)


@pytest.mark.parametrize(
    "slices", [text("4:6"), text("0:1;5"), arrays([[5, 1]]), arrays([[2**64 - 1, 2**64 - 1]]), arrays([[[0, 4], 2]])]
)
def test_leaving_the_dataset_is_out_of_bounds(slices: Slices) -> None:
    with pytest.raises(OutOfBounds):
        select(slices, (5,))
    with pytest.raises(OutOfBounds):
        select(Slices((*slices.extents, (0, 1))) if slices.many is None else Slices(((0, 1),), slices.many), (5, 1))


def test_the_axis_that_is_left_is_named() -> None:
    with pytest.raises(OutOfBounds, match=re.escape("slice 3:5 leaves axis 1, which has 4 elements")):
        select(text("0:1,3:5"), (5, 4))


@pytest.mark.parametrize("shape", [(), (5,), (5, 4, 3)])
def test_another_rank_is_an_invalid_selection_but_not_out_of_bounds(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidSelection) as caught:
        select(text("0:1,0:1"), shape)
    assert caught.value.code == "selection"


def test_more_slices_or_text_than_the_limit_are_refused() -> None:
    parse_text("0;1;2", FEW)
    with pytest.raises(TooLarge):
        parse_text("0;1;2;3", FEW)
    with pytest.raises(TooLarge):
        parse_text(" " * 41, FEW)
    with pytest.raises(TooLarge):
        parse_arrays(memoryview(msgspec.msgpack.encode([[[0, 1, 2, 3], 1]])), FEW)


@given(requests())
def test_long_arrays_mean_the_same_as_short_ones(
    request: tuple[tuple[int, ...], list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    """Long ones are decoded another way: here an endless repetition of the last, empty, range makes them long."""
    shape, first, rest = request
    last = first[-1][0] + first[-1][1]
    long = first + [(last, 0)] * 5000
    nested = [[[start for start, _ in long], [count for _, count in long]], *map(list, rest)]
    np.testing.assert_array_equal(
        taken(arrays(nested), shape), taken(arrays([[[s for s, _ in first], [c for _, c in first]], *rest]), shape)
    )


@pytest.mark.parametrize("tail", [["x"], [1.5], [-1], [None], [[1]], [2**64 - 1]], ids=str)
def test_long_arrays_are_checked_too(tail: list[Any]) -> None:
    long = list(range(5000))
    for nested in ([[long + tail, 1]], [[long, [1] * 4999 + tail]], [[long, 1], tail], [tail, [long, 1]]):
        with pytest.raises(InvalidRequest):
            arrays(nested)


def test_a_cut_off_long_array_is_invalid() -> None:
    encoded = msgspec.msgpack.encode([[list(range(5000)), 1]])
    for end in (len(encoded) - 1, len(encoded) - 2, 5000):
        with pytest.raises(InvalidRequest):
            parse_arrays(memoryview(encoded)[:end], DEFAULT_LIMITS)


def test_a_million_slices_take_no_python_objects() -> None:
    count = 1 << 20
    starts = write_integers(np.arange(count, dtype=np.int64) * 3)
    encoded = memoryview(b"\x91\x92" + starts + b"\x01")
    tracemalloc.start()
    slices = parse_arrays(encoded, DEFAULT_LIMITS)
    selection = select(slices, (3 * count,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert selection.shape == (count,)
    assert peak < 100 * count


def test_splitting_gives_the_later_axes_to_the_element() -> None:
    outer, inner = split(arrays([[[0, 2], 1], [1, 2], [0, 3]]), 2)
    assert (outer.rank, inner.extents) == (2, ((0, 3),))
    outer, inner = split(arrays([[0, 1], [1, 2]]), 0)
    assert (outer.rank, inner.rank) == (0, 2)
