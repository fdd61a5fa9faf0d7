"""Elements change their byte order and lose their gaps, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core.dtypes import Compound, Field, Integer, from_numpy, packed
from ndstream.wire.buffers import BufferPool
from ndstream.wire.recast import Recast

_NUMBERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", "?", "S3", "V5")


_ORDERS: st.SearchStrategy[Literal["<", ">"]] = st.sampled_from(("<", ">"))


def _ordered(kind: str, order: Literal["<", ">"]) -> np.dtype[Any]:
    return np.dtype(kind).newbyteorder(order)


@st.composite
def _pairs(draw: st.DrawFn, depth: int = 2) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Draw two types of the same members, each with its own byte orders and gaps."""
    shape = draw(st.sampled_from(((), (), (2,), (2, 3))))
    if depth and draw(st.booleans()):
        members = draw(st.lists(_pairs(depth=depth - 1), min_size=1, max_size=3))
        one, other = (_record(draw, [pair[side] for pair in members]) for side in (0, 1))
    else:
        kind = draw(st.sampled_from(_NUMBERS))
        one, other = (_ordered(kind, draw(_ORDERS)) for _ in range(2))
    return np.dtype((one, shape)), np.dtype((other, shape))


def _record(draw: st.DrawFn, formats: list[np.dtype[Any]]) -> np.dtype[Any]:
    offsets, end = [], 0
    for member in formats:
        offsets.append(end + draw(st.integers(0, 3)))
        end = offsets[-1] + member.itemsize
    names = [f"m{number}" for number in range(len(formats))]
    size = end + draw(st.integers(0, 3))
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


@given(_pairs(), st.binary(min_size=400, max_size=600))
def test_members_keep_their_values(pair: tuple[np.dtype[Any], np.dtype[Any]], data: bytes) -> None:
    source, target = pair
    count = len(data) // source.itemsize
    buffer = memoryview(data)[: count * source.itemsize]
    recast = Recast(source, target)
    out = recast(buffer)
    assert out.nbytes == recast.nbytes(buffer.nbytes) == count * target.itemsize
    _assert_same(np.frombuffer(buffer, source.base), np.frombuffer(out, target.base))


def _assert_same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
    if one.dtype.names is None:
        # By their bytes: a NaN keeps its payload too.
        assert other.astype(one.dtype).tobytes() == one.tobytes() or one.dtype.kind in "?fc"
        swapped = other if one.dtype.str == other.dtype.str else other.byteswap()
        assert swapped.tobytes() == one.tobytes()
        return
    for name in one.dtype.names:
        _assert_same(one[name], other[name])


def test_what_needs_no_change_is_passed_on_as_it_is() -> None:
    buffer = memoryview(b"12345678")
    recast = Recast(Integer(size=4), np.dtype("<i4"))
    assert recast.is_identity
    assert recast(buffer) is buffer


def test_a_gap_makes_a_difference_even_when_the_size_is_the_same() -> None:
    one = np.dtype({"names": ["a", "b"], "formats": ["<i2", "<i4"], "offsets": [0, 4]})
    other = np.dtype({"names": ["a", "b"], "formats": ["<i2", "<i4"], "offsets": [2, 4]})
    assert not Recast(one, other).is_identity


def test_compounds_are_packed() -> None:
    gapped = Compound(
        fields=(
            Field(name="a", dtype=Integer(size=1), offset=1),
            Field(name="b", dtype=Integer(size=2, order=">"), offset=4),
        ),
        size=8,
    )
    recast = Recast(gapped, packed(gapped))
    assert recast(memoryview(b"\xff\x01\xff\xff\x00\x02\xff\xff" * 2)) == b"\x01\x00\x02" * 2
    assert recast.nbytes(16) == 6


def test_gaps_of_the_target_hold_no_old_memory() -> None:
    pool = BufferPool(1 << 24)
    pool.take(1 << 20).fill(0xEE)
    target = np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [1], "itemsize": 4})
    out = Recast(np.dtype([("a", "u1")]), target, pool)(memoryview(b"\x07" * (1 << 18)))
    assert out == b"\x00\x07\x00\x00" * (1 << 18)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("<i4", "<f4"),
        ("<i4", "<i8"),
        ([("a", "u1")], [("b", "u1")]),
        ([("a", "u1")], "u1"),
        (("u1", (2,)), ("u1", (3,))),
    ],
)
def test_other_changes_are_refused(source: Any, target: Any) -> None:
    with pytest.raises(ValueError, match="cannot become"):
        Recast(np.dtype(source), np.dtype(target))


def test_an_empty_buffer_stays_empty() -> None:
    recast = Recast(from_numpy(np.dtype(">f8")), np.dtype("<f8"))
    assert recast(memoryview(b"")).nbytes == 0
