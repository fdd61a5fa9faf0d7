"""Selections survive the way through messages, and what is no selection is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core.selection import Selection, everything, from_plain, select, to_plain
from ndstream.core.selection.plain import prepared, takes_long
from ndstream.errors import InvalidSelection, OutOfBounds, TooLarge
from ndstream.testing.strategies import numbered, selections, shapes


@st.composite
def _selections(draw: st.DrawFn) -> Selection:
    return draw(selections(draw(shapes())))


@given(_selections())
def test_a_selection_survives_a_message(selection: Selection) -> None:
    array = numbered(selection.source)
    message = msgspec.msgpack.decode(msgspec.msgpack.encode(to_plain(selection)))
    back = from_plain(message, selection.source)
    assert back.shape == selection.shape
    assert np.array_equal(back.apply(array), selection.apply(array))


@pytest.mark.parametrize(
    "plain",
    [
        None,
        "1:3, [0,2], -1",
        "[[0],[1]], [0,2]",
        {"axes": [[0, 2], {"indices": [2, 0]}, {"starts": [0, 2], "counts": [1, 2]}]},
        {"axes": [[0, 1], {"indices": np.array([1], "<i8").tobytes()}, [0, 4, 1]], "dropped": [0]},
    ],
)
def test_what_was_prepared_is_the_same_selection(plain: Any) -> None:
    array = numbered((4, 3, 4))
    assert np.array_equal(
        from_plain(prepared(plain), array.shape).apply(array), from_plain(plain, array.shape).apply(array)
    )


@pytest.mark.parametrize("plain", ["1:2,x", {"axes": [{"indices": [1.5]}]}, {"axes": 5}, 5])
def test_what_is_no_selection_is_refused_when_prepared_too(plain: Any) -> None:
    with pytest.raises(InvalidSelection):
        from_plain(prepared(plain), (4,))


@pytest.mark.parametrize(("count", "long"), [(3, False), (20_000, True)])
def test_what_takes_long_is_told(count: int, long: bool) -> None:
    numbers = list(range(count))
    for plain in (str(numbers), {"axes": [{"indices": numbers}]}, {"axes": [[0, 1], {"starts": numbers}]}):
        assert takes_long(plain) == long


def test_everything_is_nothing_to_say() -> None:
    assert to_plain(everything((3, 4))) is None
    assert from_plain(None, (3, 4)).is_everything


def test_text_is_read_against_the_shape() -> None:
    assert from_plain("-1", (5,)).apply(np.arange(5)) == 4


def test_lists_do_as_well_as_bytes() -> None:
    plain = {"axes": [{"indices": [2, 0]}, {"starts": [0, 3], "counts": [1, 1]}]}
    array = numbered((3, 4))
    assert np.array_equal(from_plain(plain, (3, 4)).apply(array), array[[2, 0]][:, [0, 3]])


@pytest.mark.parametrize(
    "plain",
    [
        7,
        [],
        {},
        {"axes": 1},
        {"axes": [[0, 1]]},
        {"axes": [[0, 1, 0], [0, 1]]},
        {"axes": [[0, -1], [0, 1]]},
        {"axes": [[0, True], [0, 1]]},
        {"axes": [[0, 1.0], [0, 1]]},
        {"axes": [{"indices": b"1234567"}, [0, 1]]},
        {"axes": [{"starts": [0], "counts": [1, 1]}, [0, 1]]},
        {"axes": [{"starts": [0], "counts": [-1]}, [0, 1]]},
        {"axes": [{}, [0, 1]]},
        {"axes": [[0, 2], [0, 1]], "dropped": [0]},
        {"axes": [[0, 1], [0, 1]], "dropped": [7]},
        {"axes": [[0, 1], [0, 1]], "other": 1},
        {"axes": [[0, 1], [0, 1]], "joint": [0, 1], "joint_shape": [1]},
        {"axes": [{"indices": [0]}, {"indices": [0]}], "joint": [0, 1], "joint_shape": [2]},
        {"axes": [{"indices": [0]}, {"indices": [0]}], "joint": [1, 0], "joint_shape": [1]},
        {"axes": [{"indices": [0]}, {"indices": [0]}], "joint": [0, 1], "joint_shape": [1], "joint_at": 1},
        {"axes": [{"indices": [0]}, {"indices": [0]}], "joint": [0, 1], "joint_shape": [-1, -1]},
        {"axes": [{"indices": [1 << 64]}, [0, 1]]},
    ],
)
def test_what_is_no_selection_is_refused(plain: Any) -> None:
    with pytest.raises(InvalidSelection):
        from_plain(plain, (3, 4))


@pytest.mark.parametrize(
    "plain",
    [
        {"axes": [[0, 4], [0, 1]]},
        {"axes": [[2, 2, -3], [0, 1]]},
        {"axes": [{"indices": [3]}, [0, 1]]},
        {"axes": [{"indices": [-1]}, [0, 1]]},
        {"axes": [{"starts": [2], "counts": [2]}, [0, 1]]},
        {"axes": [[1 << 62, 1 << 62, 1 << 62], [0, 1]]},
    ],
)
def test_what_leaves_the_array_is_refused(plain: Any) -> None:
    with pytest.raises(OutOfBounds):
        from_plain(plain, (3, 4))


def test_more_points_than_allowed_are_refused() -> None:
    plain = to_plain(select(([0, 2, 1],), (3,)))
    with pytest.raises(TooLarge):
        from_plain(plain, (3,), most=2)
