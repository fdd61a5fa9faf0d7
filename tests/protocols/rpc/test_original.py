"""Clients of the original: no hello, no more keys than they know (A1 to A3, B1 to B6)."""

from __future__ import annotations

import json
import math
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields
from tests.protocols.rpc.conftest import Served
from tests.protocols.rpc.peer import Peer, extended, frame, from_map, packed

SUCCESS = "success"
COMPOUND = np.array([(1, 2.5), (2, 3.5)], [("a", "<i4"), ("b", "<f8")])


def test_the_frames_of_the_specification_byte_for_byte(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.socket.sendall(bytes.fromhex("00000016 82a7636f6d6d616e64a472656164a470617468a22f61"))
        assert peer.receive() == msgpack.packb({"status": "not_found"})
        peer.socket.sendall(b'\x00\x00\x00\x21{"command": "read", "path": "/a"}')
        assert json.loads(peer.receive()) == {"status": "not_found"}
        peer.send(packed(command="create_group", path="/bytes"))
        assert msgpack.unpackb(peer.receive()) == {"status": SUCCESS, "message": "Group /bytes created"}


def test_an_array_comes_as_msgpack_numpy_spells_it(peer: Peer, group: str) -> None:
    peer.ask(command="write", path=group, data=np.arange(3, dtype="<i4"))
    peer.send(packed(command="read", path=group))
    reply = msgpack.unpackb(peer.receive(), strict_map_key=False)
    assert list(reply) == ["status", "data"]
    assert msgpack.packb(reply["data"]) == bytes.fromhex(
        "85c4026e64c3c40474797065a33c6934c4046b696e64c400c40573686170659103c40464617461c40c000000000100000002000000"
    )


@pytest.mark.parametrize(
    "array",
    [
        *[np.arange(6).astype(kind).reshape(2, 3) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")],
        *[np.linspace(-1, 1, 4).astype(kind) for kind in ("f2", "f4", "f8", "c8", "c16", ">f8", ">i2")],
        np.array([True, False]),
        COMPOUND,
        np.array(["one", "größer"]),
        np.zeros((0, 3), "<f4"),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_of_every_type_come_back(peer: Peer, group: str, array: np.ndarray[Any, Any]) -> None:
    assert peer.ask(command="write", path=group, data=array)["status"] == SUCCESS
    found = peer.data(group)
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(found, array)


def test_rows_under_ndarray_are_read_too(peer: Peer, group: str) -> None:
    rows = {b"__ndarray__": [[1, 2.5], [2, 3.5]], b"dtype": [["a", "<i4"], ["b", "<f8"]], b"shape": [2]}
    assert peer.ask(command="write", path=f"{group}/rows", data=rows)["status"] == SUCCESS
    np.testing.assert_array_equal(peer.data(f"{group}/rows"), COMPOUND)
    raw = {b"__ndarray__": bytes(range(4)), b"dtype": "|u1", b"shape": [2, 2]}
    assert peer.ask(command="write", path=f"{group}/raw", data=raw)["status"] == SUCCESS
    assert peer.data(f"{group}/raw").tolist() == [[0, 1], [2, 3]]


def test_json_has_lists_and_numbers_that_json_does_not_have(peer: Peer, group: str) -> None:
    data = [[1.5, float("nan")], [float("inf"), -float("inf")]]
    assert peer.ask_json(command="write", path=group, data=data)["status"] == SUCCESS
    found = peer.ask_json(command="read", path=group)["data"]
    assert found[0][0] == 1.5
    assert math.isnan(found[0][1])
    assert found[1] == [float("inf"), -float("inf")]
    np.testing.assert_array_equal(peer.data(group), np.array(data))


def test_bytes_have_no_place_in_json(peer: Peer, group: str) -> None:
    peer.ask(command="write", path=group, data=np.array([b"ab", b"c"]))
    reply = peer.ask_json(command="read", path=group)
    assert reply["status"] == "error"
    assert "JSON" in reply["message"]
    assert peer.ask(command="read", path=group)["status"] == SUCCESS


def test_groups_and_replacing_and_deleting(peer: Peer, group: str) -> None:
    for _ in range(2):
        assert peer.ask(command="create_group", path=f"{group}/a/b")["status"] == SUCCESS
    assert peer.ask(command="write", path=f"{group}/x/y/z", data=[1, 2])["message"] == f"Data written to {group}/x/y/z"
    assert peer.ask(command="update", path=f"{group}/x/y/z", data=["a", "b", "c"])["message"].startswith("Data updated")
    assert peer.data(f"{group}/x/y/z").tolist() == ["a", "b", "c"]
    for _ in range(2):
        assert peer.ask(command="delete", path=f"{group}/x")["message"] == f"Data deleted from {group}/x"
    assert peer.ask(command="read", path=f"{group}/x/y/z") == {"status": "not_found"}


def test_the_root_is_not_written_to_and_the_connection_stays(peer: Peer) -> None:
    assert peer.ask(command="write", path="/", data=[1])["status"] == "error"
    assert peer.ask(command="get_config") == {
        "status": SUCCESS,
        "serialization_format": "messagepack",
        "use_compression": False,
    }
    assert peer.ask_json(command="get_config")["serialization_format"] == "json"


def test_single_values_are_the_first_of_an_array(peer: Peer, group: str) -> None:
    for name, value in {"text": "größer", "whole": 7, "real": 2.5, "flag": True}.items():
        assert peer.ask(command="write", path=f"{group}/{name}", data=value)["status"] == SUCCESS
        assert peer.data(f"{group}/{name}")[0] == value
    peer.ask(command="write", path=f"{group}/mixed", data=[1, "two", 3.5])
    assert peer.data(f"{group}/mixed").tolist() == ["1", "two", "3.5"]


def test_nothing_is_guessed_of_bytes(peer: Peer, group: str) -> None:
    looks = np.frombuffer(msgpack.packb({"a": 1}), "u1")
    peer.ask(command="write", path=f"{group}/bytes", data=looks)
    np.testing.assert_array_equal(peer.data(f"{group}/bytes"), looks)
    value = {"a": [1, "x", None], "b": {"c": 2.5}}
    peer.ask(command="write", path=f"{group}/map", data=value)
    assert peer.ask(command="read", path=f"{group}/map")["data"] == value
    peer.ask(command="write", path=f"{group}/map", data=looks)
    np.testing.assert_array_equal(peer.data(f"{group}/map"), looks)


def test_a_value_that_is_no_array_has_no_rows(peer: Peer, greeted: Peer, group: str) -> None:
    value = {"a": [1, None]}
    written = {"command": "write", "path": group, "data": value}
    rows = np.array([1, 2], "u1")
    assert peer.ask(**written)["status"] == SUCCESS
    assert "no array" in peer.ask(command="append", path=group, data=rows)["message"]
    assert "no array" in peer.ask(command="insert", path=group, index=0, data=rows)["message"]
    assert greeted.ask(command="update", path=group, data=rows, selection=[[0, 2]])["code"] == "wrong_kind"
    batch = [written | {"path": f"{group}.new"}, {"command": "append", "path": f"{group}.new", "data": rows}]
    assert greeted.ask(command="batch", commands=batch)["code"] == "wrong_kind"
    assert peer.ask(command="read", path=group)["data"] == value
    assert peer.ask(command="write", path=group, data=rows)["status"] == SUCCESS
    assert peer.ask(command="append", path=group, data=rows)["status"] == SUCCESS
    assert peer.data(group).tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize("start", [np.arange(3), np.arange(6).reshape(2, 3), COMPOUND], ids=["1-D", "2-D", "compound"])
def test_rows_are_appended_and_inserted(served: Served, peer: Peer, group: str, start: Any) -> None:
    for _ in range(2):
        assert peer.ask(command="append", path=group, data=start, compression="gzip")["status"] == SUCCESS
    expected = np.concatenate((start, start))
    np.testing.assert_array_equal(peer.data(group), expected)
    for index in (0, 2, len(expected) + 2):
        assert peer.ask(command="insert", path=group, index=index, data=start[:1])["status"] == SUCCESS
        expected = np.insert(expected, index, start[0], axis=0)
        np.testing.assert_array_equal(peer.data(group), expected)
    for index in (-1, len(expected) + 1):
        assert peer.ask(command="insert", path=group, index=index, data=start[:1])["status"] == "error"
    np.testing.assert_array_equal(peer.data(group), expected)
    with h5py.File(served.path, "r", locking=False) as file:
        assert file[group].compression == "gzip"


def test_nothing_is_inserted_behind_a_single_value(peer: Peer, group: str) -> None:
    peer.ask(command="write", path=group, data=7)
    assert "before 2 in 1 rows" in peer.ask(command="insert", path=group, index=2, data=[8])["message"]
    assert peer.ask(command="insert", path=group, index=1, data=[8])["status"] == SUCCESS
    assert peer.data(group).tolist() == [7, 8]


def test_what_does_not_fit_changes_nothing(peer: Peer, group: str) -> None:
    peer.ask(command="append", path=group, data=np.arange(3, dtype="<i4"))
    for data in (np.array([1.5j]), np.arange(4).reshape(2, 2), np.array(["text"])):
        assert peer.ask(command="append", path=group, data=data)["status"] == "error"
    assert peer.data(group).tolist() == [0, 1, 2]


LARGE = np.array([("long text", 1)], [("name", "S9"), ("x", "<f8")])
SMALL = np.array([("text", 1)], [("name", "S4"), ("x", "<f4")])


@pytest.mark.parametrize(
    ("kept", "added"),
    [
        (np.zeros(2, "<f4"), np.array([1e300])),
        (np.zeros(2, "<f4"), [1.5, -1e39]),
        (np.zeros(2, "<f2"), np.array([70_000])),
        (np.zeros(2, "<c8"), np.array([1e300j])),
        (np.zeros(2, "<i4"), [1 << 40]),
        (np.zeros(2, "<u4"), [-1]),
        (np.zeros(2, "<i4"), np.array([1.0])),
        (np.zeros(2, "<i8"), np.array([1j])),
        (np.zeros(2, "?"), [1]),
        (np.array([b"ab", b"cd"]), np.array([b"abc"])),
        (SMALL, LARGE),
        (SMALL[["x"]], np.array([(1e300,)], [("x", "<f8")])),
        (SMALL, SMALL[["x"]]),
    ],
)
def test_what_would_be_clipped_or_cut_is_refused(peer: Peer, greeted: Peer, group: str, kept: Any, added: Any) -> None:
    kept = np.array(kept.tolist(), repack_fields(kept.dtype))
    added = np.array(added.tolist(), repack_fields(added.dtype)) if hasattr(added, "dtype") else added
    assert peer.ask(command="append", path=group, data=kept)["status"] == SUCCESS
    assert peer.ask(command="append", path=group, data=added)["status"] == "error"
    assert peer.ask(command="insert", path=group, index=0, data=added)["status"] == "error"
    for command in (
        {"command": "append", "path": group, "data": added},
        {"command": "insert", "path": group, "index": 1, "data": added},
        {"command": "update", "path": group, "selection": [[0, len(added)]], "data": added},
        {"command": "batch", "commands": [{"command": "append", "path": group, "data": added}]},
    ):
        assert greeted.ask(**command)["code"] == "type_mismatch"
    assert peer.data(group).tolist() == kept.tolist()


def test_what_fits_is_cast(peer: Peer, greeted: Peer, group: str) -> None:
    for number, (kind, added) in enumerate(
        [("<f4", [1.5, 2]), ("<f4", [float("inf")]), ("<i2", [300]), (">u4", np.array([7], "<i8")), ("<f8", [True])]
    ):
        path = f"{group}/{number}"
        commands = [
            {"command": "create_dataset", "path": path, "dtype": kind, "shape": [0], "maxshape": [None]},
            {"command": "append", "path": path, "data": added},
        ]
        assert greeted.ask(command="batch", commands=commands)["status"] == SUCCESS
        assert peer.ask(command="append", path=path, data=added)["status"] == SUCCESS
        assert peer.data(path).tolist() == 2 * np.asarray(added).astype(kind).tolist()


def test_scalars_of_numpy_are_arguments_as_any(peer: Peer, group: str) -> None:
    peer.ask(command="append", path=group, data=[1, 3])
    one = {b"nd": False, b"type": "<i8", b"data": np.int64(1).tobytes()}
    assert peer.ask(command="insert", path=group, index=one, data=[2])["status"] == SUCCESS
    assert peer.data(group).tolist() == [1, 2, 3]


def test_what_was_written_whole_can_grow(peer: Peer, group: str) -> None:
    peer.ask(command="write", path=group, data=np.arange(3, dtype="<i4"))
    assert peer.ask(command="append", path=group, data=np.array([9], "<i4"))["status"] == SUCCESS
    assert peer.ask(command="insert", path=group, index=1, data=np.array([8], "<i4"))["status"] == SUCCESS
    assert peer.data(group).tolist() == [0, 8, 1, 2, 9]


def test_rows_of_a_known_key_are_replaced(peer: Peer, group: str) -> None:
    kind = [("key", "<i4"), ("value", "<f8")]
    peer.ask(command="append", path=group, data=np.array([(1, 1.0), (2, 2.0)], kind), deduplicate_on="key")
    more = np.array([(2, 20.0), (3, 3.0), (3, 30.0), (1, 10.0)], kind)
    assert peer.ask(command="append", path=group, data=more, deduplicate_on="key")["status"] == SUCCESS
    assert peer.data(group).tolist() == [(1, 10.0), (2, 20.0), (3, 30.0)]
    assert peer.ask(command="append", path=group, data=more, deduplicate_on="none")["status"] == "error"


def test_listing_and_making_datasets_work_without_hello(peer: Peer, group: str) -> None:
    made = peer.ask(command="create_dataset", path=f"{group}/made", dtype="<f4", shape=[2, 2], fillvalue=1.5)
    assert made["status"] == SUCCESS
    assert peer.data(f"{group}/made").tolist() == [[1.5, 1.5], [1.5, 1.5]]
    listed = peer.ask(command="list", path=group)
    assert [item["name"] for item in listed["items"]] == ["made"]
    assert peer.ask_json(command="list", path=group)["items"][0]["shape"] == [2, 2]
    assert peer.ask(command="no_such_thing") == {"status": "error", "message": "Unknown command"}
    assert peer.ask(command="stat", path=group) == {"status": "error", "message": "Unknown command"}


def test_a_selection_without_hello_is_refused_and_changes_nothing(peer: Peer, group: str) -> None:
    peer.ask(command="write", path=group, data=np.arange(4))
    for more in ({"selection": [[0, 2]]}, {"selections": [[[0, 2]]]}, {"stream": True}, {"id": 3}, {"max_bytes": 9}):
        assert peer.ask(command="update", path=group, data=np.zeros(2), **more)["status"] == "error"
    assert peer.ask(command="update", path=group, data=np.arange(4) + 1, other=1, id=None)["status"] == SUCCESS
    assert peer.data(group).tolist() == [1, 2, 3, 4]


def test_an_extended_frame_before_hello_cuts_the_connection(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.send(extended({"command": "get_config"}))
        assert peer.reply()["status"] == "error"
        assert peer.receive() == b""


def test_what_was_acknowledged_is_seen_by_other_programs(served: Served, peer: Peer, group: str) -> None:
    for number in range(3):
        assert peer.ask(command="append", path=group, data=[number])["status"] == SUCCESS
        with h5py.File(served.path, "r", locking=False) as file:
            assert file[group][:].tolist() == list(range(number + 1))


def test_requests_are_answered_in_order(peer: Peer, group: str) -> None:
    for number in range(50):
        peer.send(packed(command="append", path=group, data=[number]))
        peer.send(packed(command="read", path=group))
    for number in range(50):
        assert peer.reply()["status"] == SUCCESS
        assert len(from_map(peer.reply()["data"])) == number + 1


def test_a_burst_of_small_reads_is_answered_in_order_with_what_cannot_be_read(peer: Peer, group: str) -> None:
    assert peer.ask(command="append", path=group, data=[7])["status"] == SUCCESS
    # More than are answered in one turn, in one write: they arrive together.
    peer.socket.sendall(frame(packed(command="read", path=group)) * 100 + frame(packed(command="read", path="/none")))
    peer.socket.sendall(frame(packed(command="read", path=group)) * 100)
    for number in range(201):
        reply = peer.reply()
        if number == 100:
            assert reply == {"status": "not_found"}
        else:
            assert from_map(reply["data"]).tolist() == [7]
