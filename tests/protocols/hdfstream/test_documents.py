"""What descriptions say, to stock clients and to ours: read by an independent msgpack reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core import dtypes, model
from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.core.model import Dataset, ExternalLink, HardLink, NamedType, SoftLink, Unreadable
from ndstream.core.ports import Access
from ndstream.errors import Corrupt, DataError, UnsupportedDType
from ndstream.protocols.hdfstream.documents import Describer, carried, disguise, reveal
from ndstream.stores.memory import Array, Group, MemoryStore, Null, Tree, Values

from .conftest import Peer

MakePeer = Callable[..., Peer]
STRINGS = h5py.string_dtype()
SEQUENCES = h5py.vlen_dtype(np.dtype("<i4"))


def objects(values: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype)
    for index, value in enumerate(values):
        array[index] = value
    return array


def served(peer: MakePeer, tree: Tree) -> Peer:
    return peer(MemoryStore(tree))


def described(peer: MakePeer, group: Group, name: str = "/", **options: Any) -> Any:
    extended = options.pop("extended", False)
    reply = peer(MemoryStore({"f.h5": group})).post("/msgpack/f.h5", {"object": name, **options}, extended=extended)
    assert reply.status == 200, reply.document
    return reply.document


def test_the_empty_map_describes_the_path(peer: MakePeer) -> None:
    talk = served(peer, {"a": {"f.h5": Group({"x": Array(np.zeros(5))}), "b": {}}, "t": b"12"})
    assert list(talk.post("/msgpack/", b"\x80").document.items()) == [
        ("type", "directory"),
        ("size", 42),
        ("description", None),
        ("labels", None),
        ("files", {"t": {"type": "application/octet-stream", "size": 2, "last_modified": 0}}),
        ("directories", {"a": None}),
    ]
    assert list(talk.post("/msgpack/a", b"\x80").document) == list(talk.post("/msgpack/", b"\x80").document)
    assert list(talk.post("/msgpack/a/f.h5", b"\x80").document.items()) == [
        ("type", "application/x-hdf5"),
        ("size", 40),
        ("last_modified", 0),
    ]
    assert list(talk.post("/msgpack/a/f.h5", b"\x80", extended=True).document)[3:] == ["generation"]


def test_directories_are_expanded_as_deep_as_asked(peer: MakePeer) -> None:
    talk = served(peer, {"a": {"b": {"c": {}}}})
    assert talk.get("/msgpack/").document["directories"] == {"a": None}
    deeper = talk.get("/msgpack/", "max_depth=2").document["directories"]["a"]["directories"]["b"]
    assert (deeper["type"], deeper["directories"]) == ("directory", {"c": None})


def test_what_a_user_may_not_see_is_in_no_listing_and_no_size(peer: MakePeer) -> None:
    talk = served(peer, {"open": {"t": b"12"}, "secret": {"t": b"1234"}})
    access = Access(hidden=frozenset({"secret"}))
    document = talk.get("/msgpack/", access=access).document
    assert (document["size"], list(document["directories"])) == (2, ["open"])


WIDE = {f"d{n}": Array(np.array(n)) for n in range(21)}
DEEP = Group(
    {
        "data": Array(np.arange(2)),
        "soft": SoftLink(target="nowhere"),
        "one": Group(
            {
                "data": Array(np.arange(2)),
                "soft": SoftLink(target="data"),
                "two": Group({"data": Array(np.arange(2)), "three": Group()}),
            }
        ),
        "wide": Group({**WIDE, "soft": SoftLink(target="d0")}),
        "twenty": Group(dict(list(WIDE.items())[:20])),
    }
)


def test_depth_0_describes_datasets_and_links_but_no_groups(peer: MakePeer) -> None:
    members = described(peer, DEEP)["members"]
    assert {name: member and member["hdf5_object"] for name, member in members.items()} == {
        "data": "dataset",
        "soft": "soft_link",
        "one": None,
        "wide": None,
        "twenty": None,
    }
    assert members["soft"] == {"hdf5_object": "soft_link", "target": "nowhere"}


def test_deeper_groups_are_described_down_to_the_limit_unless_they_are_wide(peer: MakePeer) -> None:
    members = described(peer, DEEP, max_depth=1)["members"]
    # At the limit a group is there with its names, and not looked into.
    assert members["one"]["members"] == {"data": None, "soft": None, "two": None}
    members = described(peer, DEEP, max_depth=2)["members"]
    assert members["one"]["members"]["data"]["hdf5_object"] == "dataset"
    assert members["one"]["members"]["soft"]["target"] == "data"
    assert members["one"]["members"]["two"]["members"] == {"data": None, "three": None}
    assert set(members["wide"]["members"].values()) == {None}
    assert all(member["hdf5_object"] == "dataset" for member in members["twenty"]["members"].values())
    members = described(peer, DEEP, max_depth=2**31 - 1)["members"]
    assert members["one"]["members"]["two"]["members"]["three"]["members"] == {}
    # The named group is looked into, however wide.
    assert described(peer, DEEP, "wide", max_depth=5)["members"]["d7"]["hdf5_object"] == "dataset"


@given(limit=st.integers(0, 50), count=st.integers(0, 6))
def test_data_is_there_if_and_only_if_it_fits(limit: int, count: int) -> None:
    store = MemoryStore({"f.h5": Group({"x": Array(np.arange(count, dtype="<i8"))})})
    document = Peer(store).post("/msgpack/f.h5", {"object": "x", "data_size_limit": limit}).document
    assert ("data" in document) == (8 * count <= limit)
    assert list(document)[:5] == ["hdf5_object", "attributes", "type", "kind", "shape"]


@pytest.mark.parametrize(
    ("size", "values"), [(8, objects([b"a" * 99], STRINGS)), (16, objects([np.arange(99)], SEQUENCES))]
)
def test_variable_length_counts_as_its_handle(peer: MakePeer, size: int, values: np.ndarray[Any, Any]) -> None:
    group = Group({"x": Array(values)})
    assert "data" not in described(peer, group, "x", data_size_limit=size - 1)
    assert "data" in described(peer, group, "x", data_size_limit=size)


def test_what_is_empty_always_has_its_data(peer: MakePeer) -> None:
    group = Group(
        {"n": Array(np.zeros((3, 0), ">f4")), "s": Array(objects([], STRINGS)), "null": Array(Null(np.dtype("u1")))}
    )
    members = described(peer, group, data_size_limit=0)["members"]
    assert members["n"]["data"] == {"nd": True, "type": "<f4", "kind": "", "shape": [3, 0], "nbytes": 0, "data": []}
    assert members["s"]["data"] == {"vlen": True, "shape": [0], "data": []}
    assert members["null"]["shape"] == members["null"]["data"]["shape"] == [0]


@pytest.mark.parametrize("inline", [0, 1 << 16])
def test_data_comes_the_same_whether_the_description_held_it_or_not(peer: MakePeer, inline: int) -> None:
    group = Group(
        {
            "a": Array(np.arange(1000, dtype=">i4").reshape(10, 100)),
            "s": Array(objects(["größe".encode(), b""], STRINGS)),
            "sub": Group(
                {
                    "v": Array(objects([np.arange(3, dtype="<i4"), np.arange(0, dtype="<i4")], SEQUENCES)),
                    "scalar": Array(np.array(2, "<f4")),
                }
            ),
        },
        {"title": np.array(3)},
    )
    limits = replace(DEFAULT_LIMITS, inline_data=inline)
    reply = peer(MemoryStore({"f.h5": group}, limits=limits), limits).post(
        "/msgpack/f.h5", {"object": "/", "max_depth": 3}
    )
    members = reply.document["members"]
    assert reply.document["attributes"]["title"]["data"] == [(3).to_bytes(8, "little")]
    assert members["a"]["data"]["data"] == [np.arange(1000, dtype="<i4").tobytes()]
    assert list(members["a"]["data"]) == ["nd", "type", "kind", "shape", "nbytes", "data"]
    assert members["s"]["data"] == {"vlen": True, "shape": [2], "data": ["größe", ""]}
    first, second = members["sub"]["members"]["v"]["data"]["data"]
    assert list(first) == ["nd", "type", "kind", "shape", "nbytes", "data"]
    assert (first["type"], first["shape"], first["data"]) == ("<i4", [3], [np.arange(3, dtype="<i4").tobytes()])
    assert second["data"] == []
    assert members["sub"]["members"]["scalar"]["data"]["shape"] == []


def test_attributes_are_sorted_and_keep_declared_sizes(peer: MakePeer) -> None:
    attributes = {
        "z": np.array(b"ab", "S10"),
        "big": np.array([1, 2], ">i2"),
        "flag": np.array(True),
        "text": objects(["ü".encode()], STRINGS).reshape(()),
        "record": np.zeros(2, [("a", ">f4"), ("b", "u1", (3,))]),
        "array": np.zeros(2, "<f4"),
    }
    found = described(peer, Group({}, attributes))["attributes"]
    assert list(found) == sorted(attributes)
    assert found["z"] == {"nd": True, "type": "S10", "kind": "", "shape": [], "nbytes": 10, "data": [b"ab" + bytes(8)]}
    assert found["big"]["data"] == [b"\1\0\2\0"]
    assert (found["flag"]["type"], found["flag"]["data"]) == ("<i1", [b"\1"])
    assert found["text"] == {"vlen": True, "shape": [], "data": ["ü"]}
    assert (found["record"]["type"], found["record"]["kind"]) == ([["a", ">f4"], ["b", "<u1", [3]]], "V")


def test_attributes_that_have_no_standard_form_are_left_out_but_told_to_our_client(peer: MakePeer) -> None:
    enum = h5py.enum_dtype({"A": 1}, "i1")
    attributes: dict[str, Values] = {
        "enum": np.array(1, enum),
        "null": Null(np.dtype(">f4")),
        "ref": objects(["/x"], h5py.ref_dtype),
        "plain": np.array(1),
        "broken": objects([b"\xff"], STRINGS),
    }
    stock = described(peer, Group({}, attributes))
    assert list(stock) == ["hdf5_object", "attributes", "members"]
    assert list(stock["attributes"]) == ["broken", "enum", "plain"]
    assert stock["attributes"]["broken"]["data"] == ["\ufffd"]
    ours = described(peer, Group({}, attributes), extended=True)
    assert ours["attributes"] == stock["attributes"]
    more = ours["attributes_more"]
    assert set(more) == {"enum", "null", "ref", "broken"}
    assert more["enum"]["dtype"]["class"] == "enum"
    assert more["null"] == {"dtype": {"class": "float", "size": 4, "order": ">"}, "shape": None, "value": None}
    assert more["ref"]["value"] == ["/x"]
    assert more["broken"]["value"] == [b"\xff"]


def test_our_client_is_told_what_h5py_would_show(peer: MakePeer) -> None:
    group = Group(
        {
            "big": Array(np.arange(3, dtype=">i4")),
            "null": Array(Null(np.dtype("<f8"))),
            "sub": Group(),
            "away": ExternalLink(filename="o.h5", target="/x"),
        }
    )
    document = described(peer, group, extended=True)
    assert list(document) == ["hdf5_object", "attributes", "members", "address", "more"]
    assert document["more"] == {"sub": {"kind": "group"}, "away": {"external": ["o.h5", "/x"]}}
    assert document["members"]["away"] is None
    big = document["members"]["big"]
    assert list(big)[:6] == ["hdf5_object", "attributes", "type", "kind", "shape", "data"]
    assert (big["dtype"], big["maxshape"], big["chunks"], big["filters"]) == (
        {"class": "integer", "size": 4, "order": ">"},
        [3],
        None,
        [],
    )
    assert document["members"]["null"]["null"] is True
    assert "null" not in big


def test_array_types_give_their_axes_to_stock_clients_and_keep_them_for_ours(peer: MakePeer) -> None:
    node = Dataset(
        dtype=dtypes.Array(base=dtypes.Integer(size=2, order=">"), shape=(3,)),
        shape=(2,),
        maxshape=(2,),
        attributes={},
        data=np.arange(6, dtype=">i2").tobytes(),
    )
    stock: Any = Describer(limit=99, extended=False).document(node, "/x")
    assert (stock.type, stock.shape, stock.data.shape) == ("<i2", (2, 3), (2, 3))
    ours: Any = Describer(limit=99, extended=True).document(node, "/x")
    assert (ours.type, ours.shape, ours.data.shape, ours.data.nbytes) == (["<i2", (3,)], (2,), (2,), 12)


# -- names that stock clients take for something else --


@given(st.sets(st.sampled_from(["nd", "nd~", "nd~~", "vlen", "vlen~", "x", "~"])))
def test_disguised_names_differ_from_all_others_and_can_be_revealed(names: set[str]) -> None:
    alias = disguise(names)
    shown = [alias.get(name, name) for name in names]
    assert len(set(shown)) == len(names)
    assert not {"nd", "vlen"} & set(shown)
    assert all(reveal(alias[name]) == name for name in alias)


@pytest.mark.parametrize(
    ("path", "wanted"), [("/a/nd~/b", "/a/nd/b"), ("vlen~~", "vlen"), ("/xnd~/nd", "/xnd~/nd"), ("~/nd~~x", "~/nd~~x")]
)
def test_only_whole_components_are_revealed(path: str, wanted: str) -> None:
    assert reveal(path) == wanted


def test_members_attributes_and_files_called_nd_are_in_reach(peer: MakePeer) -> None:
    group = Group({"nd": Group({"vlen": Array(np.arange(3))}), "nd~": Array(np.arange(2))}, {"nd": np.array(1)})
    talk = served(peer, {"vlen": {"nd": group}})
    assert list(talk.get("/msgpack/").document["directories"]) == ["vlen~"]
    assert list(talk.get("/msgpack/vlen~").document["files"]) == ["nd~"]
    root = talk.post("/msgpack/vlen~/nd~", {"object": "/"}).document
    assert list(root["members"]) == ["nd~~", "nd~"]
    assert list(root["attributes"]) == ["nd~"]
    below = talk.post("/msgpack/vlen~/nd~", {"object": "/nd~~"}).document
    assert list(below["members"]) == ["vlen~"]
    assert talk.post("/msgpack/vlen~/nd~", {"object": "/nd~~/vlen~", "slice": "1"}).document["shape"] == [1]
    assert talk.post("/msgpack/vlen~/nd~", {"object": "/nd~", "slice": "1"}).document["shape"] == [1]
    assert talk.post("/msgpack/vlen/nd", {"object": "/nd~", "slice": "1"}).document["shape"] == [1]
    assert list(talk.post("/msgpack/vlen/nd", {"object": "/"}, extended=True).document["members"]) == ["nd", "nd~"]
    assert talk.get("/msgpack/vlen~", extended=True).status == 404


# -- elements of variable length as plain values --

INNER = np.dtype([("nd", "<i2"), ("z", "<c8")])
TEXT = h5py.string_dtype()


@pytest.mark.parametrize(
    ("dtype", "element", "wanted"),
    [
        (np.dtype([("n", ">i4"), ("t", TEXT)]), [b"\0\0\0\x07", "ü".encode()], {"n": 7, "t": "ü"}),
        (np.dtype([("vlen", "<f8"), ("t", TEXT)]), [bytes(8), b""], {"vlen~": 0.0, "t": ""}),
        (np.dtype([("i", INNER), ("t", TEXT)]), [b"\1\0" + bytes(8), b""], {"i": {"nd~": 1, "z": [0.0, 0.0]}, "t": ""}),
        (
            np.dtype([("i", INNER, (1, 2)), ("t", TEXT)]),
            [bytes(20), b""],
            {"i": [[{"nd~": 0, "z": [0.0, 0.0]}, {"nd~": 0, "z": [0.0, 0.0]}]], "t": ""},
        ),
        (np.dtype([("a", "<u2", (2,)), ("t", TEXT)]), [b"\1\0\2\0", b""], {"a": [1, 2], "t": ""}),
        (np.dtype([("f", "<f16"), ("b", "?"), ("o", "V2"), ("t", TEXT)]), [bytes(16), b"\1", b"xy", b""],
         {"f": 0.0, "b": True, "o": b"xy", "t": ""}),
        (np.dtype([("s", h5py.vlen_dtype(np.dtype("<i2"))), ("t", TEXT)]), [b"\1\0\2\0", b""], {"s": [1, 2], "t": ""}),
        (np.dtype([("t", TEXT, (2,))]), [[b"a", b"b"]], {"t": ["a", "b"]}),
        (h5py.vlen_dtype(TEXT), [b"a", b"\xff"], ["a", "\ufffd"]),
        (h5py.vlen_dtype(h5py.ref_dtype), ["/x", None], ["/x", None]),
        (h5py.regionref_dtype, {"name": "/x", "points": [[1]]}, {"name": "/x", "points": [[1]]}),
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_form_of_its_own_is_told_in_plain_values(dtype: Any, element: Any, wanted: Any) -> None:
    values = carried([element], dtypes.from_numpy(dtype))
    assert msgpack.unpackb(msgpack.packb(values)) == [wanted]


def test_sequences_of_arrays_keep_their_axes() -> None:
    (document,) = carried(
        [bytes(range(12))], dtypes.Sequence(base=dtypes.Array(base=dtypes.Integer(size=1), shape=(2, 3)))
    )
    assert (document.type, document.shape) == ("<i1", (2, 2, 3))


def test_what_cannot_be_described_is_an_error_of_its_own() -> None:
    named = NamedType(dtype=dtypes.Integer(size=4), attributes={})
    with pytest.raises(UnsupportedDType):
        Describer(limit=0, extended=False).document(named, "/x")
    assert Describer(limit=0, extended=True).document(named, "/x").hdf5_object == "datatype"
    with pytest.raises(Corrupt, match="why"):
        Describer(limit=0, extended=True).document(Unreadable(problem="why", code="corrupt"), "/x")
    with pytest.raises(DataError):
        Describer(limit=0, extended=True).document(HardLink(), "/x")
    group = model.Group(attributes={}, members={"t": named, "u": Unreadable(problem="why", code="corrupt")})
    stock: Any = Describer(limit=0, extended=False).document(group, "/")
    assert stock.members == {"t": None, "u": None}
    ours: Any = Describer(limit=0, extended=True).document(group, "/")
    assert ours.more == {"u": {"problem": "why", "code": "corrupt"}}
