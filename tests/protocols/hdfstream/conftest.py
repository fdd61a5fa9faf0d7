"""The protocol in memory: what a request is answered with, without a socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.ports import ANYBODY, Access, Message, Service, Store
from ndstream.protocols.hdfstream.plugin import PROTOCOL
from ndstream.testing.fixtures import LocalServer


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    pieces: list[int]

    @property
    def document(self) -> Any:
        """The body, read by an independent msgpack reader that keeps the order of keys."""
        return msgpack.unpackb(self.body, strict_map_key=True)


def peak_memory(server: LocalServer) -> int:
    """Most bytes that the server itself ever had in memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


class Peer:
    """Talks ASGI to the protocol over a store; every answer is held against what HTTP demands of it."""

    def __init__(self, store: Store, limits: Limits = DEFAULT_LIMITS) -> None:
        self.service = Service(store=store, limits=limits)
        self._app = PROTOCOL.app(self.service)

    def post(self, path: str, body: Any, **options: Any) -> Reply:
        packed = body if isinstance(body, bytes) else msgpack.packb(body)
        headers = {"content-type": "application/x-msgpack", **options.pop("headers", {})}
        return self.ask("POST", path, body=packed, headers=headers, **options)

    def get(self, path: str, query: str = "", **options: Any) -> Reply:
        return self.ask("GET", path, query=query, **options)

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
        extended: bool = False,
        during: Callable[[Message], Awaitable[None]] | None = None,
    ) -> Reply:
        sent: list[Message] = []
        incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not incoming:
                await anyio.sleep_forever()
            return incoming.pop()

        async def send(message: Message) -> None:
            sent.append(message)
            if during is not None:
                await during(message)

        given = {**(headers or {}), **({"ndstream": "1"} if extended else {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": method,
            "path": "/hdfstream" + path,
            "root_path": "/hdfstream",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "ndstream.access": access,
        }
        await self._app(scope, receive, send)
        return _reply(method, sent)


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
