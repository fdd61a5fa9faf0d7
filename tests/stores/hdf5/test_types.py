"""Types of the HDF5 library are described exactly, whatever numpy can say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5s, h5t

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
    item_size,
    memory_size,
    to_numpy,
)
from ndstream.errors import UnsupportedDType
from ndstream.stores.hdf5.dtypes import kind_of, type_id, type_of

EXACT: list[DType] = [
    *(Integer(size=size, signed=signed, order=order) for size in (2, 4, 8) for signed in (0, 1) for order in "<>"),  # type: ignore[arg-type]  # literals
    Integer(size=1),
    Integer(size=1, signed=False),
    *(Float(size=size, order=order) for size in (2, 4, 8, 16) for order in ("<", ">")),
    *(Complex(size=size, order=order) for size in (8, 16, 32) for order in ("<", ">")),
    Boolean(),
    Bitfield(size=1),
    Bitfield(size=8, order=">"),
    Enum(base=Integer(size=2, order=">"), members={"z": 5, "a": -7, "m\u00e4": 0}),
    Enum(base=Integer(size=8, signed=False), members={"most": 2**63 - 1}),
    Enum(base=Integer(size=1), members={"FALSE": 0, "TRUE": 1, "MAYBE": 2}),
    Enum(base=Integer(size=4), members={"FALSE": 0, "TRUE": 1}),
    *(
        String(size=6, charset=charset, padding=padding)
        for charset in ("ascii", "utf-8")
        for padding in ("null-terminated", "null-padded", "space-padded")
    ),
    String(size=None, charset="ascii"),
    String(size=None, charset="utf-8"),
    Opaque(size=3, label="of somebody"),
    Opaque(size=8, label="NUMPY:<M8[D]"),
    Array(base=Float(size=4), shape=(2, 3)),
    Array(base=Array(base=Integer(size=1), shape=(2,)), shape=(3,)),
    Sequence(base=Integer(size=4, order=">")),
    Sequence(base=Sequence(base=String(size=None))),
    Reference(to="object"),
    Reference(to="region"),
    Compound(
        fields=(
            Field(name="late", dtype=Float(size=8, order=">"), offset=3),
            Field(name="bits", dtype=Bitfield(size=2), offset=12),
            Field(
                name="inner",
                dtype=Compound(fields=(Field(name="r", dtype=Float(size=4), offset=1),), size=7),
                offset=16,
            ),
        ),
        size=30,
    ),
    Compound(
        fields=(Field(name="r", dtype=Float(size=4), offset=0), Field(name="i", dtype=Float(size=4), offset=8)), size=12
    ),
]


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_a_type_is_the_same_after_the_library(dtype: DType) -> None:
    assert type_of(type_id(dtype)) == dtype


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_a_type_is_the_same_after_a_file(dtype: DType, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        h5d.create(file.id, b"d", type_id(dtype), h5s.create_simple((1,)))
    with h5py.File(tmp_path / "file.h5") as file:
        stored = file["d"].id.get_type()
        found = kind_of(stored)

    assert found.dtype == dtype
    assert found.handle == memory_size(dtype) == stored.get_size()
    assert found.size == item_size(dtype)


def numbers() -> list[str]:
    return [order + code for order in "<>" for code in ("i2", "u8", "f2", "f4", "f8", "f16", "c8", "c16", "c32")]


@pytest.mark.parametrize("spelling", [*numbers(), "i1", "?", "S5", "V5"])
def test_what_h5py_writes_is_spelled_as_h5py_spells_it(spelling: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        dataset = file.create_dataset("d", (1,), np.dtype(spelling))
        assert to_numpy(type_of(dataset.id.get_type())) == dataset.dtype
        assert type_id(type_of(dataset.id.get_type())).equal(dataset.id.get_type())


VLEN = h5py.vlen_dtype(np.dtype("<i4"))


@pytest.mark.parametrize(
    "record",
    [
        [("l", VLEN), ("v", "<i4")],
        [("v", "<i1"), ("l", VLEN, (2,)), ("w", "<f8")],
        [("r", h5py.regionref_dtype), ("s", h5py.string_dtype()), ("v", "<i4")],
        [("inner", [("l", VLEN), ("a", "<i1")]), ("w", "<f8")],
        {"names": ["b", "a"], "formats": [VLEN, "<i4"], "offsets": [4, 0], "itemsize": 40},
        {"names": ["a", "b"], "formats": ["<i2", ">f4"], "offsets": [2, 8], "itemsize": 20},
    ],
    ids=str,
)
def test_members_of_records_are_where_h5py_puts_them(record: Any) -> None:
    spelled = np.dtype(record)
    dtype = from_numpy(spelled)
    assert type_id(dtype).equal(h5t.py_create(spelled, logical=True))
    assert from_numpy(to_numpy(dtype)) == dtype


def integer(size: int, precision: int, offset: int = 0, base: h5t.TypeID = h5t.STD_I64LE) -> h5t.TypeID:
    kind = base.copy()
    kind.set_precision(precision)
    kind.set_offset(offset)
    kind.set_size(size)
    return kind


def floating(size: int, exponent: int, mantissa: int, bias: int) -> h5t.TypeID:
    kind = h5t.IEEE_F64LE.copy()
    kind.set_fields(exponent + mantissa, mantissa, exponent, 0, mantissa)
    kind.set_ebias(bias)
    kind.set_precision(exponent + mantissa + 1)
    kind.set_size(size)
    return kind


@pytest.mark.parametrize(
    ("kind", "reads_as"),
    [
        (lambda: integer(3, 24), Integer(size=4)),
        (lambda: integer(4, 12, 3), Integer(size=2)),
        (lambda: integer(2, 8), Integer(size=1)),
        (lambda: integer(7, 50, base=h5t.STD_U64BE), Integer(size=8, signed=False)),
        (lambda: floating(2, 8, 7, 127), Float(size=4)),
        (lambda: floating(1, 4, 3, 7), Float(size=2)),
        (lambda: floating(1, 5, 2, 15), Float(size=2)),
        (lambda: floating(4, 8, 23, 100), Float(size=8)),
        (lambda: h5t.IEEE_F128LE, Float(size=16)),
        (lambda: h5t.COMPLEX_IEEE_F16LE, Complex(size=8)),
    ],
)
def test_unusual_numbers_say_what_they_are_read_as(kind: Callable[[], h5t.TypeID], reads_as: DType) -> None:
    stored = kind()

    dtype = type_of(stored)

    assert isinstance(dtype, Foreign)
    assert dtype.reads_as == reads_as
    assert dtype.size == stored.get_size()
    assert kind_of(stored).target == reads_as


def test_native_complex_numbers_are_complex() -> None:
    assert type_of(h5t.COMPLEX_IEEE_F64BE) == Complex(size=16, order=">")
    assert type_of(h5t.COMPLEX_IEEE_F32LE) == Complex(size=8)


def test_a_time_is_named_and_cannot_be_read() -> None:
    assert type_of(h5t.UNIX_D64LE) == Foreign(name="time", size=8)
    assert kind_of(h5t.UNIX_D64LE).target is None


@pytest.mark.parametrize(
    "dtype",
    [
        Foreign(name="time", size=4),
        Integer(size=3),
        Enum(base=Integer(size=8, signed=False), members={"most": 2**64 - 1}),
        Enum(base=Integer(size=4), members={f"n{number}": number for number in range(60_000)}),
        Compound(
            fields=tuple(Field(name=f"n{n}", dtype=Integer(size=1), offset=n) for n in range(10_000)), size=10_000
        ),
    ],
)
def test_what_h5py_cannot_write_is_refused(dtype: DType) -> None:
    with pytest.raises(UnsupportedDType):
        type_id(dtype)


def test_nesting_has_an_end() -> None:
    kind: Any = h5t.STD_I8LE
    for _ in range(100):
        kind = h5t.array_create(kind, (1,))

    dtype = type_of(kind)

    while isinstance(dtype, Array):
        dtype = dtype.base
    assert isinstance(dtype, Foreign)
    assert kind_of(kind).target is None


def test_equal_types_are_examined_once() -> None:
    assert kind_of(h5t.array_create(h5t.STD_I32LE, (4,))) is kind_of(h5t.array_create(h5t.STD_I32LE, (4,)))


def test_a_committed_type_does_not_keep_its_file_open(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["type"] = np.dtype([("only here", "<i4")])
        file.create_dataset("d", (1,), file["type"])
        kind_of(file["d"].id.get_type())

    with h5py.File(tmp_path / "file.h5", "a"):  # would fail if it were
        pass
