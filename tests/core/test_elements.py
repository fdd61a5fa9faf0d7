"""Elements of variable length become plain values, and arrays again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.dtypes import (
    Array,
    Compound,
    DType,
    Field,
    Float,
    Integer,
    Reference,
    Sequence,
    String,
    from_numpy,
    to_numpy,
)
from ndstream.core.elements import flatten, restore
from ndstream.errors import ProtocolError

TEXT = String(size=None)
MIXED = Compound(
    fields=(
        Field(name="id", dtype=Integer(size=4, order=">"), offset=0),
        Field(name="text", dtype=TEXT, offset=4),
        Field(name="values", dtype=Sequence(base=Float(size=4)), offset=12),
        Field(name="pair", dtype=Array(base=TEXT, shape=(2,)), offset=28),
        Field(name="grid", dtype=Array(base=Integer(size=2), shape=(2, 2)), offset=44),
    ),
    size=52,
)


def same(left: Any, right: Any) -> bool:
    """Whether arrays of objects and records are equal in type and value, at every depth."""
    if isinstance(left, np.ndarray | np.void) and isinstance(right, np.ndarray | np.void):
        if left.shape != right.shape or left.dtype != right.dtype:
            return False
        if left.dtype.names:
            return all(same(left[name], right[name]) for name in left.dtype.names)
        if left.dtype.hasobject:
            return all(same(mine, other) for mine, other in zip(left.ravel(), right.ravel(), strict=True))
        return left.tobytes() == right.tobytes()
    return type(left) is type(right) and bool(left == right)


def elements(dtype: DType) -> st.SearchStrategy[Any]:
    """Draw elements of a type as they travel."""
    match dtype:
        case String():
            return st.binary(max_size=5).map(lambda text: text.replace(b"\0", b""))
        case Sequence(base=Integer() | Float() as base):
            width = base.size
            return st.integers(0, 3).map(lambda count: bytes(range(1, count * width + 1)))
        case Sequence(base=base):
            return st.lists(elements(base), max_size=3)
        case Array(base=Integer() | Float() as base, shape=shape):
            count = base.size * int(np.prod(shape))
            return st.binary(min_size=count, max_size=count)
        case Array(base=base, shape=shape):
            count = int(np.prod(shape))
            return st.lists(elements(base), min_size=count, max_size=count)
        case Compound(fields=fields):
            return st.tuples(*(elements(field.dtype) for field in fields)).map(list)
        case Reference():
            return st.none() | st.text()
        case Integer() | Float():
            return st.binary(min_size=dtype.size, max_size=dtype.size)
    raise AssertionError(dtype)


DTYPES: list[DType] = [
    TEXT,
    String(size=None, charset="ascii"),
    Sequence(base=Integer(size=2, order=">")),
    Sequence(base=Sequence(base=TEXT)),
    Sequence(base=Array(base=TEXT, shape=(2,))),
    Array(base=TEXT, shape=(2, 3)),
    Array(base=Array(base=TEXT, shape=(2,)), shape=(3,)),
    Reference(to="object"),
    MIXED,
    Sequence(base=MIXED),
    Array(base=MIXED, shape=(2,)),
]


@given(st.sampled_from(DTYPES).flatmap(lambda dtype: st.tuples(st.just(dtype), st.lists(elements(dtype), max_size=4))))
def test_a_list_becomes_an_array_and_the_same_list_again(case: tuple[DType, list[Any]]) -> None:
    dtype, values = case

    array = restore(values, dtype, (len(values),))

    assert flatten(array, dtype) == values
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(values)) == values


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_may_have_any_shape(dtype: DType) -> None:
    for shape in ((), (0,), (2, 0), (2, 1, 3)):
        count = int(np.prod(shape))
        blank = restore([blank_of(dtype)] * count, dtype, shape)
        assert blank.shape == shape + to_numpy(dtype).shape
        assert blank.dtype == to_numpy(dtype).base
        assert len(flatten(blank, dtype)) == count


def blank_of(dtype: DType) -> Any:
    match dtype:
        case String() | Sequence(base=Integer() | Float()):
            return b""
        case Sequence():
            return []
        case Array(base=base, shape=shape):
            count = int(np.prod(shape))
            return bytes(base.size * count) if isinstance(base, Integer) else [blank_of(base)] * count
        case Compound(fields=fields):
            return [blank_of(field.dtype) for field in fields]
        case Integer(size=size):
            return bytes(size)
        case _:
            return None


def records() -> NDArray[Any]:
    array = np.empty((2, 2), to_numpy(MIXED))
    for index in np.ndindex(2, 2):
        number = sum(index)
        array[index] = (number, b"text", np.arange(number, dtype="<f4"), [b"a", b"bc"], [[1, 2], [3, number]])
    return array


@pytest.mark.parametrize(
    "values",
    [
        np.array([[b"one", b""], ["zw\u00f6lf".encode(), b"3"]], h5py.string_dtype()),
        np.array([b"x"], h5py.string_dtype("ascii")).reshape(()),
        records(),
    ],
)
def test_the_array_is_the_one_that_h5py_reads(tmp_path: Path, values: NDArray[Any]) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["values"] = values
        read = file["values"][()] if values.shape else np.asarray(file["values"][()], values.dtype)
        dtype = from_numpy(file["values"].dtype)

    assert same(restore(flatten(read, dtype), dtype, values.shape), read)


def test_references_become_what_stands_for_them() -> None:
    array = np.array(["first", None], dtype=object)

    assert flatten(array, Reference(to="object"), name_of=lambda ref: ref and f"/{ref}") == ["/first", None]


def test_arrays_that_come_back_can_be_written_to() -> None:
    array = restore([b"\1\0\2\0"], Sequence(base=Integer(size=2)), (1,))

    array[0][0] = 7

    assert array[0].tolist() == [7, 2]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([b"a", b"b"], TEXT),
        (["text"], TEXT),
        ([3], Sequence(base=Integer(size=4))),
        ([b"12345"], Sequence(base=Integer(size=4))),
        ([[b"1"]], Sequence(base=Integer(size=4))),
        ([[b"a"]], Array(base=TEXT, shape=(2,))),
        ([[b"1234", b"x"]], MIXED),
        ([b"1234"], MIXED),
        ([None], MIXED),
        ([[b"123", b"", b"", [b"", b""], bytes(8)]], MIXED),
        ([[None]], Sequence(base=TEXT)),
    ],
)
def test_lists_that_are_not_what_they_should_be_are_refused(values: list[Any], dtype: DType) -> None:
    with pytest.raises(ProtocolError):
        restore(values, dtype, (1,))
