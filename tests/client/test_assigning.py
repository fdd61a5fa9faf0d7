"""What is assigned through ndstream reads as what h5py stores; plain h5py does the same beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.errors import InvalidRequest, InvalidSelection, UnsupportedDType
from ndstream.testing.fixtures import ServerFactory

pytestmark = pytest.mark.keeps_open("the tests share a server")

NUMBERS = count()
VLEN = h5py.vlen_dtype(np.dtype("<i4"))
TEXT = h5py.string_dtype()
RECORD = np.dtype([("k", "<i4"), ("v", "<i4"), ("w", "<f8")])
SWAPPED = np.array([(5, 9, 1.5), (6, 8, 2.5)], [("v", "<i4"), ("k", "<i8"), ("w", "<f4")])
TEXTS = np.dtype([("s", TEXT), ("v", "<i4")])
PAIRS = np.dtype([("a", "<u1"), ("b", "<i2", (2,))])
MIXED = np.dtype([("l", VLEN), ("v", "<i4"), ("s", TEXT), ("m", VLEN, (2,))])
ENUM = h5py.enum_dtype({"A": 1, "B": 2}, "i1")


@pytest.fixture(scope="module")
def remote(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("served")
    server = ndstream_module_server(path, writable={"/": []}, limits={"workers": 1})
    return ndstream.open(server.url, "f.h5", mode="a"), path / "f.h5"


@pytest.fixture(scope="module")
def oracle() -> Iterator[Any]:
    with h5py.File.in_memory() as file:
        yield file


def plain(value: Any) -> Any:
    """Nothing but lists, tuples and values of Python, so that arrays of objects can be compared."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return repr(value) if isinstance(value, float) else value


def compare(remote: Any, oracle: Any, work: Callable[[Any, str], Any], name: str = "") -> None:
    """Do the same with both, and compare what plain h5py reads then."""
    (file, path), name = remote, name or f"x{next(NUMBERS)}"
    work(oracle, name)
    work(file, name)
    with h5py.File(path) as stored:
        found, wanted = stored[name], oracle[name]
        assert plain(found[()]) == plain(wanted[()])
        assert found.shape == wanted.shape
        assert found.id.get_type().equal(wanted.id.get_type())
        assert sorted(found.attrs) == sorted(wanted.attrs)
        for each in wanted.attrs:
            assert plain(found.attrs[each]) == plain(wanted.attrs[each])
            assert found.attrs.get_id(each).get_type().equal(wanted.attrs.get_id(each).get_type())


def objects(*items: Any) -> Any:
    """Make an array of objects of these very items."""
    made = np.empty(len(items), object)
    for number, item in enumerate(items):
        made[number] = item
    return made


LISTS = [[1, 2], [3], [], [4, 5, 6]]
ASSIGNED: list[Any] = [
    # sequences
    (VLEN, 4, ..., objects(*LISTS)),
    (VLEN, 4, ..., LISTS),
    (VLEN, 4, ..., tuple(map(tuple, LISTS))),
    *[(VLEN, 4, ..., objects(*[np.array(item, kind) for item in LISTS])) for kind in ("<i4", ">i4", "<i8", "<f8")],
    (h5py.vlen_dtype(np.dtype("<f8")), 2, ..., objects(np.array([1.5, 2.5], "<f4"), np.array([1], "<i2"))),
    (h5py.vlen_dtype(np.dtype(">i2")), 2, ..., objects(np.array([1, 2]), np.array([3]))),
    (VLEN, 2, ..., [[1, 2], [3, 4]]),
    (VLEN, 2, ..., np.array([[1, 2], [3, 4]], "<f8")),
    (VLEN, 4, 0, [1, 2, 3]),
    (VLEN, 4, 1, np.array([1.0, 2.0])),
    (VLEN, 4, np.s_[1:3], [1, 2]),
    (VLEN, 4, 0, []),
    (h5py.vlen_dtype(TEXT), 2, 0, ["a", "größer"]),
    # numbers
    ("<u1", 4, ..., np.array([300, -5, 1, 2])),
    ("<u1", 4, ..., np.array([300.0, -5.0, 1.7, np.nan])),
    ("<i2", 4, ..., np.array([1e6, -1e6, np.inf, -2.5])),
    ("<i4", 4, ..., np.array([2**40, -(2**40), 1, np.iinfo("i4").min])),
    ("<u8", 4, ..., np.array([-1, 2, 3, 4])),
    ("<i8", 1, ..., np.array([2**64 - 1], "<u8")),
    (">f4", 4, ..., np.array([1e300, -1e300, 0.1, -0.0])),
    ("<i4", 4, ..., ["1", "2", "3", "4"]),
    ("<f8", 2, ..., [None, 2**70]),
    ("<i4", 4, ..., 2.9),
    (bool, 4, ..., np.array([0, 1, 2, 300])),
    (ENUM, 3, ..., np.array([1, 2, 300])),
    ("<c8", 2, ..., [1, 2.5]),
    # records
    (RECORD, 2, ..., SWAPPED),
    (RECORD, 2, ..., [(1, 2, 3.5), (4, 5, 6.5)]),
    (RECORD, 2, 0, (1, 2, 3)),
    (PAIRS, 1, ..., np.array([([1e6, 2], 300)], [("b", "<f8", (2,)), ("a", "<i4")])),
    (np.dtype([("a", RECORD), ("b", "S3")]), 1, ..., [((1, 2, 3), b"abcdef")]),
    (TEXTS, 2, 0, ("größer", 3)),
    (TEXTS, 2, ..., [("a", 1), ("b", 2)]),
    (TEXTS, 2, ..., np.array([(b"a", 1), ("b", 2)], [("s", "O"), ("v", "<i8")])),
    (MIXED, 2, 0, (np.array([1, 2], "<i4"), 3, "größer", [np.array([], "<i4"), np.array([4], "<i4")])),
    # text, arrays, and axes of one in front
    ("<i4", 4, ..., [[1, 2, 3, 4]]),
    ("<i4", 4, 1, [[5]]),
    (VLEN, 4, 1, [[1, 2]]),
    (np.dtype(("<i4", (3,))), 2, 1, [[1, 2, 3]]),
    (np.dtype(("<i4", (3,))), 2, ..., [[[1, 2, 3], [4, 5, 6]]]),
    (np.dtype(("<i4", (3,))), 2, ..., [[1, 2, 3]]),
    ("S3", 2, ..., ["abcdef", "b"]),
    (h5py.string_dtype("utf-8", 3), 2, ..., ["éé", "b"]),
    (TEXT, 2, ..., np.array([b"\xff", b"b"])),
    (np.dtype(("<i4", (3,))), 2, ..., [[1, 2, 3], [4, 5, 6]]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ASSIGNED)), ids=lambda number: f"{ASSIGNED[number][0]}-{number}")
def test_what_is_assigned_reads_as_what_h5py_stores(remote: Any, oracle: Any, number: int) -> None:
    dtype, length, key, value = ASSIGNED[number]

    def assign(file: Any, name: str) -> None:
        file.create_dataset(name, (length,), dtype)[key] = value

    compare(remote, oracle, assign)


MADE: list[Any] = [
    {"data": objects(np.array([1, 2], "<i4"), np.array([3], "<i4")), "dtype": VLEN},
    {"data": [np.array([1.0, 2.0]), np.array([3.0])], "dtype": VLEN},
    {"data": np.array([300.0, -1.5]), "dtype": "<u1"},
    {"data": SWAPPED, "dtype": RECORD},
    {"data": b"ab"},
    {"data": [b"ab", b"c"]},
    {"data": np.bytes_(b"ab")},
    {"data": np.array([b"ab", b"c"])},
    {"data": np.array([b"ab", b"c"], object)},
    {"data": ["a", "größer"]},
]


@pytest.mark.parametrize("number", range(len(MADE)))
def test_what_is_made_or_set_reads_as_what_h5py_stores(remote: Any, oracle: Any, number: int) -> None:
    options = MADE[number]

    def make(file: Any, name: str) -> None:
        made = file.create_dataset(name, **options)
        if options.get("dtype", VLEN) is VLEN:  # else h5py has numpy cast, by position and without a check
            made.attrs.create("a", options["data"], dtype=options.get("dtype"))

    compare(remote, oracle, make)


REFUSED: list[Any] = [
    ("<i4", np.array([1 + 2j])),
    ("<f8", [1 + 2j]),
    ("<i4", [np.complex128(1 + 2j)]),
    ("<i8", np.array([1], "M8[s]")),
    ("<f8", np.array([1], "m8[s]")),
    ("<i4", None),
    ("<i4", np.array(["1"])),
    ("<i4", np.array([b"1"])),
    ("<i4", [float("nan")]),
    ("<u1", [300]),
    ("<u1", -1),
    ("<i4", 2**70),
    (bool, np.array([0.5])),
    (ENUM, np.array([1.5])),
    (TEXT, [1]),
    (TEXT, ["a\0b"]),
    (TEXTS, [("a\0b", 1)]),
    (VLEN, None),
    (VLEN, "ab"),
    (VLEN, [[1, "a"], [2]]),
    (VLEN, [[2**40], [1]]),
]


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda number: f"{REFUSED[number][0]}-{number}")
def test_what_h5py_refuses_is_refused_with_a_word(remote: Any, oracle: Any, number: int) -> None:
    (dtype, value), name = REFUSED[number], f"x{next(NUMBERS)}"
    for file, errors in ((oracle, Exception), (remote[0], (InvalidRequest, UnsupportedDType))):
        made = file.create_dataset(name, (1,), dtype)
        with pytest.raises(errors):
            made[...] = value


def test_attributes_and_single_records_are_converted_by_the_same_rule(remote: Any) -> None:
    file = remote[0]
    file.attrs.create("clipped", np.array([300.0, -1.5]), dtype="<u1")
    file.attrs.create("named", SWAPPED, dtype=RECORD)
    file.attrs.create("lists", LISTS, dtype=VLEN)
    assert file.attrs["clipped"].tolist() == [255, 0]
    assert file.attrs["named"].tolist() == [(9, 5, 1.5), (8, 6, 2.5)]
    assert [item.tolist() for item in file.attrs["lists"]] == LISTS
    made = file.create_dataset(f"x{next(NUMBERS)}", (2,), RECORD)
    made[1] = SWAPPED[0]
    made[0:1] = [SWAPPED[1]]
    assert made[...].tolist() == [(8, 6, 2.5), (9, 5, 1.5)]


def test_sequences_of_one_element_are_sequences(remote: Any) -> None:
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (2,), VLEN)
    made[...] = objects(np.array([7]), np.array([8]))
    assert [item.tolist() for item in made[...]] == [[7], [8]]
    made[...] = objects(None, [9])
    assert [item.tolist() for item in made[...]] == [[], [9]]


def test_sequences_and_text_in_records_may_be_of_any_type(remote: Any) -> None:
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (2,), MIXED)
    made[0] = ([1, 2], 3, "größer", ([], [4]))
    loose = np.dtype([("s", object), ("m", object, (2,)), ("v", "<i8"), ("l", object)])
    made[1] = np.array(("a", [np.array([0.5]), None], 2**40, np.array([7.9])), loose)
    assert plain(made[1]) == [[7], 2**31 - 1, b"a", [[0], []]]
    assert plain(made[0]) == [[1, 2], 3, "größer".encode(), [[], [4]]]
    with pytest.raises(UnsupportedDType):
        made[0] = ([1, 2], 3, 5, ([], [4]))
    made[...] = made[...][::-1]
    assert plain(made[1]) == [[1, 2], 3, "größer".encode(), [[], [4]]]


def test_numbers_of_numpy_never_wrap_where_h5py_lets_numpy_cast_them(remote: Any) -> None:
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (2,), "<u1")
    made[...] = np.int64(300)
    assert made[...].tolist() == [255, 255]
    made[...] = np.float64(-3e20)
    assert made[...].tolist() == [0, 0]
    for value in ([np.int64(300), 1], [np.array([300, 1])]):
        with pytest.raises(InvalidRequest, match="fit"):
            made[...] = value
    with pytest.raises(UnsupportedDType):
        made[...] = np.datetime64("2020-01-01")


def test_members_that_are_missing_are_not_made_up(remote: Any) -> None:
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (1,), RECORD)
    with pytest.raises(UnsupportedDType, match="members"):
        made[...] = np.array([(1, 2)], [("k", "<i4"), ("w", "<f8")])


def test_rows_that_are_appended_go_by_the_names_of_their_members(remote: Any) -> None:
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (0,), RECORD, maxshape=(None,))
    made.append(SWAPPED)
    assert made[...].tolist() == [(9, 5, 1.5), (8, 6, 2.5)]
    made.append(np.array([(7, 9, 0)], [("v", "<i4"), ("k", "<i8"), ("w", "<f4")]), key="k")
    assert made[...].tolist() == [(9, 7, 0), (8, 6, 2.5)]
    rows = remote[0].create_dataset(f"x{next(NUMBERS)}", (0,), VLEN, maxshape=(None,))
    assert (rows.append(LISTS), rows.append([7, 8]), rows.append(objects(np.array([9.0])))) == (0, 4, 5)
    assert [row.tolist() for row in rows[...]] == [*LISTS, [7, 8], [9]]


@pytest.mark.parametrize("value", [None, [None, "a"], {"a": 1}, [[1], [2, 3]], np.datetime64("2020-01-01")])
def test_an_attribute_is_not_set_to_what_has_no_type(remote: Any, oracle: Any, value: Any) -> None:
    for file, errors in ((oracle, Exception), (remote[0], UnsupportedDType)):
        with pytest.raises(errors):
            file.attrs["a"] = value


@pytest.mark.parametrize("value", [b"a\0b", b"ab\0", "a\0b", [b"a", b"b\0"]])
def test_text_with_a_nul_is_refused(remote: Any, oracle: Any, value: Any) -> None:
    for file, errors in ((oracle, ValueError), (remote[0], InvalidRequest)):
        with pytest.raises(errors, match="NUL"):
            file.attrs["a"] = value
        with pytest.raises(errors, match="NUL"):
            file.create_dataset(f"x{next(NUMBERS)}", data=value)


SHAPED: list[Any] = [
    {"shape": 5},
    {"shape": (np.int64(5),)},
    {"shape": [5], "maxshape": 10},
    {"shape": (5,), "maxshape": (np.int64(10),), "chunks": 2},
    {"shape": (5,), "maxshape": [None], "chunks": (np.int32(2),)},
    {"shape": (5,), "compression": "gzip", "compression_opts": np.int64(3)},
    {"shape": (5,), "compression": True},
    {"shape": (5,), "dtype": "<i4", "fillvalue": np.int64(7)},
    {"shape": (5,), "dtype": "<u1", "fillvalue": 300},
    {"shape": (5,), "dtype": "<i4", "fillvalue": 7.9},
    {"shape": (2,), "dtype": "S3", "fillvalue": b"abcdef"},
    {"shape": (2,), "dtype": RECORD, "fillvalue": np.array((1, 2, 3.5), RECORD)},
]


@pytest.mark.parametrize("number", range(len(SHAPED)))
def test_lengths_may_be_integers_of_any_kind(remote: Any, oracle: Any, number: int) -> None:
    options = {"dtype": "<f4", **SHAPED[number]}
    name = f"x{next(NUMBERS)}"
    compare(remote, oracle, lambda file, _: file.create_dataset(name, **options), name)
    made, wanted = remote[0][name], oracle[name]
    assert (made.maxshape, made.compression_opts) == (wanted.maxshape, wanted.compression_opts)
    if "chunks" in options:
        assert made.chunks == wanted.chunks


def test_a_dataset_gets_lengths_that_are_integers_of_any_kind(remote: Any) -> None:
    assert remote[0].create_dataset(f"x{next(NUMBERS)}", np.int64(3), "<i4", chunks=np.int64(2)).chunks == (2,)
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (2, 2), "<i4", maxshape=(None, None))
    made.resize(np.int64(4), axis=np.int64(0))
    assert made.shape == (4, 2)
    made.resize((np.int64(3), 2))
    assert made.shape == (3, 2)
    made.resize([2, 2])
    made.append([1, 2], axis=np.int64(0))
    made.insert(np.int8(0), [[3, 4]])
    assert made[...].tolist() == [[3, 4], [0, 0], [0, 0], [1, 2]]
    made.attrs.create("a", [1, 2], shape=np.int64(2))
    for wrong in (2.5, "2", (2, None)):
        with pytest.raises(InvalidRequest, match="no integer"):
            made.resize(wrong)
    with pytest.raises(InvalidRequest, match="no axis 2"):
        made.resize(1, axis=2)
    with pytest.raises(InvalidRequest, match="no integer"):
        made.resize(1.5, axis=0)


def test_a_type_alone_makes_a_null_dataspace(remote: Any) -> None:
    name = f"x{next(NUMBERS)}"
    remote[0].create_dataset(name, dtype="<i2")
    assert (remote[0][name].shape, remote[0][name].dtype) == (None, np.dtype("<i2"))
    with pytest.raises(InvalidRequest, match="needs a shape"):
        remote[0].create_dataset(f"x{next(NUMBERS)}")
    with pytest.raises(InvalidRequest, match="compression_opts"):
        remote[0].create_dataset(f"x{next(NUMBERS)}", (2,), "<i2", compression_opts=4)


def test_what_has_no_fill_value_gets_none(remote: Any) -> None:
    with pytest.raises(UnsupportedDType, match="fill"):
        remote[0].create_dataset("text", (2,), TEXT, fillvalue="ab")
    with pytest.raises(InvalidRequest, match="one element"):
        remote[0].create_dataset("pair", (2,), "<i4", fillvalue=[1, 2])


@pytest.mark.parametrize("key", ["k", ("k", slice(0, 1)), (slice(0, 1), "k"), ("k", "v")])
def test_fields_are_not_assigned_to_alone(remote: Any, key: Any) -> None:
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (2,), RECORD)
    with pytest.raises(InvalidSelection, match="whole records"):
        made[key] = 1


def test_what_is_too_large_for_hdf5_is_an_error_of_the_request(remote: Any) -> None:
    file = remote[0]
    file.attrs["kept"] = 5
    for name, value in (("kept", np.zeros(70_000, "<u1")), ("texts", ["x"] * 5000), ("n" * 70_000, 1)):
        with pytest.raises(InvalidRequest, match="64 KiB"):
            file.attrs[name] = value
    assert file.attrs["kept"] == 5
    for shape, options in (
        ((2**61,), {}),
        ((2**63,), {"chunks": 10}),
        ((2**40, 2**30), {"chunks": (10, 10)}),
        ((2**64,), {"maxshape": None}),
    ):
        with pytest.raises(InvalidRequest):
            file.create_dataset("large", shape, "<f8", **options)
    assert "large" not in file
    made = file.create_dataset("large", (2**61,), "<f8", chunks=10, maxshape=(None,))
    made[-1] = 5
    assert made[-2:].tolist() == [0, 5]
    with pytest.raises(InvalidRequest):
        made.resize(2**64)


def test_nothing_can_be_appended_by_a_key(remote: Any) -> None:
    made = remote[0].create_dataset(f"x{next(NUMBERS)}", (0,), RECORD, maxshape=(None,))
    assert (made.append([], key="k"), made.append(SWAPPED), made.append(SWAPPED[:0], key="k")) == (0, 0, 2)
    with pytest.raises(InvalidRequest, match="no field"):
        made.append([], key="q")
