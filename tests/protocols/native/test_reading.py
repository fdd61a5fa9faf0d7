"""Descriptions and data over HTTP, without a socket."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest

from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.core.model import ExternalLink
from ndstream.core.ports import Access
from ndstream.core.selection.plain import prepared
from ndstream.protocols.native import service
from ndstream.stores.memory import Array, Group, MemoryStore, Tree
from ndstream.stores.tree import Member

from .conftest import Peer, Reply

MakePeer = Callable[..., Peer]
MATRIX = np.arange(20, dtype=">i4").reshape(5, 4)
TEXTS = np.array([b"one", "zwei ü".encode(), b""], h5py.string_dtype())
RECORDS = np.array([(1, 2.5, b"ab"), (3, -1, b"c")], [("n", "<i2"), ("x", "<f8"), ("s", "S3")])
TREE: Tree = {
    "a": {
        "f.h5": Group(
            {
                "g": Group({f"m{n}": Array(np.array(n, "f4")) for n in range(7)}, {"unit": np.array(5)}),
                "x": Array(MATRIX),
                "t": Array(TEXTS),
                "r": Array(RECORDS),
                "z": Array(np.array([1 + 2j, 3j])),
                "s": Array(np.array(7)),
            }
        ),
        "t.txt": b"text",
    },
    "secret": {"f.h5": Group({"x": Array(MATRIX)})},
}


@pytest.fixture
def talk(peer: MakePeer) -> Peer:
    return peer(MemoryStore(TREE))


def assert_problem(reply: Reply, status: int, code: str) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["ndstream-error"] == code
    assert reply.document["code"] == code


def test_capabilities_name_version_and_limits(talk: Peer) -> None:
    found = talk.get("").document
    assert found["protocol"] == 1
    assert found["limits"]["selections"] == DEFAULT_LIMITS.selections


def test_tree_describes_directories_and_files(talk: Peer) -> None:
    root = talk.get("/tree/", "depth=1").document["directory"]
    assert sorted(root["directories"]["a"]["files"]) == ["f.h5", "t.txt"]
    reply = talk.get("/tree/a/t.txt")
    assert reply.document["file"]["size"] == 4
    assert reply.headers["etag"].startswith('"')
    assert_problem(talk.get("/tree/nothing"), 404, "not-found")


def test_what_a_user_may_not_see_is_not_there(talk: Peer) -> None:
    blind = Access(user="u", hidden=frozenset({"secret"}))
    for path in ("/tree/secret", "/node/secret/f.h5", "/data/secret/f.h5"):
        assert_problem(talk.ask("GET", path, query="name=/x", access=blind), 404, "not-found")


def test_a_node_is_described_in_both_formats(talk: Peer) -> None:
    json = talk.get("/node/a/f.h5", "name=/x").document
    packed = talk.get("/node/a/f.h5", "name=/x&format=msgpack").document
    assert json == packed
    assert json["node"]["shape"] == [5, 4]
    assert json["node"]["dtype"] == {"class": "integer", "size": 4, "order": ">"}


def test_members_of_a_group_come_in_pages(talk: Peer) -> None:
    seen: list[str] = []
    query = "name=/g&limit=3"
    while True:
        page = talk.get("/node/a/f.h5", query).document
        assert page["node"]["attributes"]["unit"]["shape"] == []
        seen += page["node"]["members"]
        if page["following"] is None:
            break
        query = f"name=/g&limit=3&after={page['following']}"
    assert seen == [f"m{n}" for n in range(7)]
    assert_problem(talk.get("/node/a/f.h5", "name=/g&after=gone"), 412, "conflict")


def test_a_block_is_a_header_and_the_bytes_as_they_are_stored(talk: Peer) -> None:
    reply = talk.get("/data/a/f.h5", "name=/x&select=1:3,::-1")
    assert reply.headers["content-type"] == "application/x-ndstream"
    ((header, body),) = reply.blocks
    assert header == {"dtype": {"class": "integer", "size": 4, "order": ">"}, "shape": [2, 4], "nbytes": 32}
    assert body == MATRIX[1:3, ::-1].tobytes()
    assert len(reply.pieces) == 1


def test_many_selections_are_answered_in_their_order(talk: Peer) -> None:
    body = {"reads": [{"name": "/x", "select": "0"}, {"name": "/s"}, {"name": "/x", "select": "[3,0],1:2"}]}
    blocks = talk.post("/data/a/f.h5", body).blocks
    assert [header["shape"] for header, _ in blocks] == [[4], [], [2, 1]]
    assert [data for _, data in blocks] == [MATRIX[0].tobytes(), np.array(7).tobytes(), MATRIX[[3, 0], 1:2].tobytes()]


def test_small_selections_that_are_much_together_are_refused(peer: MakePeer) -> None:
    limits = replace(DEFAULT_LIMITS, request_memory=10_000)
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(np.zeros(1000))})}, limits=limits), limits)
    assert talk.post("/data/f.h5", {"reads": [{"name": "/x", "select": ":400"}] * 3}).status == 200
    assert_problem(talk.post("/data/f.h5", {"reads": [{"name": "/x", "select": ":400"}] * 4}), 413, "too-large")
    assert talk.get("/data/f.h5", "name=/x").status == 200


def test_what_is_long_is_read_beside_the_event_loop(peer: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(20_000, dtype="<i4")
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(values)})}))
    threads: list[threading.Thread] = []

    def noted(plain: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return prepared(plain, **options)

    monkeypatch.setattr(service, "prepared", noted)
    indices = list(range(20_000))[::-1]
    for select in (str(indices), {"axes": [{"indices": indices}]}):
        ((_, body),) = talk.post("/data/f.h5", {"reads": [{"name": "/x", "select": select}]}).blocks
        assert body == values[::-1].tobytes()
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_elements_of_variable_length_come_in_frames(talk: Peer) -> None:
    body = talk.get("/data/a/f.h5", "name=/t").body
    length = int.from_bytes(body[4:8], "little")
    header, rest = msgpack.unpackb(body[8 : 8 + length]), body[8 + length :]
    assert header["nbytes"] is None
    size = int.from_bytes(rest[:4], "little")
    assert msgpack.unpackb(rest[4 : 4 + size]) == TEXTS.tolist()
    assert rest[4 + size :] == bytes(4)


@pytest.mark.parametrize("name", ["x", "r", "z", "s"])
def test_npy_is_what_numpy_loads(talk: Peer, name: str) -> None:
    reply = talk.get("/data/a/f.h5", f"name=/{name}", accept="application/x-npy")
    loaded = np.load(io.BytesIO(reply.body))
    expected = {"x": MATRIX, "r": RECORDS, "z": np.array([1 + 2j, 3j]), "s": np.array(7)}[name]
    assert loaded.dtype == expected.dtype
    np.testing.assert_array_equal(loaded, expected)


def test_json_has_plain_values(talk: Peer) -> None:
    def values(name: str) -> object:
        return talk.get("/data/a/f.h5", f"name=/{name}&format=json").document["data"]

    assert values("x") == MATRIX.tolist()
    assert values("t") == ["one", "zwei ü", ""]
    assert values("r") == [[1, 2.5, "ab"], [3, -1.0, "c"]]
    assert values("z") == [[1.0, 2.0], [0.0, 3.0]]
    assert values("s") == 7


def test_an_entity_tag_saves_the_second_answer(talk: Peer) -> None:
    for path, query in (("/data/a/f.h5", "name=/x"), ("/node/a/f.h5", "name=/x"), ("/tree/a/f.h5", "")):
        tag = talk.get(path, query).headers["etag"]
        again = talk.get(path, query, if_none_match=tag)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert talk.get(path, query, if_none_match='"other"').status == 200


def test_what_other_files_have_a_part_in_has_no_tag(peer: MakePeer) -> None:
    members: dict[str, Member] = {"own": Array(MATRIX), "out": ExternalLink(filename="there.h5", target="/x")}
    talk = peer(MemoryStore({"f.h5": Group(members), "there.h5": Group({"x": Array(MATRIX)})}))
    tag = talk.get("/data/f.h5", "name=/own").headers["etag"]
    for path, query in (("/data/f.h5", "name=/out"), ("/node/f.h5", "name=/out"), ("/node/f.h5", "")):
        reply = talk.get(path, query, if_none_match=tag)
        assert (reply.status, reply.headers.get("etag")) == (200, None)
    assert "etag" not in talk.post("/data/f.h5", {"reads": [{"name": "/own"}, {"name": "/out"}]}).headers


def test_a_read_of_another_state_is_refused(talk: Peer) -> None:
    tag = talk.get("/data/a/f.h5", "name=/x").headers["etag"]
    assert talk.get("/data/a/f.h5", "name=/x", if_match=tag).status == 200
    assert_problem(talk.get("/data/a/f.h5", "name=/x", if_match='"other"'), 412, "conflict")


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("/data/a/f.h5", "name=/x&select=5", 416, "bounds"),
        ("/data/a/f.h5", "name=/x&select=1:2:", 200, ""),
        ("/data/a/f.h5", "name=/x&select=nonsense", 400, "selection"),
        ("/data/a/f.h5", "name=/y", 404, "not-found"),
        ("/data/a/f.h5", "name=/g", 404, "not-found"),
        ("/data/a/f.h5", "name=/x&format=tiff", 400, "invalid"),
        ("/data/a/f.h5", "name=/x&format=chunks", 422, "dtype"),
        ("/data/a/f.h5", "name=/t&format=raw", 422, "dtype"),
        ("/node/a/f.h5", "depth=many", 400, "invalid"),
        ("/node/a/f.h5", "depth=" + "9" * 5000, 400, "invalid"),
        ("/node/a", "", 404, "not-found"),
        ("/tree/../a", "", 404, "not-found"),
        ("/else/a", "", 404, "not-found"),
    ],
)
def test_errors_are_problem_documents(talk: Peer, path: str, query: str, status: int, code: str) -> None:
    reply = talk.get(path, query)
    if code:
        assert_problem(reply, status, code)
    assert reply.status == status


def test_methods_and_media_types_that_do_not_fit_are_refused(talk: Peer) -> None:
    assert talk.ask("DELETE", "/node/a/f.h5").headers["allow"] == "GET, HEAD, OPTIONS"
    assert talk.ask("OPTIONS", "/data/a/f.h5").status == 204
    assert talk.ask("OPTIONS", "/openapi.json").headers["allow"] == "GET, HEAD, OPTIONS"
    assert talk.ask("DELETE", "/openapi.json").status == 405
    assert talk.get("/data/a/f.h5", "name=/x", accept="image/png").status == 406
    assert talk.post("/data/a/f.h5", b"<xml/>", content_type="text/xml").status == 415
    assert talk.post("/data/a/f.h5", b"\x01").status == 400


def test_a_length_may_begin_with_zeros(talk: Peer) -> None:
    body = {"reads": [{"name": "/s"}]}
    assert talk.post("/data/a/f.h5", body, content_length="0" * 5000 + "17").status == 200


def test_a_body_whose_text_is_not_utf_8_is_refused(talk: Peer) -> None:
    name = b"\x81\xa5reads\x91\x81\xa4name\xa2/\xff"
    assert_problem(talk.post("/data/a/f.h5", name), 400, "invalid")


def test_head_tells_the_length_and_sends_nothing(talk: Peer) -> None:
    whole = talk.get("/data/a/f.h5", "name=/x")
    reply = talk.ask("HEAD", "/data/a/f.h5", query="name=/x")
    assert (reply.body, reply.headers["content-length"]) == (b"", str(len(whole.body)))


def test_long_data_come_in_pieces(peer: MakePeer) -> None:
    big = np.arange(1 << 18, dtype="<f8")
    limits = replace(DEFAULT_LIMITS, piece=1 << 19)
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(big)})}, limits=limits), limits)
    reply = talk.get("/data/f.h5", "name=/x")
    assert reply.blocks[0][1] == big.tobytes()
    assert max(reply.pieces) == 1 << 19


def test_a_document_too_long_is_refused_before_the_first_byte(peer: MakePeer) -> None:
    limits = replace(DEFAULT_LIMITS, document=1000)
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(np.zeros(1000))})}, limits=limits), limits)
    assert_problem(talk.get("/data/f.h5", "name=/x&format=msgpack"), 413, "too-large")


def test_the_openapi_document_names_every_endpoint(talk: Peer) -> None:
    document = talk.get("/openapi.json").document
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {
        "/v1", "/v1/tree/{path}", "/v1/node/{path}", "/v1/data/{path}", "/v1/write/{path}", "/v1/events/{path}",
    }  # fmt: skip
