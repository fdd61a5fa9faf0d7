"""Casting elements does what HDF5 does; what h5py stores of an array of another type is the oracle."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import from_dtype
from numpy.typing import NDArray

from ndstream.core.casting import array_of, cast, check_cast
from ndstream.core.dtypes import String, from_numpy
from ndstream.core.operations import Payload
from ndstream.errors import InvalidRequest, UnsupportedDType

INTEGERS = ["<i1", "<u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8"]
FLOATS = ["<f4", "<f8"]
EDGES = [0.0, -0.0, -0.5, 0.5, -1.0, 127.9, 128.0, 255.0, 256.0, -32769.0, 65535.5, 65536.0, np.nan, np.inf, -np.inf]
EDGES += [sign * 2.0**power for sign in (1, -1) for power in (15, 31, 32, 62)] + [1e30, -1e30, 1e-30]


def stored(values: NDArray[Any], target: Any) -> Any:
    """What h5py stores of an array in a dataset of another type."""
    with h5py.File.in_memory() as file:
        dataset = file.create_dataset("x", values.shape, target)
        dataset[...] = values
        return dataset[...]


def converted(values: NDArray[Any], target: Any) -> Any:
    source, wanted = from_numpy(values.dtype), from_numpy(np.dtype(target))
    check_cast(source, wanted)
    return cast(values, source, wanted)


def beyond_what_hdf5_clips(values: NDArray[Any], target: np.dtype[Any]) -> Any:
    """HDF5 compares with the largest integer as a float, which is one more: it wraps what is just that."""
    if target.kind not in "iu" or values.dtype.kind != "f":
        return np.zeros(values.shape, bool)
    return values == float(np.iinfo(target).max + 1)


@given(data=st.data(), source=st.sampled_from(INTEGERS + FLOATS), target=st.sampled_from(INTEGERS + FLOATS))
def test_numbers_become_what_hdf5_makes_of_them(data: st.DataObject, source: str, target: str) -> None:
    kind = np.dtype(source)
    numbers: Any = from_dtype(kind)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            numbers = numbers | st.sampled_from([kind.type(edge) for edge in EDGES])
    values = np.array(data.draw(st.lists(numbers, max_size=20)), kind)
    values = values[~beyond_what_hdf5_clips(values, np.dtype(target))]
    found = converted(values, target)
    assert found.dtype == np.dtype(target)
    np.testing.assert_array_equal(found, stored(values, target))
    # Of swapped integers HDF5 wraps some, such as 2**31 of <u4 in >i4.
    swapped = converted(values.astype(kind.newbyteorder(">")), np.dtype(target).newbyteorder(">"))
    np.testing.assert_array_equal(found, swapped)


def test_what_hdf5_forgets_to_clip_is_clipped() -> None:
    assert converted(np.array([2.0**63, -(2.0**63)]), "<i8").tolist() == [2**63 - 1, -(2**63)]
    assert converted(np.array([2.0**64, 2.0**63]), "<u8").tolist() == [2**64 - 1, 2**63]
    assert converted(np.array([2.0**31, 2.0**32], "f4"), "<u4").tolist() == [2**31, 2**32 - 1]
    halves = np.array([-1, np.inf, -np.inf, np.nan, 7.9], "f2")
    assert converted(halves, "<u2").tolist() == [0, 65535, 0, 0, 7]
    assert converted(halves, "<i8").tolist() == [-1, 2**63 - 1, -(2**63), -(2**63), 7]
    assert converted(np.array([70000.0, -1e-9]), "<f2").tolist() == [np.inf, 0]


RECORD = np.dtype([("k", "<i4"), ("v", "<u1"), ("w", "<f8")])


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (np.array([0, 1, 2, 300]), bool),
        (np.array([True, False]), "<f4"),
        (np.array([1e300 + 2j]), "<c8"),
        (np.array([1, 2, 300]), h5py.enum_dtype({"A": 1, "B": 2}, "i1")),
        (np.array([b"abcdef", b"", b"xy"]), "S3"),
        (np.array([(300, 1.5, 2**40)], [("v", "<i2"), ("w", ">f4"), ("k", "<i8")]), RECORD),
        (np.array([(300, [1, 2])], [("a", "<i4"), ("n", "<f8", (2,))]), [("a", "<i1"), ("n", "<u1", (2,))]),
    ],
    ids=str,
)
def test_other_elements_become_what_hdf5_makes_of_them(values: NDArray[Any], target: Any) -> None:
    np.testing.assert_array_equal(converted(values, target), stored(values, target))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("<c16", "<i4"),
        ("<c16", "<f8"),
        ("<f8", bool),
        ("<f8", h5py.enum_dtype({"A": 1}, "i1")),
        ("S3", "<i4"),
        ("<i4", "S3"),
        ([("k", "<i4"), ("q", "<i4")], [("k", "<i4"), ("v", "<i4")]),
    ],
    ids=str,
)
def test_what_hdf5_has_no_conversion_for_is_refused(source: Any, target: Any) -> None:
    with pytest.raises(UnsupportedDType):
        check_cast(from_numpy(np.dtype(source)), from_numpy(np.dtype(target)))


def test_text_with_a_nul_is_no_text_of_variable_length() -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        converted(np.array([b"a\0b"]), h5py.string_dtype())
    with pytest.raises(InvalidRequest, match="NUL"):
        array_of(Payload(dtype=String(), shape=(1,), data=[b"a\0b"]))
