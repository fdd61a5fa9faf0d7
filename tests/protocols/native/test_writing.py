"""Batches and events over HTTP, without a socket, against the reference store."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgpack
import numpy as np
import pytest

from ndstream.core.dtypes import Integer
from ndstream.core.operations import Payload, Write
from ndstream.core.ports import Access, Message
from ndstream.protocols.native.plugin import PROTOCOL
from ndstream.stores.memory import Array, Group, MemoryStore

from .conftest import Peer, Reply, scope

WRITER = Access(user="w", key="w", writable=frozenset({"a"}))
INTEGERS = {"class": "integer", "size": 4}


@pytest.fixture
def talk() -> Peer:
    group = Group({"x": Array(np.zeros(4, "<i4"))})
    return Peer(MemoryStore({"a": {"f.h5": group}, "b": {"f.h5": group}}))


def write(data: Any, select: Any = None) -> dict[str, Any]:
    count = len(data) if isinstance(data, list) else data.get("nbytes", 0) // 4 if isinstance(data, dict) else 4
    payload = {"dtype": INTEGERS, "shape": [count], "data": data}
    return {"operation": "write", "name": "/x", "data": payload, "selection": select}


def commit(talk: Peer, *operations: Any, path: str = "/write/a/f.h5", **headers: str) -> Reply:
    return talk.post(path, {"operations": operations}, access=WRITER, **headers)


def values(talk: Peer) -> list[int]:
    found: list[int] = talk.get("/data/a/f.h5", "name=/x&format=json").document["data"]
    return found


def test_a_batch_in_json_needs_no_library(talk: Peer) -> None:
    body = json.dumps({"operations": [write([7, 8], "1:3")]}).encode()
    reply = talk.post("/write/a/f.h5", body, access=WRITER, content_type="application/json")
    assert reply.status == 200, reply.body
    assert reply.document["number"] == 1
    assert reply.headers["ndstream-commit"] == "1"
    assert values(talk) == [0, 7, 8, 0]


TEXT = {"class": "string", "size": None, "charset": "utf-8"}
VARIABLE = {"class": "sequence", "base": INTEGERS}


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "expected"),
    [
        (INTEGERS, [2], base64.b64encode(np.array([5, 6], "<i4").tobytes()).decode(), [5, 6]),
        (INTEGERS, [2], [5, 6], [5, 6]),
        (TEXT, [2, 1], ["a", "zwei ü"], [["a"], ["zwei ü"]]),
        (TEXT, [], ["YQ=="], "YQ=="),
        ({"class": "string", "size": 4, "charset": "utf-8"}, [2], ["ab", "ü"], ["ab", "ü"]),
        (VARIABLE, [2], ["BwAAAA==", ""], ["BwAAAA==", ""]),
        ({"class": "compound", "size": 20, "fields": [
            {"name": "t", "dtype": TEXT, "offset": 0}, {"name": "n", "dtype": INTEGERS, "offset": 16},
        ]}, [1], [["ü", "BwAAAA=="]], [["w7w=", "BwAAAA=="]]),
    ],
)  # fmt: skip
def test_data_and_attributes_of_every_kind_come_in_json(
    talk: Peer, dtype: dict[str, Any], shape: list[int], data: Any, expected: Any
) -> None:
    payload = {"dtype": dtype, "shape": shape, "data": data}
    made = {"operation": "create_dataset", "name": "/new", "dtype": dtype, "shape": shape, "data": payload}
    attribute = {"operation": "set_attributes", "name": "/new", "values": {"a": payload}}
    body = json.dumps({"operations": [made, attribute]}).encode()
    reply = talk.post("/write/a/f.h5", body, access=WRITER, content_type="application/json")
    assert reply.status == 200, reply.body
    found = talk.get("/data/a/f.h5", "name=/new&format=json").document
    assert found["data"] == expected
    node = talk.get("/node/a/f.h5", "name=/new&data=1000").document["node"]
    assert node["attributes"]["a"]["value"] == node["data"]


@pytest.mark.parametrize(("dtype", "data"), [(INTEGERS, "!"), (INTEGERS, "YQ=="), (TEXT, "YQ=="), (VARIABLE, ["!"])])
def test_what_is_no_data_in_json_is_refused(talk: Peer, dtype: dict[str, Any], data: Any) -> None:
    values = {"a": {"dtype": dtype, "shape": [1], "data": data}}
    body = json.dumps({"operations": [{"operation": "set_attributes", "name": "/x", "values": values}]}).encode()
    assert talk.post("/write/a/f.h5", body, access=WRITER, content_type="application/json").status == 400


def test_bulk_data_follow_the_header(talk: Peer) -> None:
    header = msgpack.packb({"operations": [write({"at": 4, "nbytes": 8}, "2:")]})
    body = b"\x89NDB" + struct.pack("<I", len(header)) + header + b"skip" + np.array([5, 6], "<i4").tobytes()
    reply = talk.post("/write/a/f.h5", body, access=WRITER, content_type="application/x-ndstream")
    assert reply.status == 200, reply.body
    assert values(talk) == [0, 0, 5, 6]


def test_the_same_key_commits_once(talk: Peer) -> None:
    first = commit(talk, write([1, 1, 1, 1]), idempotency_key="k").document
    commit(talk, write([2, 2, 2, 2]))
    again = commit(talk, write([1, 1, 1, 1]), idempotency_key="k").document
    assert (again["number"], again["repeated"], first["repeated"]) == (first["number"], True, False)
    assert values(talk) == [2, 2, 2, 2]


def test_the_state_that_is_written_to_can_be_named(talk: Peer) -> None:
    tag = talk.get("/data/a/f.h5", "name=/x").headers["etag"]
    assert commit(talk, write([1, 1, 1, 1]), if_match=tag).status == 200
    assert commit(talk, write([2, 2, 2, 2]), if_match=tag).status == 412
    assert commit(talk, write([3, 3, 3, 3]), if_match='"1"').status == 200
    assert values(talk) == [3, 3, 3, 3]


def test_a_request_sent_again_is_answered_with_what_came_of_it_whatever_its_condition(talk: Peer) -> None:
    tag = talk.get("/data/a/f.h5", "name=/x").headers["etag"]
    first = commit(talk, write([1, 1, 1, 1]), if_match=tag, idempotency_key="k")
    again = commit(talk, write([1, 1, 1, 1]), if_match=tag, idempotency_key="k")
    assert (first.status, again.status, again.document["repeated"]) == (200, 200, True)
    assert first.headers["etag"] == again.headers["etag"] == f'"{first.document["tag"]}"'
    assert commit(talk, write([2, 2, 2, 2]), if_match=first.headers["etag"]).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\x80", 400),
        (msgpack.packb({"operations": [{"operation": "explode"}]}), 400),
        (msgpack.packb({"operations": [write([1, 2], "1:4")]}), 400),
        (msgpack.packb({"operations": [write({"at": 0, "nbytes": 8}, ":2")]}), 400),
        (msgpack.packb({"operations": [write(["a", "b", "c", "d"])]}), 400),
        (msgpack.packb({"operations": [write([1, 2, 3, 4]), {"operation": "delete", "name": "/y"}]}), 404),
    ],
)
def test_what_cannot_be_done_leaves_everything_as_it_was(talk: Peer, body: bytes, status: int) -> None:
    reply = talk.post("/write/a/f.h5", body, access=WRITER)
    assert reply.status == status, reply.body
    assert values(talk) == [0, 0, 0, 0]


class Meddling(MemoryStore):
    """Commits to both datasets of a file whenever one of them was opened, up to `times`."""

    def __init__(self, times: int, *, kept_out: bool) -> None:
        super().__init__({"f.h5": Group({name: Array(np.zeros(4, "<i4")) for name in "xy"})})
        self._left = times
        self._kept_out = kept_out

    async def read(self, path: str, name: str, access: Access, selection: Any) -> Any:
        reading = await super().read(path, name, access, selection)
        if self._left:
            self._left -= 1
            number = np.full(4, self._left, "<i4").tobytes()
            data = Payload(dtype=Integer(size=4), shape=(4,), data=number)
            both = [Write(name="/x", data=data), Write(name="/y", data=data)]
            await self.apply(path, Access(writable=frozenset({""})), both)
        return reading

    @asynccontextmanager
    async def steady(self, path: str, access: Access) -> AsyncIterator[None]:
        self._left = 0 if self._kept_out else self._left
        yield


@pytest.mark.parametrize("times", [1, 2, 5, 1000])
def test_what_is_read_in_one_request_is_of_one_commit(times: int) -> None:
    talk = Peer(Meddling(times, kept_out=True))
    (_, x), (_, y) = talk.post("/data/f.h5", {"reads": [{"name": "/x"}, {"name": "/y"}]}).blocks
    assert x == y


def test_what_is_never_of_one_commit_is_not_sent() -> None:
    reply = Peer(Meddling(1000, kept_out=False)).post("/data/f.h5", {"reads": [{"name": "/x"}, {"name": "/y"}]})
    assert (reply.status, reply.headers["ndstream-error"]) == (503, "busy")


def test_who_may_not_write_is_refused_before_the_body_is_read(talk: Peer) -> None:
    assert commit(talk, write([1]), path="/write/b/f.h5").status == 403
    hidden = Access(user="w", writable=frozenset({""}), hidden=frozenset({"a"}))
    assert talk.post("/write/a/f.h5", b"", access=hidden).status == 404
    assert talk.get("/write/a/f.h5").status == 405


@pytest.mark.parametrize(("count", "released"), [(1, 1), (2000, 0)])
def test_a_small_write_waits_for_its_commit_without_its_turn(talk: Peer, count: int, released: int) -> None:
    body = msgpack.packb({"operations": [write([1, 2, 3, 4])] * count})
    turns: list[None] = []

    async def write_it() -> int:
        incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            return incoming.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        asked = scope("POST", "/write/a/f.h5", "", {"content-type": "application/x-msgpack"}, WRITER)
        asked["ndstream.release"] = lambda: turns.append(None)
        await talk.app(asked, receive, send)
        return int(sent[0]["status"])

    assert anyio.run(write_it) == 200
    assert len(turns) == released


def test_events_are_sent_as_they_happen_and_resumed_from_a_number(talk: Peer) -> None:
    for n in range(3):
        commit(talk, write([n, n, n, n]))

    async def follow(headers: dict[str, str], query: str, count: int) -> list[dict[str, Any]]:
        gone = anyio.Event()
        released: list[bool] = []
        body = bytearray()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            body.extend(message.get("body", b""))
            if body.count(b"event: commit") >= count:
                gone.set()

        asked = scope("GET", "/events/a/f.h5", query, headers, WRITER)
        asked["ndstream.release"] = lambda: released.append(True)
        with anyio.fail_after(10):
            await talk.app(asked, receive, send)
        assert released == [True]
        lines = bytes(body).decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    found = anyio.run(follow, {"last-event-id": "1"}, "", 2)
    assert [event["number"] for event in found] == [2, 3]
    assert found[0]["changes"][0]["name"] == "/x"
    assert [event["number"] for event in anyio.run(follow, {}, "since=0", 3)] == [1, 2, 3]
    resumed = anyio.run(follow, {"last-event-id": found[0]["tag"]}, "", 1)
    assert [event["number"] for event in resumed] == [3]
    (unknown,) = anyio.run(follow, {}, "since=other.3", 1)
    assert (unknown["number"], unknown["complete"]) == (3, False)
    assert talk.get("/events/a/none.h5").status == 404
    assert talk.get("/events/a/f.h5", "since=x").status == 400


def test_the_plugin_describes_itself() -> None:
    assert json.loads(PROTOCOL.openapi())["openapi"] == "3.1.0"
