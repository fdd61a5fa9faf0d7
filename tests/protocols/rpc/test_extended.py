"""What a connection may do that said hello (C1 to C5, E)."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocols.rpc.conftest import TOKEN, Served, StartOwn
from tests.protocols.rpc.peer import FEATURES, Peer, extended, frame, packed, taken_apart

from ndstream.errors import InvalidSelection
from ndstream.protocols.rpc.selections import read_selection, read_selections

CUBE = np.arange(4 * 5 * 6, dtype="<i4").reshape(4, 5, 6)


def ask(peer: Peer, *bodies: bytes, **request: Any) -> dict[str, Any]:
    """Ask in an extended frame."""
    peer.send(extended(request, *bodies))
    return peer.reply()


def array(values: np.ndarray[Any, Any]) -> tuple[bytes, dict[str, Any]]:
    """Body of an array, and what refers to it."""
    return values.tobytes(), {"$nd": 0, "dtype": values.dtype.str, "shape": list(values.shape)}


# -- hello --


def test_a_hello_agrees_on_what_both_have(served: Served) -> None:
    with Peer(served.port) as peer:
        reply = peer.hello(version=7, features=["ids", "selection", "telepathy"])
        assert reply["status"] == "success"
        assert (reply["protocol"], reply["version"], reply["max_inflight"]) == ("ndstream-rpc", 1, 64)
        assert reply["max_frame"] == 256 << 20
        assert reply["features"] == ["ids", "selection"]
        assert reply["writable"] is True
        assert peer.ask(command="stat", path="/")["code"] == "unknown_command"
        assert peer.hello()["code"] == "bad_request"
        told = peer.ask(command="get_config", id=1)["limits"]
        assert (told["in_flight"], told["frames"], told["operations"]) == (64, 1 << 30, 100_000)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"version": 0}, "unsupported_version"), ({"protocol": "x"}, "bad_request"), ({"version": "1"}, "bad_request")],
)
def test_a_hello_that_means_nothing_here(served: Served, wrong: dict[str, Any], code: str) -> None:
    with Peer(served.port) as peer:
        assert peer.hello(**wrong)["code"] == code
        assert peer.ask(command="get_config")["status"] == "success"


def test_a_hello_comes_first(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.ask(command="get_config")
        assert peer.hello()["code"] == "bad_request"


def test_a_hello_that_comes_later_is_answered_under_its_id(greeted: Peer) -> None:
    told = greeted.ask(command="hello", protocol="ndstream-rpc", version=1, id=7)
    assert (told["id"], told["code"]) == (7, "bad_request")


@pytest.mark.parametrize("stream", [np.zeros(2), np.zeros((0, 4)), "yes", 1])
def test_what_is_no_flag_is_an_error_of_the_request(served: Served, stream: Any) -> None:
    with Peer(served.port) as peer:
        peer.hello(features=["ids"])
        assert peer.ask(command="read", path="/cube", stream=stream, id=1)["code"] == "bad_request"


def test_a_token_is_asked_for(guarded: Served) -> None:
    with Peer(guarded.port) as peer:
        assert peer.ask(command="write", path="/x", data=[1])["status"] == "error"
        assert peer.ask(command="read", path="/x")["status"] == "error"
    with Peer(guarded.port) as peer:
        assert peer.hello(token="guessed")["code"] == "auth_required"
        assert peer.receive() == b""
    with Peer(guarded.port) as peer:
        assert peer.hello()["code"] == "auth_required"
    with Peer(guarded.port) as peer:
        assert peer.hello(token=TOKEN)["writable"] is True
        assert peer.ask(command="write", path="/x", data=[1])["status"] == "success"


# -- frames --


def test_the_example_of_the_specification(greeted: Peer, group: str) -> None:
    greeted.ask(command="write", path=group, data=np.arange(3, dtype="<i4"))
    greeted.send(packed(command="read", path=group, id=7))
    payload = greeted.receive()
    fields, more = taken_apart(payload)
    assert not more
    assert fields["id"] == 7
    assert fields["data"].tolist() == [0, 1, 2]
    assert payload[-12:] == bytes.fromhex("000000000100000002000000")


def test_single_values_are_single_after_hello(greeted: Peer, group: str) -> None:
    for value in (7, 2.5, "größer", True):
        greeted.ask(command="write", path=group, data=value)
        reply = greeted.ask(command="read", path=group)
        assert np.asarray(reply["data"]).shape == ()
        assert reply["data"] == value


@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_bodies_become_datasets(served: Served, group: str, form: str) -> None:
    body, reference = array(CUBE)
    with Peer(served.port) as peer:
        peer.hello(features=[*FEATURES, "zlib"])
        if form == "compressed":
            reference |= {"codec": "zlib", "nbytes": len(body)}
            body = zlib.compress(body)
        assert ask(peer, body, command="write", path=group, data=reference)["status"] == "success"
    with Peer(served.port) as peer:
        peer.hello()
        np.testing.assert_array_equal(peer.data(group), CUBE)


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({"nbytes": 10}, zlib.compress(bytes(480))),
        ({"nbytes": 480}, zlib.compress(bytes(1 << 20))),
        ({"nbytes": 480}, zlib.compress(bytes(100))),
        ({"nbytes": 480}, b"not compressed"),
        ({"nbytes": 480, "codec": "zstd"}, b""),
        ({"nbytes": 1 << 40, "shape": [1 << 38]}, zlib.compress(bytes(480))),
        ({"codec": None, "shape": [1 << 60]}, bytes(480)),
        ({"codec": None, "$nd": 5}, bytes(480)),
        ({"codec": None, "dtype": "O"}, bytes(480)),
    ],
)
def test_bodies_that_lie(served: Served, group: str, change: dict[str, Any], body: bytes) -> None:
    with Peer(served.port) as peer:
        peer.hello(features=[*FEATURES, "zlib"])
        reference = {"$nd": 0, "dtype": "<i4", "shape": [4, 5, 6], "codec": "zlib"} | change
        assert ask(peer, body, command="write", path=group, data=reference, id=1)["status"] == "error"
    with Peer(served.port) as peer:
        assert peer.ask(command="read", path=group) == {"status": "not_found"}


# -- selections --

entries = st.one_of(
    st.none(),
    st.integers(-4, 3),
    st.tuples(st.none() | st.integers(-7, 7), st.none() | st.integers(-7, 7)).map(list),
    st.tuples(st.none() | st.integers(-7, 7), st.none() | st.integers(-7, 7), st.integers(1, 4)).map(list),
    st.lists(st.integers(-4, 3), max_size=5).map(lambda indices: {"i": indices}),
)


def key_of(entry: Any) -> Any:
    match entry:
        case None:
            return slice(None)
        case list():
            return slice(*entry)
        case {"i": indices}:
            return np.array(indices, int)
        case {"m": mask}:
            return np.flatnonzero(mask)
    return entry


def outer(values: np.ndarray[Any, Any], selection: list[Any]) -> np.ndarray[Any, Any]:
    """What numpy gives for a selection whose lists combine as an outer product."""
    taken = values
    for axis in reversed(range(len(selection))):
        key = key_of(selection[axis])
        taken = taken.take(key, axis) if isinstance(key, int | np.ndarray) else taken[(slice(None),) * axis + (key,)]
    return taken


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(selection=st.lists(entries, max_size=3))
def test_selections_are_what_numpy_selects(greeted: Peer, selection: list[Any]) -> None:
    if greeted.ask(command="read", path="/cube", max_bytes=1)["status"] == "not_found":
        greeted.ask(command="write", path="/cube", data=CUBE)
    found = greeted.ask(command="read", path="/cube", selection=selection)
    expected = outer(CUBE, selection)
    assert found["status"] == "success", found
    assert found["shape"] == list(expected.shape)
    np.testing.assert_array_equal(found["data"], expected)


def test_masks_and_the_ellipsis(greeted: Peer, group: str) -> None:
    greeted.ask(command="write", path=group, data=CUBE)
    mask = [True, False, True, False, True]
    np.testing.assert_array_equal(greeted.data(group, selection=[None, {"m": mask}, [0, 4, 2]]), CUBE[:, mask, 0:4:2])
    np.testing.assert_array_equal(greeted.data(group, selection=["...", -1]), CUBE[..., -1])
    np.testing.assert_array_equal(greeted.data(group, selection=[1, "..."]), CUBE[1])


@pytest.mark.parametrize(
    "wrong",
    [
        *([9], [{"i": [0, 9]}], [None, {"m": [True]}], ["x"], [[0, 1, 0]], [0, 0, 0, 0], [1.5]),
        *([{"i": [1, [2]]}], [{"m": [True, [True], False, False]}], [{"i": ["1"]}], [{"i": [(1 << 64) - 1]}]),
    ],
)
def test_selections_that_are_none(greeted: Peer, group: str, wrong: list[Any]) -> None:
    greeted.ask(command="write", path=group, data=CUBE)
    assert greeted.ask(command="read", path=group, selection=wrong)["code"] in ("out_of_range", "bad_request")


@pytest.mark.parametrize("name", ["i", "m"])
def test_text_in_the_place_of_numbers_takes_no_memory(name: str) -> None:
    texts = ["x" * 20_000, *["a"] * 2000]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidSelection):
            read_selection([{name: texts}], (2001,), 1 << 24)
        with pytest.raises(InvalidSelection):
            read_selections([[text] for text in texts], (2001,), 1 << 24)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_regions_are_written(greeted: Peer, group: str) -> None:
    greeted.ask(command="write", path=group, data=CUBE)
    expected = CUBE.copy()
    for selection, key, values in [
        ([1, [0, 2], None], np.s_[1, 0:2, :], np.full((2, 6), -1, "<i4")),
        ([{"i": [3, 0]}, 2], np.s_[[3, 0], 2], np.arange(12, dtype="<i4").reshape(2, 6)),
        ([None, None, 0], np.s_[:, :, 0], np.int32(7)),
    ]:
        reply = greeted.ask(command="update", path=group, selection=selection, data=np.asarray(values))
        assert reply["status"] == "success", reply
        expected[key] = values
    np.testing.assert_array_equal(greeted.data(group), expected)
    wrong = greeted.ask(command="update", path=group, selection=[0], data=np.zeros((2, 2), "<i4"))
    assert wrong["code"] == "shape_mismatch"
    assert wrong["details"] == {"expected": [5, 6], "got": [2, 2]}
    np.testing.assert_array_equal(greeted.data(group), expected)


def test_a_hundred_thousand_slices_are_one_request(greeted: Peer, group: str) -> None:
    values = np.arange(300_000, dtype="<i4")
    greeted.ask(command="write", path=group, data=values)
    slices = [[[start, start + 2]] for start in range(0, 300_000, 3)]
    np.testing.assert_array_equal(greeted.data(group, selections=slices), values.reshape(-1, 3)[:, :2].reshape(-1))


def test_several_selections_follow_one_another(greeted: Peer, group: str) -> None:
    greeted.ask(command="write", path=group, data=CUBE)
    selections = [[[2, 3], 1], [{"i": [0, 0]}, 1], [3, 1]]
    expected = np.concatenate([CUBE[2:3, 1], CUBE[[0, 0], 1], CUBE[3:4, 1]])
    np.testing.assert_array_equal(greeted.data(group, selections=selections), expected)
    unequal = greeted.ask(command="read", path=group, selections=[[0, 1], [0, [0, 2]]])
    assert unequal["code"] == "shape_mismatch"


KINDS = {
    **{f"numbers/{kind}": np.arange(6).reshape(2, 3).astype(kind) for kind in ("u1", "i2", ">i4", "<f8", "c16", "?")},
    "numbers/one": np.float64(0.5),
    "numbers/none": np.zeros((0, 3)),
    "numbers/small": np.int8(3),
    "text": np.array([b"ab", b"c"]),
    "unicode": np.array(["\u00e9", "x"], object),
    "records": np.array([(1, 2.5), (3, 4.5)], [("a", ">i2"), ("b", "<f4")]),
    "bytes": np.arange(5, dtype="u1"),
    "enumeration": np.array([0, 1], h5py.enum_dtype({"off": 0, "on": 1}, "i1")),
}


@pytest.mark.parametrize("original", [True, False])
def test_what_is_at_hand_is_answered_in_the_same_bytes(start_own: StartOwn, original: bool) -> None:
    """What has a key more, though it says nothing, is no plain read, and goes the long way."""
    served = start_own(KINDS)
    with Peer(served.port) as peer:
        how: list[dict[str, Any]] = [{}]
        if not original:
            peer.hello()
            how += [{"id": 7}, {"id": "x", "stream": True}, {"id": 3, "selection": [[0, 1]]}, {"max_bytes": 100}]
        for path, each in itertools.product(KINDS, how):
            answers = []
            for more in ({}, {}, {"selections": None}):
                peer.send(packed(command="read", path=f"/{path}", **each, **more))
                answers.append(peer.receive())
                while answers[-1][:1] == b"\xc1" and answers[-1][3] & 1:
                    answers[-1] = peer.receive()
            assert answers[0] == answers[1] == answers[2]


def test_more_reads_together_than_may_be_under_way(start_own: StartOwn) -> None:
    served = start_own(KINDS, limits={"in_flight": 4})
    with Peer(served.port) as peer:
        for _ in range(3):
            peer.socket.sendall(8 * frame(packed(command="read", path="/numbers/i2")))
            assert all(peer.reply()["status"] == "success" for _ in range(8))


# -- order --


def test_a_thousand_requests_at_once(greeted: Peer, group: str) -> None:
    greeted.ask(command="write", path=f"{group}/0", data=[-1])
    for number in range(500):
        name = f"{group}/{number % 5}"
        greeted.send(packed(command="write", path=name, data=[number], id=2 * number))
        greeted.send(packed(command="read", path=name, id=2 * number + 1))
    replies = {reply["id"]: reply for reply in (greeted.reply() for _ in range(1000))}
    assert sorted(replies) == list(range(1000))
    for number in range(500):
        # Of one path in the order sent: each sees what the one before it wrote.
        assert replies[2 * number]["status"] == "success"
        assert replies[2 * number + 1]["data"].tolist() == [number]


def test_an_id_is_in_use_until_its_reply(greeted: Peer) -> None:
    greeted.send(packed(command="follow", id="x"))
    assert greeted.ask(command="ping", id="x")["code"] == "bad_request"
    assert greeted.ask(command="ping", id="y") == {"id": "y", "status": "success"}
    for wrong in (-1, 1 << 60, "x" * 65, 1.5):
        assert greeted.ask(command="ping", id=wrong)["code"] == "bad_request"


# -- streams --


def test_commits_are_told_as_they_happen(served: Served, greeted: Peer, group: str) -> None:
    greeted.send(packed(command="follow", id=1))
    with Peer(served.port) as writer:
        writer.hello()
        for number in range(3):
            writer.ask(command="append", path=group, data=[number])
    shapes: list[list[int]] = []
    while len(shapes) < 3:
        event = greeted.reply()["event"]
        shapes += [change["shape"] for change in event["changes"] if change["name"] == group and change.get("shape")]
    assert shapes == [[1], [2], [3]]
    greeted.send(packed(command="cancel", target=1, id=2))
    assert {greeted.reply()["id"] for _ in range(2)} == {1, 2}


# -- objects --


def test_datasets_are_made_as_they_are_asked_for(served: Served, greeted: Peer, group: str) -> None:
    made = greeted.ask(
        command="create_dataset", path=f"{group}/d", dtype="<f4", shape=[6, 4], maxshape=[None, 4], chunks=[3, 4],
        compression="gzip", compression_opts=7, shuffle=True, fillvalue=1.5,
    )  # fmt: skip
    assert made["status"] == "success", made
    stat = greeted.ask(command="stat", path=f"{group}/d")
    assert (stat["kind"], stat["shape"], stat["maxshape"], stat["chunks"]) == ("dataset", [6, 4], [None, 4], [3, 4])
    assert stat["dtype"] == "<f4"
    with h5py.File(served.path, "r", locking=False) as file:
        found = file[f"{group}/d"]
        assert (found.chunks, found.compression, found.compression_opts) == ((3, 4), "gzip", 7)
        assert (found.shuffle, found.fillvalue, found.maxshape) == (True, 1.5, (None, 4))
    again = {"command": "create_dataset", "path": f"{group}/d", "dtype": "<f4", "shape": [6, 4]}
    assert greeted.ask(**again)["code"] == "exists"
    assert greeted.ask(**again, exist_ok=True)["status"] == "success"
    assert greeted.ask(**(again | {"shape": [5, 4]}), exist_ok=True)["code"] == "exists"
    resized = greeted.ask(command="resize", path=f"{group}/d", shape=[9, 4])
    assert resized["shape"] == [9, 4]
    assert greeted.ask(command="resize", path=f"{group}/d", shape=[1, 4])["code"] == "bad_request"
    assert greeted.ask(command="resize", path=f"{group}/d", shape=[1, 4], shrink=True)["shape"] == [1, 4]
    assert greeted.ask(command="append", path=f"{group}/d", data=np.ones((2, 4), "<f4"))["shape"] == [3, 4]
    assert greeted.ask(command="delete", path=f"{group}/d")["deleted"] is True
    assert greeted.ask(command="delete", path=f"{group}/d")["deleted"] is False


def test_listings_come_in_pages(greeted: Peer, group: str) -> None:
    commands = [{"command": "create_group", "path": f"{group}/{number:03}"} for number in range(250)]
    assert greeted.ask(command="batch", commands=commands)["status"] == "success"
    names: list[str] = []
    more = True
    while more:
        page = greeted.ask(command="list", path=group, limit=100, after=names[-1] if names else None)
        names += [item["name"] for item in page["items"]]
        more = page["more"]
    assert names == [f"{number:03}" for number in range(250)]


@pytest.mark.parametrize("limit", [1, 3])
def test_pages_of_what_is_deeper_lose_nothing(greeted: Peer, group: str, limit: int) -> None:
    names = ["run", "run/a", "run/a/x", "run/b", "run 2", "run-1", "run.bak", "zz"]
    commands = [{"command": "create_group", "path": f"{group}/{name}"} for name in names]
    assert greeted.ask(command="batch", commands=commands)["status"] == "success"
    found: list[dict[str, Any]] = []
    more = True
    while more:
        after = found[-1]["name"] if found else None
        page = greeted.ask(command="list", path=group, depth=3, limit=limit, after=after)
        found += page["items"]
        more = page["more"]
    assert [item["name"] for item in found] == names
    assert [item["path"] for item in found] == [f"{group}/{name}" for name in names]


def test_attributes_of_all_kinds(greeted: Peer, group: str) -> None:
    greeted.ask(command="create_group", path=group)
    attrs = {"text": "größer", "number": 3, "real": 2.5, "flag": True, "list": [1, 2, 3], "texts": ["a", "b"]}
    assert greeted.ask(command="set_attrs", path=group, attrs=attrs)["status"] == "success"
    found = greeted.ask(command="get_attrs", path=group)["attrs"]
    assert {name: np.asarray(value).tolist() for name, value in found.items()} == attrs
    bad = greeted.ask(command="set_attrs", path=group, attrs={"number": 4, "bad": {"a": 1}})
    assert bad["status"] == "error"
    assert greeted.ask(command="get_attrs", path=group, names=["number"])["attrs"] == {"number": 3}
    assert greeted.ask(command="delete_attrs", path=group, names=["number", "none"])["deleted"] is True
    assert greeted.ask(command="get_attrs", path=group, names=["number"])["code"] == "not_found"


def test_errors_have_the_code_of_what_is_wrong(greeted: Peer, group: str) -> None:
    greeted.ask(command="write", path=f"{group}/d", data=[1])
    for command in ("write", "append"):
        reply = greeted.ask(command=command, path=f"{group}/d/x", data=[1])
        assert reply["code"] == "wrong_kind"
        assert "operation" not in reply["message"]
    assert greeted.ask(command="list", path=f"{group}/d")["code"] == "wrong_kind"
    assert greeted.ask(command="create_group", path=f"{group}/d")["code"] == "exists"


def test_a_batch_is_carried_out_whole_or_not_at_all(greeted: Peer, group: str) -> None:
    commands = [
        {"command": "write", "path": f"{group}/a", "data": [1, 2]},
        {"command": "create_dataset", "path": f"{group}/b", "dtype": "<i8", "shape": [0], "maxshape": [None]},
        {"command": "append", "path": f"{group}/b", "data": [5]},
    ]
    done = greeted.ask(command="batch", commands=commands, key=group)
    assert done["status"] == "success"
    assert done["results"][2]["shape"] == [1]
    again = greeted.ask(command="batch", commands=commands, key=group)
    assert (again["repeated"], again["commit"]) == (True, done["commit"])
    assert greeted.data(f"{group}/b").tolist() == [5]
    late = greeted.ask(command="batch", commands=commands[:1], condition=done["commit"] + 1000)
    assert late["code"] == "conflict"
    wrong = [*commands[:1], {"command": "append", "path": f"{group}/a", "data": ["text"]}]
    wrong[0] = {"command": "write", "path": f"{group}/a", "data": [9]}
    assert greeted.ask(command="batch", commands=wrong)["status"] == "error"
    assert greeted.data(f"{group}/a").tolist() == [1, 2]


def test_a_file_that_is_served_read_only(read_only: Served) -> None:
    with Peer(read_only.port) as peer:
        assert peer.hello()["writable"] is False
        assert peer.ask(command="write", path="/x", data=[1])["code"] == "read_only"
        assert "inside" in [item["name"] for item in peer.ask(command="list")["items"]]


def test_a_file_that_is_damaged_is_told(read_only: Served) -> None:
    whole = read_only.path.read_bytes()
    read_only.path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    try:
        with Peer(read_only.port) as peer:
            peer.hello()
            assert peer.ask(command="read", path="/x")["code"] == "corrupt"
            assert peer.ask(command="ping")["status"] == "success"
    finally:
        read_only.path.write_bytes(whole)
