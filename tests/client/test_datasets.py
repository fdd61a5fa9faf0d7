"""Datasets read from a real server: numpy and h5py say what is right."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndstream
from ndstream.errors import InvalidRequest, InvalidSelection, OutOfBounds, UnsupportedDType
from ndstream.testing.fixtures import LocalServer
from ndstream.testing.strategies import expected, keys, numbered

SHAPE = (7, 6, 5)
RECORD = np.dtype([("id", "<i4"), ("place", ">f8", (2,)), ("tag", "S3")])
MIXED = np.dtype([("name", h5py.string_dtype()), ("some", h5py.vlen_dtype("<i2")), ("n", "<i4"), ("pair", "<f4", (2,))])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data") / "d.h5"
    with h5py.File(made, "w") as file:
        file["box"] = numbered(SHAPE)
        file["line"] = np.arange(100_000, dtype=">f4")
        file["flags"] = np.arange(1000) % 3 == 0
        file["records"] = np.array([(n, (n, -n), b"x%d" % n) for n in range(50)], RECORD)
        mixed = file.create_dataset("mixed", (2,), MIXED)
        mixed[:] = [("one", np.array([1, 2], "<i2"), 1, (1, 2)), ("two", np.array([3], "<i2"), 2, (3, 4))]
        file["text"] = np.array([f"Größe {n}" for n in range(20)], object)
        file["fixed"] = np.array([b"ab", b"c"], "S4")
        file["scalar"] = 4.5
        file["null"] = h5py.Empty("f4")
        file["deep"] = numbered((2,) * 10)
        file.create_dataset("triples", (6,), np.dtype((">f4", (3,))))[...] = np.arange(18).reshape(6, 3)
        file.create_dataset("chunked", data=numbered((10, 7)), chunks=(4, 3), compression="gzip")
    return made


@pytest.fixture
def remote(server: LocalServer) -> Any:
    """The file, without any data inline."""
    return ndstream.open(server.url, "d.h5", data_size_limit=0)


@pytest.fixture
def local(path: Path) -> Any:
    with h5py.File(path) as file:
        yield file


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_any_key_gives_what_numpy_gives(server: LocalServer, limit: int) -> None:
    box = ndstream.open(server.url, "d.h5", data_size_limit=limit)["box"]
    array = numbered(SHAPE)

    @given(keys(SHAPE))
    @settings(max_examples=150)
    def check(key: Any) -> None:
        np.testing.assert_array_equal(box[key], expected(array, key))

    check()


def test_a_key_is_also_what_a_destination_gets(remote: Any) -> None:
    array = numbered(SHAPE)

    @given(keys(SHAPE), st.booleans())
    @settings(max_examples=60)
    def check(key: Any, other_type: bool) -> None:
        wanted = np.asarray(expected(array, key))
        destination = np.full((2, *wanted.shape), -1, "f8" if other_type else array.dtype)
        remote["box"].read_direct(destination, key, np.s_[1])
        np.testing.assert_array_equal(destination[1], wanted)
        assert (destination[0] == -1).all()

    check()


@pytest.mark.parametrize("name", ["line", "flags", "records", "text", "fixed", "triples", "chunked"])
@pytest.mark.parametrize("key", [(), np.s_[::-1], np.s_[3], [5, 1, 1, -1], np.s_[2:2], ...], ids=str)
def test_every_kind_of_element_is_selected_as_numpy_does(remote: Any, local: Any, name: str, key: Any) -> None:
    if name == "fixed" and isinstance(key, (int, list)):
        key = [1, 0]
    whole = local[name][()]
    found = remote[name][key]
    np.testing.assert_array_equal(found, whole[key])
    assert type(found) is type(whole[key])
    assert not isinstance(found, np.ndarray) or found.dtype == whole.dtype


def test_scalars_and_nothing_are_as_in_h5py(remote: Any, local: Any) -> None:
    for key in [(), ...]:
        assert type(remote["scalar"][key]) is type(local["scalar"][key])
        assert remote["scalar"][key] == 4.5
        assert remote["null"][key] == local["null"][key]
    assert remote["null"].shape is None
    assert remote["null"].size is None
    for key in [0, np.array([1])]:
        with pytest.raises(InvalidSelection):
            remote["null"][key]


def test_many_axes_are_sliced_too(remote: Any) -> None:
    array = numbered((2,) * 10)
    np.testing.assert_array_equal(remote["deep"][1, ..., [1, 0]], array[1][..., [1, 0]])


def test_members_of_records_are_read_by_name(remote: Any, local: Any) -> None:
    records = remote["records"]
    np.testing.assert_array_equal(records["id"], local["records"]["id"])
    np.testing.assert_array_equal(records["place", 3:7], local["records"]["place", 3:7])
    np.testing.assert_array_equal(records["id", "tag"], local["records"]["id", "tag"])
    np.testing.assert_array_equal(records.fields("place")[:2], local["records"].fields("place")[:2])
    np.testing.assert_array_equal(records.fields(["tag", "id"])[::5], local["records"].fields(["tag", "id"])[::5])
    for name in MIXED.names or ():
        np.testing.assert_array_equal(remote["mixed"][1, name], local["mixed"][1, name])
        assert type(remote["mixed"][1, name]) is type(local["mixed"][1, name])
    with pytest.raises(ValueError, match="colour"):
        records["colour"]
    with pytest.raises(TypeError):
        remote["line"].fields("x")


def test_strings_are_bytes_and_text_when_asked(remote: Any, local: Any) -> None:
    text = remote["text"]
    assert text[3] == local["text"][3] == "Größe 3".encode()
    assert text.asstr()[3] == "Größe 3"
    np.testing.assert_array_equal(text.asstr()[::7], local["text"].asstr()[::7])
    np.testing.assert_array_equal(remote["fixed"].asstr()[...], local["fixed"].asstr()[...])
    assert text.asstr("ascii", "ignore")[3] == "Gre 3"
    with pytest.raises(TypeError):
        remote["line"].asstr()


def test_another_type_is_converted_as_it_arrives(remote: Any, local: Any) -> None:
    found = remote["line"].astype("i8")[10:20]
    assert found.dtype == "i8"
    np.testing.assert_array_equal(found, np.arange(10, 20))
    np.testing.assert_array_equal(np.asarray(remote["line"].astype("f8")), local["line"].astype("f8")[...])


def test_a_destination_is_filled_and_never_rounded(remote: Any) -> None:
    line = np.empty(100_000, "<f4")
    remote["line"].read_direct(line)
    np.testing.assert_array_equal(line, np.arange(100_000))
    strided = np.zeros((20, 3))
    remote["line"].read_direct(strided, np.s_[5:25], np.s_[:, 1])
    np.testing.assert_array_equal(strided[:, 1], np.arange(5, 25))
    assert not strided[:, [0, 2]].any()
    with pytest.raises(UnsupportedDType):
        remote["line"].read_direct(np.empty(100_000, "f2"))
    with pytest.raises(InvalidSelection):
        remote["line"].read_direct(np.empty(5, "f4"), np.s_[:6])


@given(st.data())
@settings(max_examples=40)
def test_many_slices_come_one_behind_the_other(server: LocalServer, data: st.DataObject) -> None:
    box = ndstream.open(server.url, "d.h5", data_size_limit=0)["box"]
    array = numbered(SHAPE)
    first = st.one_of(st.slices(SHAPE[0]), st.integers(-SHAPE[0], SHAPE[0] - 1))
    firsts = data.draw(st.lists(first, min_size=1, max_size=6))
    rest = data.draw(st.sampled_from([(), (slice(1, 4),), (2, slice(None)), (slice(None), [3, 0])]))
    found = box.request_slices([(each, *rest) for each in firsts])
    kept = [slice(each, each + 1 or None) if isinstance(each, int) else each for each in firsts]
    np.testing.assert_array_equal(found, np.concatenate([array[(each, *rest)] for each in kept]))


def test_many_slices_go_into_a_destination(remote: Any) -> None:
    destination = np.empty(6)
    assert remote["line"].request_slices([np.s_[7:9], np.s_[1:5]], destination) is destination
    np.testing.assert_array_equal(destination, [7, 8, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="shape"):
        remote["line"].request_slices([np.s_[7:9]], destination)
    with pytest.raises(InvalidSelection):
        remote["box"].request_slices([np.s_[1:2, 0], np.s_[1:2, 1]])
    with pytest.raises(OutOfBounds):
        remote["line"].request_slices([200_000])


def test_datasets_are_iterated_and_measured_as_in_h5py(remote: Any, local: Any) -> None:
    assert len(remote["box"]) == 7
    for left, right in zip(remote["box"], local["box"], strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(list(remote["line"]), np.arange(100_000))
    np.testing.assert_array_equal(np.asarray(remote["box"]), numbered(SHAPE))
    assert np.asarray(remote["box"], "f4").dtype == "f4"
    with pytest.raises(ValueError, match="copy"):
        np.array(remote["box"], copy=False)
    with pytest.raises(TypeError):
        len(remote["scalar"])
    assert list(remote["chunked"].iter_chunks()) == list(local["chunked"].iter_chunks())
    assert list(remote["chunked"].iter_chunks(np.s_[3:9, 1:4])) == list(local["chunked"].iter_chunks(np.s_[3:9, 1:4]))
    with pytest.raises(TypeError):
        remote["box"].iter_chunks()


def test_a_dataset_looks_like_one_of_h5py(remote: Any, local: Any) -> None:
    wanted = {name for name in dir(local["chunked"]) if not name.startswith("_")}
    # Writing, references, and what belongs to files on this machine.
    beyond = {"dims", "external", "flush", "id", "make_scale", "ref", "regionref", "resize"}
    beyond |= {"virtual_sources", "write_direct", "filter_names"}
    assert wanted - set(dir(remote["chunked"])) <= beyond
    assert repr(remote["chunked"]) == '<Remote HDF5 dataset "chunked": shape (10, 7), type "<i8">'
    assert remote["chunked"].parent == remote["/"]
    assert remote["chunked"].file is remote
    assert remote["chunked"] == ndstream.open(remote.connection.server, "d.h5")["chunked"]
    assert hash(remote["chunked"]) == hash(remote["chunked"])
    assert remote["chunked"] != remote["box"]
    assert bool(remote["null"])


def test_pickles_carry_an_address_and_no_password(remote: Any) -> None:
    for each in (remote, remote["/"], remote["line"], ndstream.open(remote.connection.server)):
        copied = pickle.loads(pickle.dumps(each))
        assert copied == each
        assert type(copied) is type(each)
    copied = pickle.loads(pickle.dumps(remote["line"]))
    np.testing.assert_array_equal(copied[5:7], [5, 6])
    assert copied.file.filename == "d.h5"
    assert pickle.loads(pickle.dumps(remote["/"]))["scalar"][()] == 4.5


class Elsewhere:
    """A source of slices that is no connection, as programs in the field have."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.requests: list[Any] = []

    def request_slice(self, path: str, name: str, descriptor: Any) -> Any:
        (start, count), *rest = descriptor
        starts, counts = np.atleast_1d(start), np.broadcast_to(count, np.shape(np.atleast_1d(start)))
        self.requests.append(descriptor)
        later = tuple(slice(a, a + n) for a, n in rest)
        return np.concatenate([self.array[(slice(a, a + n), *later)] for a, n in zip(starts, counts, strict=True)])

    def request_slice_into(self, path: str, name: str, descriptor: Any, dest: Any) -> None:
        dest[...] = self.request_slice(path, name, descriptor)


class Derived(ndstream.RemoteDataset):
    def __init__(self, source: Elsewhere) -> None:
        self.connection = source  # type: ignore[assignment]  # all that is asked of it are slices
        self.file_path, self.name, self.data, self.max_nr_slices = "f", "/d", None, 2
        self.shape, self.dtype, self.ndim = source.array.shape, source.array.dtype, source.array.ndim


def test_another_source_of_data_can_stand_behind_a_dataset() -> None:
    source = Elsewhere(numbered((20, 3)))
    derived = Derived(source)
    for key in [np.s_[2:5], np.s_[[9, 1, 4, 1]], np.s_[::6, 1], np.s_[-1], np.s_[...]]:
        np.testing.assert_array_equal(derived[key], source.array[key])
    assert all(np.size(descriptor[0][0]) <= 2 for descriptor in source.requests)
    destination = np.empty((3, 3))
    derived.read_direct(destination, np.s_[1:4])
    np.testing.assert_array_equal(destination, source.array[1:4])


def test_impossible_requests_say_so(remote: Any) -> None:
    with pytest.raises(InvalidRequest):
        remote["null"].read_direct(np.empty(1))
