"""Element types go to numpy and back as h5py spells them."""

from __future__ import annotations

from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
from h5py import h5t
from hypothesis import given
from hypothesis import strategies as st

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
    is_fixed,
    item_size,
    memory_size,
    packed,
    readable,
    to_numpy,
)
from ndstream.errors import UnsupportedDType

REFERENCES = (h5py.Reference, h5py.RegionReference)

RECORD = np.dtype([("position", "<f8", (3,)), ("id", ">u4"), ("name", "S7"), ("inner", [("a", "i1"), ("b", "<c8")])])
GAPS = np.dtype({"names": ["a", "b"], "formats": ["<i2", ">f4"], "offsets": [2, 8], "itemsize": 20})

SPELLINGS: list[Any] = [
    *(f"{order}{code}" for order in "<>" for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")),
    *(f"{order}{code}" for order in "<>" for code in ("f2", "f4", "f8", "f16", "c8", "c16", "c32")),
    "?",
    "S1",
    "S10",
    "V5",
    h5py.string_dtype(),
    h5py.string_dtype("ascii"),
    h5py.string_dtype("utf-8", 9),
    h5py.string_dtype("ascii", 9),
    h5py.enum_dtype({"RED": 3, "GREEN": -1, "BLUE": 0}, "<i2"),
    h5py.enum_dtype({"BIG": 2**62}, ">u8"),
    h5py.vlen_dtype(np.dtype(">i4")),
    h5py.vlen_dtype(h5py.string_dtype()),
    h5py.vlen_dtype(h5py.vlen_dtype(np.float32)),
    h5py.vlen_dtype(GAPS),
    h5py.ref_dtype,
    h5py.regionref_dtype,
    h5py.opaque_dtype(np.dtype("<M8[us]")),
    h5py.opaque_dtype(np.dtype(">m8[D]")),
    np.dtype(("<i4", (2, 3))),
    RECORD,
    GAPS,
    np.dtype([("text", h5py.string_dtype()), ("refs", h5py.ref_dtype, (2,)), ("kind", h5py.enum_dtype({"A": 0}))]),
]


def spelled_alike(left: np.dtype[Any], right: np.dtype[Any]) -> bool:
    """Whether two dtypes are equal with their metadata, at every depth."""
    if left.subdtype and right.subdtype:
        return bool(left.shape == right.shape) and spelled_alike(left.base, right.base)
    if left != right or (left.names or ()) != (right.names or ()):
        return False
    if any(not spelled_alike(left[name], right[name]) for name in left.names or ()):
        return False
    mine, others = dict(left.metadata or {}), dict(right.metadata or {})
    if isinstance(mine.get("vlen"), np.dtype):
        return spelled_alike(mine["vlen"], np.dtype(others.get("vlen")))
    # A fixed string without metadata is ASCII, to h5py too.
    if left.kind == "S":
        return bool(h5py.check_string_dtype(left) == h5py.check_string_dtype(right))
    return bool(mine == others)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_what_h5py_spells_comes_back_as_it_was(spelling: Any) -> None:
    dtype = np.dtype(spelling)

    assert spelled_alike(to_numpy(from_numpy(dtype), references=REFERENCES), dtype)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_h5py_takes_the_spelling_for_the_same_type(spelling: Any) -> None:
    dtype = np.dtype(spelling)

    ours = h5t.py_create(to_numpy(from_numpy(dtype), references=REFERENCES), logical=True)

    assert ours.equal(h5t.py_create(dtype, logical=True))


ORDERS = st.sampled_from(["<", ">"])
NAMES = st.text("ab\u00e9 /.", min_size=1, max_size=3)
INTEGERS = st.builds(Integer, size=st.sampled_from([2, 4, 8]), signed=st.booleans(), order=ORDERS)
PLAIN = st.one_of(
    INTEGERS,
    st.builds(Integer, size=st.just(1), signed=st.booleans()),
    st.builds(Float, size=st.sampled_from([2, 4, 8, 16]), order=ORDERS),
    st.builds(Complex, size=st.sampled_from([8, 16, 32]), order=ORDERS),
    st.just(Boolean()),
    st.builds(Enum, base=INTEGERS, members=st.dictionaries(NAMES, st.integers(0, 99), min_size=1, max_size=3)),
    st.builds(String, size=st.none() | st.integers(1, 30), charset=st.sampled_from(["ascii", "utf-8"])),
    st.builds(Opaque, size=st.integers(1, 30)),
    st.builds(Reference, to=st.sampled_from(["object", "region"])),
)


def compound(members: dict[str, tuple[DType, int]]) -> Compound:
    fields, offset = [], 0
    for name, (dtype, gap) in members.items():
        fields.append(Field(name=name, dtype=dtype, offset=offset + gap))
        offset += gap + memory_size(dtype)
    return Compound(fields=tuple(fields), size=offset + len(members))


def wider(inner: st.SearchStrategy[DType]) -> st.SearchStrategy[DType]:
    return st.one_of(
        # Arrays of arrays would come back as one.
        st.builds(
            Array,
            base=inner.filter(lambda dtype: not isinstance(dtype, Array)),
            shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
        ),
        st.builds(Sequence, base=inner),
        st.dictionaries(NAMES, st.tuples(inner, st.integers(0, 3)), min_size=1, max_size=3).map(compound),
    )


# Types that numpy can say exactly.
DTYPES = st.recursive(PLAIN, wider, max_leaves=5)


@given(DTYPES)
def test_every_type_that_numpy_has_survives_every_way(dtype: DType) -> None:
    assert from_numpy(to_numpy(dtype)) == dtype
    assert from_numpy(to_numpy(dtype, references=REFERENCES)) == dtype
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(dtype), type=DType) == dtype
    assert item_size(dtype) == (to_numpy(dtype).itemsize if is_fixed(dtype) else None)
    assert readable(dtype) is dtype


@given(DTYPES)
def test_packing_leaves_no_gap_and_changes_nothing_else(dtype: DType) -> None:
    dense = packed(dtype)

    def total(dtype: DType) -> int:
        match dtype:
            case Compound(fields=fields):
                return sum(total(field.dtype) for field in fields)
            case Array(base=base, shape=shape):
                return total(base) * int(np.prod(shape))
            case _:
                return memory_size(dtype)

    assert memory_size(dense) == total(dtype)
    assert packed(dense) == dense


def test_a_foreign_number_is_read_as_what_the_library_makes_of_it() -> None:
    odd = Foreign(name="int24", size=3, reads_as=Integer(size=4))
    record = Compound(
        fields=(Field(name="a", dtype=odd, offset=1), Field(name="b", dtype=Array(base=odd, shape=(2,)), offset=5)),
        size=16,
    )

    assert readable(record) == Compound(
        fields=(
            Field(name="a", dtype=Integer(size=4), offset=0),
            Field(name="b", dtype=Array(base=Integer(size=4), shape=(2,)), offset=4),
        ),
        size=12,
    )
    assert to_numpy(Sequence(base=odd)).metadata == {"vlen": np.dtype("<i4")}


def test_a_record_with_one_member_that_cannot_be_read_cannot_be_read() -> None:
    time = Foreign(name="time", size=4)
    record = Compound(
        fields=(Field(name="a", dtype=Integer(size=4), offset=0), Field(name="t", dtype=time, offset=4)), size=8
    )

    assert readable(record) is None
    assert readable(Sequence(base=time)) is None
    with pytest.raises(UnsupportedDType):
        to_numpy(record)


@pytest.mark.parametrize("dtype", [np.dtype("U3"), np.dtype("O"), np.dtype("<M8[s]"), np.dtype("S0"), np.dtype("V0")])
def test_what_hdf5_has_no_type_for_is_refused(dtype: np.dtype[Any]) -> None:
    with pytest.raises(UnsupportedDType):
        from_numpy(dtype)


@pytest.mark.parametrize(
    "dtype",
    [
        Integer(size=3),
        Float(size=5),
        Complex(size=4),
        Opaque(size=-1),
        Array(base=Integer(size=4), shape=(2**40, 2**40)),
        Compound(fields=(Field(name="a", dtype=Integer(size=4), offset=2),), size=3),
    ],
)
def test_a_description_that_describes_nothing_is_refused(dtype: DType) -> None:
    with pytest.raises(UnsupportedDType):
        to_numpy(dtype)


@pytest.mark.parametrize("label", ["NUMPY:O", "NUMPY:i4,O", "NUMPY:<i4,<i4", "NUMPY:(2,)i4", "NUMPY:oops("])
def test_a_label_cannot_make_pointers_of_bytes(label: str) -> None:
    assert to_numpy(Opaque(size=8, label=label)) == np.dtype("V8")


def test_numbers_and_bit_fields_are_spelled_alike() -> None:
    assert to_numpy(Bitfield(size=4, order=">")) == np.dtype(">u4")


def test_strings_of_numpy_2_are_of_variable_length() -> None:
    assert from_numpy(np.dtypes.StringDType()) == String(size=None)
