from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from ndstream.config import load
from ndstream.core import registry
from ndstream.core.ports import ASGIApp, Receive, Scope, Send, Service, Store
from ndstream.server.run import Server
from ndstream.stores.memory import MemoryStore

# A hash that costs nothing: how well it protects is not what is tested.
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass
class Scripted:
    """A protocol that does what a test says."""

    script: ASGIApp
    name: str = "scripted"
    prefix: str = "/scripted"

    def app(self, service: Service) -> ASGIApp:
        return self.script

    def failure(self, status: int, text: str) -> tuple[str, bytes]:
        return "application/x-scripted", f"{status}!{text}".encode()


@dataclass
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"ok")


async def answer(send: Send, body: bytes, *, length: int | None = None) -> None:
    headers = [(b"content-length", b"%d" % (len(body) if length is None else length))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": length is not None})


def ask(
    server: Server,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answered:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def dial(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def everything(sock: socket.socket) -> bytes:
    """All that comes until the other side closes, in whatever way."""
    pieces = []
    try:
        while piece := sock.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def until(condition: Callable[[], bool], server: Server) -> None:
    """Wait for something in the server: each look is a round trip through its event loop."""
    for _ in range(10_000):
        if condition():
            return
        ask(server, "/healthz")
    raise AssertionError("it did not come")


def write_users(path: Path, **users: tuple[str, str]) -> Path:
    """Write a file of users: name to password and roles."""
    lines = [f"{name}:{CHEAP.hash(password)}:{roles}\n" for name, (password, roles) in users.items()]
    path.touch(mode=0o600)
    path.write_text("".join(lines), encoding="utf-8")
    return path


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers in threads, with a scripted protocol and an empty store."""
    with ExitStack() as stack:

        def start(script: ASGIApp = ok, store: Store | None = None, **sections: Mapping[str, Any]) -> Server:
            stack.callback(registry.register(registry.PROTOCOLS, "scripted", Scripted(script)))
            settings = {"port": 0, "protocols": ("scripted",), **sections.pop("server", {})}
            users = {"file": tmp_path / "users", **sections.pop("users", {})}
            overrides = {"server": settings, "users": users, **sections}
            config = load(overrides=overrides, environ={})
            return stack.enter_context(Server(config, store=store or MemoryStore({})))

        yield start
