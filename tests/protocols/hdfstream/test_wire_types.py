from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core import dtypes
from ndstream.core.dtypes import (
    Array,
    Bitfield,
    Boolean,
    Complex,
    Compound,
    DType,
    Enum,
    Field,
    Float,
    Foreign,
    Integer,
    Opaque,
    Reference,
    Sequence,
    String,
    from_numpy,
)
from ndstream.protocols.hdfstream.wire_types import wire_type

RECORD = np.dtype([("a", ">f8"), ("b", "<i4", (2,)), ("c", [("x", "u1"), ("y", "S3")]), ("f", "?")])
GAPS = np.dtype({"names": ["a", "b"], "formats": ["u1", ">i8"], "offsets": [3, 8], "itemsize": 20})


@pytest.mark.parametrize(
    ("dtype", "spelled", "kind"),
    [
        (Integer(size=1), "<i1", ""),
        (Integer(size=1, signed=False), "<u1", ""),
        (Integer(size=4, order=">"), "<i4", ""),
        (Float(size=2), "<f2", ""),
        (Float(size=8, order=">"), "<f8", ""),
        (Float(size=16), "<f16", ""),
        (Complex(size=16, order=">"), "<c16", ""),
        (Boolean(), "<i1", ""),
        (Enum(base=Integer(size=2, order=">"), members={"A": 1}), "<i2", ""),
        (Bitfield(size=4), "<u4", ""),
        (String(size=10), "S10", ""),
        (Opaque(size=3, label="x"), "V3", "V"),
        (Foreign(name="bfloat16", size=2, reads_as=Float(size=4)), "<f4", ""),
        (String(), "str", ""),
        (Sequence(base=Integer(size=4, order=">")), "<i4", "V"),
        (Reference(to="object"), "str", ""),
        (Reference(to="region"), "O", ""),
        (Sequence(base=String()), "O", ""),
        (Foreign(name="time", size=4), "V4", "V"),
    ],
    ids=str,
)
def test_spelling_of_simple_types(dtype: DType, spelled: str, kind: str) -> None:
    wire = wire_type(dtype)
    assert (wire.element, wire.mapped, wire.kind, wire.dims) == (spelled, spelled, kind, ())


def test_spelling_of_compounds() -> None:
    wire = wire_type(from_numpy(RECORD))
    assert wire.element == [["a", ">f8"], ["b", "<i4", [2]], ["c", [["x", "<u1"], ["y", "S3"]]], ["f", "<i1"]]
    assert wire.mapped == {
        "names": ["a", "b", "c", "f"],
        "formats": [">f8", "(2,)<i4", {"names": ["x", "y"], "formats": ["<u1", "S3"]}, "<i1"],
    }
    assert wire.kind == "V"
    assert np.dtype(wire.mapped).itemsize == wire.size == RECORD.itemsize


def test_an_array_of_compounds_inside_is_bytes_to_those_who_cannot_spell_it() -> None:
    wire = wire_type(from_numpy(np.dtype([("many", [("x", "<f4")], (2, 3))])))
    assert wire.mapped == {"names": ["many"], "formats": ["(2,3)V4"]}
    assert wire.element == [["many", [["x", "<f4"]], [2, 3]]]


def test_the_axes_of_an_array_type_are_told_apart() -> None:
    wire = wire_type(Array(base=Array(base=Integer(size=2, order=">"), shape=(3,)), shape=(2,)))
    assert (wire.element, wire.dims, wire.size) == ("<i2", (2, 3), 12)


@given(st.binary(min_size=40, max_size=40))
def test_numbers_arrive_little_endian_and_compounds_without_gaps(data: bytes) -> None:
    for stored in (np.dtype(">i4"), np.dtype(">f8"), np.dtype(">c8"), GAPS, np.dtype("<i4"), np.dtype("?")):
        wire = wire_type(from_numpy(stored))
        sent = wire.convert(data)
        assert len(sent) == 40 // stored.itemsize * wire.size
        if stored.kind not in "b?":
            received = np.frombuffer(sent, wire.target)
            np.testing.assert_array_equal(received, np.frombuffer(data, stored).astype(wire.target))
            assert wire.target is not None
            assert wire.target.names or wire.target.str[0] in "<|"


@pytest.mark.parametrize("dtype", ["<i4", "u1", "<f8", "S3", "?", RECORD, "V7"])
def test_bytes_that_need_no_change_are_not_copied(dtype: Any) -> None:
    buffer = bytes(7 * np.dtype(dtype).itemsize)
    assert wire_type(from_numpy(np.dtype(dtype))).convert(buffer) is buffer


@pytest.mark.parametrize(
    ("dtype", "faithful"),
    [
        (Integer(size=4), True),
        (Integer(size=4, order=">"), False),
        (Integer(size=1, order=">"), True),
        (Float(size=4), True),
        (Complex(size=8), True),
        (String(), True),
        (String(charset="ascii"), False),
        (String(size=3, charset="ascii"), True),
        (String(size=3, charset="utf-8"), False),
        (Sequence(base=Integer(size=4)), True),
        (Sequence(base=Integer(size=4, order=">")), False),
        (Opaque(size=3), True),
        (Opaque(size=3, label="x"), False),
        (from_numpy(np.dtype([("a", ">f8"), ("b", "<i4", (2,))])), True),
        (from_numpy(np.dtype([("a", "?")])), False),
        (from_numpy(GAPS), False),
        (Boolean(), False),
        (Bitfield(size=1), False),
        (Enum(base=Integer(size=1), members={}), False),
        (Array(base=Integer(size=4), shape=(2,)), False),
        (Reference(to="object"), False),
        (Foreign(name="bfloat16", size=2, reads_as=Float(size=4)), False),
    ],
    ids=str,
)
def test_whether_the_spelling_says_all(dtype: DType, faithful: bool) -> None:
    assert wire_type(dtype).faithful is faithful


def test_what_numpy_cannot_hold_is_unreadable_but_described() -> None:
    strange = Compound(fields=(Field(name="a", dtype=Float(size=12), offset=0),), size=12)
    wire = wire_type(strange)
    assert (wire.element, wire.carrier) == ("V12", "nothing")
    assert dtypes.memory_size(strange) == wire.size
