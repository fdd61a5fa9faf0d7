"""Requests and answers over HTTP, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import anyio
import h5py
import msgpack
import numpy as np
import pytest

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.ports import Access, Message, Reading
from ndstream.errors import Busy, Corrupt, DataError, NDStreamError, Replaced, TimedOut, UnsupportedDType, WorkerDied
from ndstream.protocols.hdfstream.plugin import PROTOCOL
from ndstream.stores.memory import Array, Group, MemoryReading, MemoryStore, Tree
from ndstream.wire.integers import write_integers
from ndstream.wire.ndmsgpack import MARK

from .conftest import Peer, Reply

MakePeer = Callable[..., Peer]
MATRIX = np.arange(20, dtype="<i4").reshape(5, 4)
TREE: Tree = {"a": {"f.h5": Group({"x": Array(MATRIX), "s": Array(np.array(7))}), "t.txt": b"text"}}


@pytest.fixture
def talk(peer: MakePeer) -> Peer:
    return peer(MemoryStore(TREE))


def assert_error(reply: Reply, status: int, code: str) -> None:
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/x-msgpack"
    assert list(reply.document) == ["error"]
    assert isinstance(reply.document["error"], str)
    assert reply.headers["ndstream-error"] == code


# -- slices --


def test_a_slice_is_the_array_and_nothing_else(talk: Peer) -> None:
    reply = talk.post("/msgpack/a/f.h5", {"object": "x", "slice": [[1, 2], [0, 4]]})
    assert reply.body.startswith(MARK)
    assert list(reply.document) == ["nd", "type", "kind", "shape", "nbytes", "data"]
    assert reply.document["shape"] == [2, 4]
    assert reply.document["data"] == [MATRIX[1:3].tobytes()]
    assert reply.headers["content-type"] == "application/x-msgpack"
    assert len(reply.pieces) == 1


def test_all_spellings_of_a_slice_give_the_same_bytes(talk: Peer) -> None:
    bodies = [
        talk.post("/msgpack/a/f.h5", {"object": "x", "slice": [[[0, 3], [2, 1]], [1, 2]]}).body,
        talk.post("/msgpack/a/f.h5", {"object": "/x", "slice": "0:2,1:3;3,1:3"}).body,
        talk.get("/msgpack/a/f.h5", "object=x&slice=0:2,1:3;3:4,1:3").body,
        talk.get("/msgpack/a/f.h5", "object=%2Fx&slice=%200:2%20,1:3;3,1:3&other=1").body,
    ]
    assert len(set(bodies)) == 1
    assert msgpack.unpackb(bodies[0])["data"] == [MATRIX[[0, 1, 3], 1:3].tobytes()]


def test_scalars_and_empty_slices(talk: Peer) -> None:
    assert talk.post("/msgpack/a/f.h5", {"object": "s", "slice": []}).document["shape"] == []
    empty = talk.post("/msgpack/a/f.h5", {"object": "x", "slice": [[2, 0], [0, 4]]}).document
    assert (empty["shape"], empty["nbytes"], empty["data"]) == ([0, 4], 0, [])


def test_long_slices_come_in_pieces_without_being_joined(peer: MakePeer) -> None:
    big = np.arange(1 << 20, dtype=">f8")
    limits = replace(DEFAULT_LIMITS, piece=1 << 20)
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(big)})}, limits=limits), limits)
    reply = talk.post("/msgpack/f.h5", {"object": "x", "slice": [[0, 1 << 20]]})
    assert reply.document["data"] == [big.astype("<f8").tobytes()]
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert max(reply.pieces) == 1 << 20
    assert len(reply.pieces) == 10


def test_elements_of_variable_length(peer: MakePeer) -> None:
    values = np.empty(3, h5py.string_dtype())
    values[:] = [b"a", "größe".encode(), b"\xff"]
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(values)})}))
    request = {"object": "x", "slice": [[1, 2]]}
    reply = talk.post("/msgpack/f.h5", request)
    assert list(reply.document.items()) == [("vlen", True), ("shape", [2]), ("data", ["größe", "\ufffd"])]
    assert "content-length" not in reply.headers
    ours = talk.post("/msgpack/f.h5", request, extended=True).document
    assert list(ours.items())[2:] == [("data", ["größe".encode(), b"\xff"]), ("elements", True)]


def test_a_compound_of_many_members_keeps_its_prefix_short(peer: MakePeer) -> None:
    dtype = np.dtype([(f"member number {n}", "<f4") for n in range(100)])
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(np.zeros(3, dtype))})}))
    reply = talk.post("/msgpack/f.h5", {"object": "x", "slice": [[0, 3]]})
    assert (reply.document["type"], reply.document["kind"]) == ("V400", "V")
    assert len(reply.body) - 1200 <= 1024
    described = talk.post("/msgpack/f.h5", {"object": "x", "data_size_limit": 0}).document
    assert len(described["type"]["names"]) == 100


@pytest.mark.parametrize(
    ("slices", "status", "code"),
    [
        ([[0, 5]], 400, "selection"),
        ([], 400, "selection"),
        ([[0, 5], [0, 4], [0, 1]], 400, "selection"),
        ("3:1,0", 400, "invalid"),
        ([[[0, 1], [1]], [0, [1, 1]]], 400, "invalid"),
        ([[[0, 1], [1, 1, 1]], [0, 1]], 400, "invalid"),
        ([[0.5, 1], [0, 1]], 400, "invalid"),
        ([[0, 6], [0, 4]], 404, "bounds"),
        ([[0, 5], [4, 1]], 404, "bounds"),
        ([[[3, 0], 1], [0, 4]], 404, "bounds"),
        ([[[0, 1], [2, 1]], [0, 4]], 404, "bounds"),
    ],
    ids=str,
)
def test_wrong_slices_are_refused_before_anything_is_sent(talk: Peer, slices: Any, status: int, code: str) -> None:
    assert_error(talk.post("/msgpack/a/f.h5", {"object": "x", "slice": slices}), status, code)


def test_a_request_with_more_slices_than_the_limit_is_refused(peer: MakePeer) -> None:
    limits = replace(DEFAULT_LIMITS, selections=1000)
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(np.arange(5000))})}), limits)
    body = b"\x82\xa6object\xa1x\xa5slice\x91\x92%s\x01"
    most = talk.post("/msgpack/f.h5", body % write_integers(np.arange(1000, dtype=np.int64) * 2))
    assert most.document["shape"] == [1000]
    assert_error(
        talk.post("/msgpack/f.h5", body % write_integers(np.arange(1001, dtype=np.int64) * 2)), 400, "too-large"
    )


# -- requests --


def test_head_is_get_without_the_body(talk: Peer) -> None:
    for path, query in [("/", ""), ("/a/f.h5", ""), ("/a/f.h5", "object=x"), ("/a/f.h5", "object=x&slice=0:5,0:4")]:
        get, head = talk.get(f"/msgpack{path}", query), talk.ask("HEAD", f"/msgpack{path}", query=query)
        assert (head.status, head.headers, head.body) == (200, get.headers, b"")
    assert talk.ask("HEAD", "/msgpack/a/f.h5", query="object=x&slice=0:6,0:4").status == 404


@pytest.mark.parametrize("content_type", ["application/msgpack", "application/x-msgpack; charset=utf-8", ""])
def test_a_body_of_another_content_type_is_not_read(talk: Peer, content_type: str) -> None:
    assert_error(talk.post("/msgpack/", b"\x80", headers={"content-type": content_type}), 415, "media-type")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused_by_name(talk: Peer, method: str) -> None:
    reply = talk.ask(method, "/msgpack/a")
    assert_error(reply, 405, "invalid")
    assert reply.headers["allow"] == "GET, HEAD, POST"
    assert talk.ask(method, "/download/a").headers["allow"] == "GET, HEAD"


def test_a_body_that_cannot_be_decoded_is_refused(talk: Peer) -> None:
    for body in (b"\x81\xa1x\x01", b"\x80\x00", b"\x90", b""):
        assert_error(talk.post("/msgpack/a", body), 400, "invalid")


def test_a_slice_without_an_object_is_refused_even_for_a_directory(talk: Peer) -> None:
    assert_error(talk.get("/msgpack/a", "slice=0"), 400, "invalid")
    assert_error(talk.post("/msgpack/a", {"slice": "0"}), 400, "invalid")


def test_a_directory_ignores_the_object(talk: Peer) -> None:
    plain = talk.get("/msgpack/a").document
    assert talk.post("/msgpack/a", {"object": "x"}).document == plain
    assert talk.post("/msgpack/a", {"object": "x", "slice": [[0, 1]]}).document == plain


@pytest.mark.parametrize("sizes", [[11], [5, 6], [4, 4, 4]])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_longer_than_the_limit_is_refused_unread(sizes: list[int], announced: bool) -> None:
    limits = replace(DEFAULT_LIMITS, request_body=10)
    service = Peer(MemoryStore(TREE), limits).service
    pieces = [bytes(size) for size in sizes]
    taken = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": pieces[taken - 1], "more_body": taken < len(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/x-msgpack")]
    if announced:
        headers.append((b"content-length", b"%d" % sum(sizes)))
    scope = {"type": "http", "method": "POST", "path": "/msgpack/", "query_string": b"", "headers": headers}
    anyio.run(PROTOCOL.app(service), scope, receive, send)
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]
    assert taken == (0 if announced else len(pieces))


def test_a_long_body_in_many_pieces_is_put_together(peer: MakePeer) -> None:
    talk = peer(MemoryStore({"f.h5": Group({"x": Array(np.arange(100_000))})}))
    body = b"\x82\xa6object\xa1x\xa5slice\x91\x92%s\x01" % write_integers(np.arange(50_000, dtype=np.int64) * 2)
    reply = talk.post("/msgpack/f.h5", body)
    assert reply.document["data"] == [np.arange(0, 100_000, 2).tobytes()]


# -- paths --


@pytest.mark.parametrize("path", ["", "/", "/.", "/a/..", "/a/../a/.."])
def test_the_root_has_many_names(talk: Peer, path: str) -> None:
    assert list(talk.get(f"/msgpack{path}").document["directories"]) == ["a"]


@pytest.mark.parametrize("path", ["/a/f.h5", "/a/f.h5/", "/a/./f.h5", "/a/b/../f.h5"])
def test_a_file_has_many_names(talk: Peer, path: str) -> None:
    assert talk.get(f"/msgpack{path}").document["type"] == "application/x-hdf5"


@pytest.mark.parametrize(
    "path", ["//", "/a//", "//a", "/a//f.h5", "/..", "/../a", "/a/../..", "/a/../../a", "/b", "/a\0", "/a/f.h5/x", "/A"]
)
def test_what_is_not_there_is_not_found(talk: Peer, path: str) -> None:
    reply = talk.get(f"/msgpack{path}")
    assert_error(reply, 404, "not-found")
    assert reply.document["error"].startswith("Invalid path specified: ")


def test_unknown_and_forbidden_look_the_same(talk: Peer) -> None:
    access = Access(hidden=frozenset({"a"}))
    for query in ("", "object=x", "object=x&slice=0"):
        forbidden = talk.get("/msgpack/a/f.h5", query, access=access)
        unknown = talk.get("/msgpack/q/f.h5", query, access=access)
        assert_error(forbidden, 404, "not-found")
        assert forbidden.document["error"] == unknown.document["error"].replace("q/", "a/")
        assert forbidden.document["error"] == "Invalid path specified: a/f.h5"


def test_a_path_longer_than_the_limit_is_refused(talk: Peer) -> None:
    assert_error(talk.get("/msgpack/" + "a" * 4096), 400, "too-large")
    assert_error(talk.get("/msgpack/" + "a" * 4095), 404, "not-found")


@pytest.mark.parametrize("name", ["", "/", "//", "/x/.."])
def test_the_root_group_has_many_names(talk: Peer, name: str) -> None:
    assert talk.post("/msgpack/a/f.h5", {"object": name}).document["hdf5_object"] == "group"


def test_names_need_not_be_ascii(peer: MakePeer) -> None:
    talk = peer(MemoryStore({"größe": {"日本.h5": Group({"ñ o": Array(MATRIX)})}}))
    assert talk.post("/msgpack/größe/日本.h5", {"object": "ñ o", "slice": "0,0"}).status == 200
    assert talk.get("/msgpack/größe/日本.h5", "object=%C3%B1%20o&slice=0,0").status == 200


def test_a_missing_object_is_not_found(talk: Peer) -> None:
    for request in ({"object": "q"}, {"object": "q", "slice": "0"}, {"object": "x/q"}):
        assert_error(talk.post("/msgpack/a/f.h5", request), 404, "not-found")
    assert_error(talk.post("/msgpack/a/t.txt", {"object": "x"}), 404, "not-found")


def test_a_group_has_no_elements_to_slice(talk: Peer) -> None:
    for rank in (0, 1, 2):
        assert_error(talk.post("/msgpack/a/f.h5", {"object": "/", "slice": [[0, 1]] * rank}), 404, "not-found")


def test_other_endpoints_do_not_exist(talk: Peer) -> None:
    for path in ("", "/", "/msgpac", "/msgpackk", "/downloads/a", "/viewer"):
        assert talk.get(path).status == 404


# -- failures --


class FailingReading(MemoryReading):
    """Fails after its first piece."""

    def __init__(self, reading: MemoryReading, error: NDStreamError) -> None:
        self.__dict__.update(reading.__dict__)
        self.ready = None
        self._error = error
        self.closed = False

    async def buffers(self) -> AsyncIterator[memoryview]:
        yield self._bytes[: len(self._bytes) // 2]
        raise self._error

    async def aclose(self) -> None:
        self.closed = True


class FailingStore(MemoryStore):
    """Cannot read the dataset called bad: not at all, or only the first half of it."""

    def __init__(self, tree: Any, error: NDStreamError, *, half_way: bool, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(tree, limits=limits)
        self._error = error
        self._half_way = half_way
        self.readings: list[FailingReading] = []

    async def read(self, path: str, name: str, access: Access, selection: Any) -> Reading:
        reading = await super().read(path, name, access, selection)
        if not name.endswith("bad"):
            return reading
        if not self._half_way:
            raise self._error
        assert isinstance(reading, MemoryReading)
        self.readings.append(FailingReading(reading, self._error))
        return self.readings[-1]


GROUP: Tree = {
    "f.h5": Group({"good": Array(np.arange(1000)), "bad": Array(np.arange(1000)), "last": Array(np.arange(9))})
}
NO_INLINE = replace(DEFAULT_LIMITS, inline_data=0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Corrupt("x"), 404),
        (DataError("x"), 404),
        (Replaced("x"), 404),
        (UnsupportedDType("x"), 404),
        (Busy("x"), 503),
        (TimedOut("x"), 504),
        (WorkerDied("x"), 500),
    ],
)
def test_one_unreadable_member_does_not_take_its_group_down(peer: MakePeer, error: NDStreamError, status: int) -> None:
    talk = peer(FailingStore(GROUP, error, half_way=False, limits=NO_INLINE), NO_INLINE)
    members = talk.post("/msgpack/f.h5", {"object": "/"}).document["members"]
    assert [("data" in member) for member in members.values()] == [True, False, True]
    assert members["bad"]["shape"] == [1000]
    assert_error(talk.post("/msgpack/f.h5", {"object": "bad"}), status, error.code)
    assert_error(talk.post("/msgpack/f.h5", {"object": "bad", "slice": "0:9"}), status, error.code)
    assert talk.post("/msgpack/f.h5", {"object": "bad", "data_size_limit": 0}).status == 200


def test_a_failure_half_way_is_raised_and_remembered(peer: MakePeer) -> None:
    store = FailingStore(GROUP, Corrupt("half"), half_way=True, limits=NO_INLINE)
    talk = peer(store, NO_INLINE)
    with pytest.raises(Corrupt, match="half"):
        talk.post("/msgpack/f.h5", {"object": "/"})
    members = talk.post("/msgpack/f.h5", {"object": "/"}).document["members"]
    assert [("data" in member) for member in members.values()] == [True, False, True]
    assert_error(talk.post("/msgpack/f.h5", {"object": "bad"}), 404, "data")
    assert talk.post("/msgpack/f.h5", {"object": "bad", "data_size_limit": 0}).status == 200
    with pytest.raises(Corrupt, match="half"):
        talk.post("/msgpack/f.h5", {"object": "bad", "slice": "0:999"})
    assert all(reading.closed for reading in store.readings)


@pytest.mark.parametrize("error", [Replaced("x"), TimedOut("x")])
def test_what_may_be_better_next_time_is_not_remembered(peer: MakePeer, error: NDStreamError) -> None:
    talk = peer(FailingStore(GROUP, error, half_way=True, limits=NO_INLINE), NO_INLINE)
    for _ in range(2):
        with pytest.raises(type(error)):
            talk.post("/msgpack/f.h5", {"object": "/"})


def test_readings_are_closed_when_a_later_one_is_refused(peer: MakePeer) -> None:
    tree = {"f.h5": Group({"bad": Array(np.arange(1000)), "b": Array(np.arange(10))})}
    limits = replace(NO_INLINE, document=10)
    store = FailingStore(tree, Corrupt("half"), half_way=True, limits=limits)
    assert_error(peer(store, limits).post("/msgpack/f.h5", {"object": "/"}), 400, "too-large")
    assert [reading.closed for reading in store.readings] == [True]


def test_the_server_can_answer_in_the_form_of_the_protocol() -> None:
    media_type, body = PROTOCOL.failure(500, "internal error")
    assert media_type == "application/x-msgpack"
    assert msgpack.unpackb(body) == {"error": "internal error"}
