"""Which requests the client makes, and that it makes no others: servers in the field count them."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

import ndstream
from ndstream.client import groups

from .conftest import StartField, array, dataset, directory, file_entry, group, strings

FILE = "Data/run/snap.hdf5"
ROOT = group({"a": None, "b": None, "x": None})
MEMBERS = {
    (FILE, None): file_entry(),
    (FILE, "/"): ROOT,
    (FILE, "/a"): group({"c": None}, {"n": array(np.int32(3))}),
    (FILE, "/a/c"): dataset(np.arange(6.0)),
    (FILE, "/b"): dataset(np.arange(4, dtype="i4")),
}


def test_a_connection_begins_by_asking_for_the_native_protocol_and_is_used_by_all(field: StartField) -> None:
    server = field({**MEMBERS, ("Data", None): directory({}, {"run": None})})
    ndstream.open(server.url, FILE)
    ndstream.open(server.url + "/hdfstream", "Data")
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("GET", "/v1"),
        ("GET", "/hdfstream/msgpack/"),
        ("POST", "/hdfstream/msgpack/Data/run/snap.hdf5"),
        ("POST", "/hdfstream/msgpack/Data"),
    ]
    assert server.asked[2].body == b"\x80"
    assert server.asked[2].headers["content-type"] == "application/x-msgpack"
    assert len({asked.connection for asked in server.asked[1:]}) == 1


def test_the_root_that_came_first_is_not_asked_for_again(field: StartField) -> None:
    server = field({("", None): directory({}, {"Data": None}), ("Data", None): directory({"f.txt": file_entry()}, {})})
    root = ndstream.open(server.url)
    assert list(root) == ["Data"]
    assert list(root["Data"]) == ["f.txt"]
    assert server.requests == [("Data", None, False)]


def test_a_deep_path_is_one_request_and_then_none(field: StartField) -> None:
    server = field({**MEMBERS, ("", None): directory({}, {"Data": None})})
    root = ndstream.open(server.url)
    found = root[FILE]
    assert server.requests == [(FILE, None, False)]
    assert not root._directories["Data"].unpacked
    assert root[FILE] is found
    assert root["//Data/./run/../run/snap.hdf5"] is found
    assert len(server.requests) == 1


def test_a_known_entry_needs_no_request_and_an_unknown_one_of_a_known_directory_neither(field: StartField) -> None:
    server = field({("", None): directory({"f.txt": file_entry()}, {"Data": directory({"g.txt": file_entry(7)}, {})})})
    root = ndstream.open(server.url)
    assert root["Data/g.txt"].size == 7
    assert "f.txt" in root
    with pytest.raises(KeyError):
        root["missing"]
    assert server.requests == []


def test_a_file_is_asked_for_no_more_than_its_entry_until_something_of_it_is_needed(field: StartField) -> None:
    server = field(MEMBERS)
    file = ndstream.open(server.url, FILE)
    assert (file.size, file.media_type, file.last_modified) == (10, "application/x-hdf5", 1_700_000_000_123)
    assert file.is_hdf5()
    assert len(server.requests) == 1


def test_members_that_came_as_nil_are_asked_for_one_by_one_and_once(field: StartField) -> None:
    server = field(MEMBERS)
    file = ndstream.open(server.url, FILE)
    assert list(file) == ["a", "b", "x"]
    assert file["a"]["c"][2] == 2.0
    assert file["a/c"] is file["/a"]["c"]
    assert file["a"].attrs["n"] == 3
    np.testing.assert_array_equal(file["b"][::2], [0, 2])
    assert "x" in file
    assert "y" not in file
    assert server.requests == [
        (FILE, None, False),
        (FILE, "/", False),
        (FILE, "/a", False),
        (FILE, "/a/c", False),
        (FILE, "/b", False),
    ]
    described = [msgpack.unpackb(asked.body) for asked in server.asked if asked.method == "POST"][1:]
    assert {(each["max_depth"], each["data_size_limit"]) for each in described} == {(5, 1 << 20)}


def test_a_nested_group_of_names_only_is_asked_for_as_a_whole_when_many_of_it_are_needed(field: StartField) -> None:
    names = [f"d{number:02}" for number in range(40)]
    members = {name: dataset(np.full(2, number)) for number, name in enumerate(names)}
    server = field(
        {
            (FILE, None): file_entry(),
            (FILE, "/"): group({"many": group(dict.fromkeys(names))}),
            (FILE, "/many"): group(members),
            **{(FILE, f"/many/{name}"): member for name, member in members.items()},
        }
    )
    many = ndstream.open(server.url, FILE)["many"]
    assert [int(many[name][0]) for name in names] == list(range(40))
    asked = [name for _, name, _ in server.requests]
    assert asked == [None, "/", "/many/d00", "/many/d01", "/many"]
    assert groups.SINGLE == 2


def test_inline_data_are_not_asked_for(field: StartField) -> None:
    server = field(MEMBERS)
    data = ndstream.open(server.url, FILE)["b"]
    count = len(server.requests)
    np.testing.assert_array_equal(data[[3, 0, 3]], [3, 0, 3])
    np.testing.assert_array_equal(np.asarray(data), np.arange(4))
    np.testing.assert_array_equal(data[data[...] > 1], [2, 3])
    data[...][:] = 9
    np.testing.assert_array_equal(data[:], np.arange(4))
    assert len(server.requests) == count


def test_nothing_is_asked_by_looking_at_objects(field: StartField) -> None:
    server = field(MEMBERS)
    file = ndstream.open(server.url, FILE)
    data = file["b"]
    count = len(server.asked)
    for each in (file, file.root, data, file.attrs, data.attrs, ndstream.open(server.url, FILE)):
        repr(each)
    for shown in (file, file.root, data):
        assert "<" in shown._repr_html_()
    count_of_open = 1
    assert len(server.asked) == count + count_of_open


@pytest.mark.parametrize("options", [{"framing": "chunked"}, {"compressed": True}, {"framing": "close"}])
def test_all_ways_to_send_a_body_are_read(field: StartField, options: dict[str, Any]) -> None:
    values = np.arange(50_000, dtype="f8")

    def slices(name: str, descriptor: list[Any]) -> Any:
        ((start, count),) = descriptor
        return array(values[start : start + count])

    server = field(
        {(FILE, None): file_entry(), (FILE, "/"): group({"d": dataset(values, with_data=False)})}, slices, **options
    )
    data = ndstream.open(server.url, FILE)["d"]
    np.testing.assert_array_equal(data[:], values)
    np.testing.assert_array_equal(data[100:200], values[100:200])


def test_many_ranges_are_one_request_in_the_spelling_of_the_specification(field: StartField) -> None:
    values = np.arange(3000.0).reshape(1000, 3)
    seen: list[Any] = []

    def slices(name: str, descriptor: list[Any]) -> Any:
        seen.append(descriptor)
        (starts, counts), *_ = descriptor
        counts = [counts] * len(starts) if isinstance(counts, int) else counts
        return array(np.concatenate([values[a : a + n] for a, n in zip(starts, counts, strict=True)]))

    server = field({(FILE, None): file_entry(), (FILE, "/"): group({"d": dataset(values, with_data=False)})}, slices)
    data = ndstream.open(server.url, FILE)["d"]
    picked = data.request_slices([np.s_[300:400], np.s_[600:700]])
    np.testing.assert_array_equal(picked, np.concatenate([values[300:400], values[600:700]]))
    mixed = data.request_slices([np.s_[600:603], np.s_[2:9], np.s_[601:605], np.s_[5]])
    np.testing.assert_array_equal(mixed, values[[600, 601, 602, *range(2, 9), *range(601, 605), 5]])
    assert seen == [[[[300, 600], 100], [0, 3]], [[[2, 600], [7, 5]], [0, 3]]]


def test_members_and_attributes_may_be_called_nd_and_vlen(field: StartField) -> None:
    attributes = {"nd": array(np.int32(1)), "vlen": strings(["x"], [])}
    inner = group({"nd": dataset(np.arange(2)), "vlen": dataset(np.arange(3))}, attributes)
    server = field({(FILE, None): file_entry(), (FILE, "/"): group({"nd": inner, "data": None})})
    file = ndstream.open(server.url, FILE)
    assert list(file["nd"]) == ["nd", "vlen"]
    assert file["nd/vlen"].shape == (3,)
    assert file["nd"].attrs["nd"] == 1
    assert file["nd"].attrs["vlen"] == "x"


def test_an_unknown_member_harms_no_other(field: StartField) -> None:
    unknown = {"hdf5_object": "unknown"}
    broken = dataset(np.arange(2)) | {"type": "no such type"}
    server = field({(FILE, None): file_entry(), (FILE, "/"): group({"u": unknown, "b": broken, "g": group({})})})
    file = ndstream.open(server.url, FILE)
    assert list(file) == ["u", "b", "g"]
    assert list(file["g"]) == []
    for name in ("u", "b"):
        with pytest.raises(ndstream.NDStreamError, match=name):
            file[name]


def test_attributes_are_what_h5py_makes_of_them(field: StartField) -> None:
    attributes = {
        "code": array(np.bytes_(b"SWIFT")),
        "number": array(np.float32(2.5)),
        "text": strings(["Größe"], []),
        "texts": strings(["a", "b"], [2]),
        "pair": array(np.arange(2)),
        "record": array(np.zeros(1, "V12")) | {"type": [["x", "<f8"], ["n", "<i4"]], "kind": "V", "shape": []},
        "mystery": {"neither": "nor"},
    }
    server = field({(FILE, None): file_entry(), (FILE, "/"): group({}, attributes)})
    attrs = ndstream.open(server.url, FILE).attrs
    assert list(attrs) == list(attributes)
    assert attrs["code"] == b"SWIFT"
    assert type(attrs["code"]) is np.bytes_
    assert type(attrs["number"]) is np.float32
    assert attrs["text"] == "Größe"
    assert attrs["texts"].tolist() == ["a", "b"]
    assert attrs["record"].dtype.names == ("x", "n")
    assert attrs.get("none", 7) == 7
    with pytest.raises(TypeError, match="mystery"):
        attrs["mystery"]
    attrs["pair"][:] = 5
    assert attrs["pair"].tolist() == [0, 1]


def test_variable_data_of_an_original_server(field: StartField) -> None:
    texts = {"hdf5_object": "dataset", "attributes": {}, "type": "str", "kind": "", "shape": [3]}
    lists = texts | {"type": "<i4", "kind": "V", "shape": [2]}

    def slices(name: str, descriptor: list[Any]) -> Any:
        ((start, count),) = descriptor
        if name == "/t":
            return strings(["a", "bc", ""][start : start + count], [count])
        nested = [array(np.arange(2, dtype="i4")), array(np.arange(0, dtype="i4"))]
        return {"vlen": True, "shape": [count], "data": nested[start : start + count]}

    server = field({(FILE, None): file_entry(), (FILE, "/"): group({"t": texts, "l": lists})}, slices)
    file = ndstream.open(server.url, FILE)
    assert file["t"][:].tolist() == [b"a", b"bc", b""]
    assert file["t"].asstr()[1] == "bc"
    assert [each.tolist() for each in file["l"][:]] == [[0, 1], []]
    raw = file.connection.request_slice(FILE, "/t", [[1, 2]])
    assert raw.tolist() == ["bc", ""]
