"""The protocol in memory: what a request is answered with, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import msgpack
import pytest

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.ports import ANYBODY, Access, Message, Service, Store
from ndstream.protocols.native.plugin import PROTOCOL


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    pieces: list[int]

    @property
    def document(self) -> Any:
        """The body, read by an independent reader."""
        if self.headers["content-type"] == "application/x-msgpack":
            return msgpack.unpackb(self.body)
        return json.loads(self.body)

    @property
    def blocks(self) -> list[tuple[dict[str, Any], bytes]]:
        """Headers and bytes of blocks of fixed types, taken apart as SPEC.md says."""
        found = []
        at = 0
        while at < len(self.body):
            assert self.body[at : at + 4] == b"\x89NDB"
            length = int.from_bytes(self.body[at + 4 : at + 8], "little")
            at += 8
            header = msgpack.unpackb(self.body[at : at + length])
            at += length
            found.append((header, self.body[at : at + header["nbytes"]]))
            at += header["nbytes"]
        return found


class Peer:
    """Talks ASGI to the protocol over a store; every answer is held against what HTTP demands of it."""

    def __init__(self, store: Store, limits: Limits = DEFAULT_LIMITS) -> None:
        self.app = PROTOCOL.app(Service(store=store, limits=limits))

    def get(self, path: str, query: str = "", **headers: str) -> Reply:
        return self.ask("GET", path, query=query, headers=headers)

    def post(self, path: str, body: Any, query: str = "", access: Access = ANYBODY, **headers: str) -> Reply:
        raw = body if isinstance(body, bytes) else msgpack.packb(body)
        given = {"content-type": "application/x-msgpack", **headers}
        return self.ask("POST", path, query=query, body=raw, headers=given, access=access)

    def ask(self, method: str, path: str, **options: Any) -> Reply:
        return anyio.run(lambda: self.exchange(method, path, **options))

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        access: Access = ANYBODY,
    ) -> Reply:
        sent: list[Message] = []
        incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not incoming:
                await anyio.sleep_forever()
            return incoming.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope(method, path, query, headers or {}, access), receive, send)
        return _reply(method, sent)


def scope(method: str, path: str, query: str, headers: dict[str, str], access: Access) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": method,
        "path": "/v1" + path,
        "root_path": "/v1",
        "query_string": query.encode(),
        "headers": [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "ndstream.access": access,
    }


def _reply(method: str, sent: list[Message]) -> Reply:
    start, *rest = sent
    pieces = [bytes(message.get("body", b"")) for message in rest]
    assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [False]
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    body = b"".join(pieces)
    if "content-length" in headers and method != "HEAD":
        assert int(headers["content-length"]) == len(body)
    return Reply(start["status"], headers, body, list(map(len, pieces)))


@pytest.fixture
def peer() -> Callable[..., Peer]:
    """Make a `Peer` of a store."""
    return Peer
