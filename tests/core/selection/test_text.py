"""Selections as text."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.selection import Spans, format_selection, parse_selection, ranges, select
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge
from ndstream.testing.strategies import numbered, selections, shapes

SHAPE = (10, 11, 12)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_text_is_read_as_what_it_was_written_from(data: st.DataObject) -> None:
    array = numbered(data.draw(shapes()))
    selection = data.draw(selections(array.shape))
    try:
        text = format_selection(selection)
    except InvalidSelection:
        assert selection.count == 0
        return
    found = parse_selection(text, array.shape).apply(array)
    np.testing.assert_array_equal(found, selection.apply(array))
    assert found.shape == selection.shape


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("...", ...),
        ("1:5, ::2, -1", (slice(1, 5), slice(None, None, 2), -1)),
        ("-3:,:-1,8:1:-3", (slice(-3, None), slice(None, -1), slice(8, 1, -3))),
        ("..., [0,3,5]", (..., [0, 3, 5])),
        (" [ 0 , -1 ] ", [0, -1]),
        ("[]", []),
        ("[[0,1],[2,3]],[1,2]", ([[0, 1], [2, 3]], [1, 2])),
        ("[[[1]],[[2]]]", [[[1]], [[2]]]),
        ("[[],[]]", np.zeros((2, 0), int)),
        ("2\t,\n3", (2, 3)),
        ("0:99999999999999999999999", slice(0, None)),
        ("[1:3,7,9:9,0:2]", [1, 2, 7, 0, 1]),
    ],
)
def test_reads_what_numpy_would(text: str, key: Any) -> None:
    array = numbered(SHAPE)
    np.testing.assert_array_equal(parse_selection(text, SHAPE).apply(array), select(key, SHAPE).apply(array))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (..., "..."),
        ((), "..."),
        (3, "3,:,:"),
        ((slice(1, 5), slice(None, None, 2), -1), "1:5,::2,11"),
        (slice(None, None, -1), "9::-1,:,:"),
        (slice(5, 5), ":0,:,:"),
        (([4, 3, 1], 0), "[4,3,1],0,:"),
        (([4, 3], [0, 1]), "[4,3],[0,1],:"),
    ],
)
def test_writes_the_plain_spelling(key: Any, text: str) -> None:
    assert format_selection(select(key, SHAPE)) == text


def test_a_list_that_is_not_where_numpy_puts_it_is_written_with_its_neighbours() -> None:
    outer = select(([0, 1, 4], slice(2)), (5, 6))
    both = outer.compose(select((slice(None), [[1, 0]]), outer.shape))
    assert format_selection(both) == "[[[0]],[[1]],[[4]]],[[[1,0]]]"


def test_many_ranges_stay_ranges() -> None:
    text = format_selection(ranges(SHAPE, [0, 7, 3], [3, 2, 5], [(0, 11), (2, 4)]))
    assert text == "[0:3,7:9,3:8],:,2:6"
    assert isinstance(parse_selection(text, SHAPE).axes[0], Spans)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 1),
        ("1,", 3),
        (",1", 1),
        ("1 2", 3),
        ("1:2:3:4", 6),
        ("a", 1),
        ("1,b", 3),
        ("1.5", 2),
        ("[1,2", 5),
        ("[1,x]", 4),
        ("[1,,2]", 4),
        ("[1,2,]", 6),
        ("[1 2]", 2),
        ("[1:2:3]", 2),
        ("[5:2]", 2),
        ("[0,-1:2]", 4),
        ("[1,99999999999999999999]", 4),
        ("[[1],2]", 6),
        ("[[1],[2,3]]", 6),
        ("[[1:2],[2]]", 2),
        ("[[1]", 5),
        ("[1]]", 4),
        ("[" * 40, 33),
        ("1_0", 2),
        ("١", 1),
        ("9" * 50, 41),
    ],
)
def test_says_where_the_fault_is(text: str, position: int) -> None:
    with pytest.raises(InvalidSelection, match=f"^selection, character {position}: "):
        parse_selection(text, SHAPE)


def test_refuses_as_select_does() -> None:
    with pytest.raises(OutOfBounds, match="index 10 leaves axis 0"):
        parse_selection("10", SHAPE)
    with pytest.raises(OutOfBounds, match="leaves axis 0 of size 10"):
        parse_selection("[0:5,8:11]", SHAPE)
    with pytest.raises(InvalidSelection, match="4 indices for an array of 3 axes"):
        parse_selection("1,1,1,1", SHAPE)


def test_a_short_text_cannot_ask_for_endless_points() -> None:
    column = "[" + ",".join(["[0]"] * 5000) + "]"
    row = "[" + ",".join(["0"] * 5000) + "]"
    with pytest.raises(TooLarge, match="25000000 points"):
        parse_selection(f"{column},{row}", SHAPE)
    huge = (1 << 50,)
    ranged = parse_selection("[0:1125899906842624,5:7]", huge)
    assert ranged.count == (1 << 50) + 2
    with pytest.raises(TooLarge, match="points"):
        parse_selection("[0:1125899906842624,5:7],[0]", (1 << 50, 1))


def test_a_long_list_takes_little_more_than_its_arrays() -> None:
    starts = np.arange(0, 1_000_000, 17)
    text = f"[{','.join([f'{start}:{start + 3}' for start in starts.tolist()])}]"
    tracemalloc.start()
    selection = parse_selection(text, (1_000_002,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(selection.bounds, [(0, starts[-1] + 3)])
    assert selection.count == 3 * starts.size
    assert peak < 10 * starts.nbytes
    with pytest.raises(InvalidSelection, match=f"character {len(text) + 1}: "):
        parse_selection(f"{text[:-1]},]", (1_000_002,))
    with pytest.raises(InvalidSelection, match=f"character {len(text)}: "):
        parse_selection(f"{text[:-1]}x]", (1_000_002,))


def test_an_empty_table_has_no_text() -> None:
    with pytest.raises(InvalidSelection, match=r"empty list of shape \(0, 3\)"):
        format_selection(select(np.zeros((0, 3), int), (5,)))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789-:,.[] x", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selection = parse_selection(text, (5, 4))
    except InvalidSelection:
        return
    assert selection.apply(numbered((5, 4))).shape == selection.shape
