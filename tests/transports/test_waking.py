"""Receivers are woken when enough has come, and never wait for what does not come."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from ndstream.core.limits import DEFAULT_LIMITS, KiB
from ndstream.testing.scripted import Answer, ScriptedServer
from ndstream.transports import http
from ndstream.transports.http import HTTPTransport
from ndstream.transports.waking import Waking, waking
from ndstream.wire.flow import Flow, Request, read, read_into, read_some, send

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not told when to wake elsewhere")

LEAST = 128 * KiB


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        with near, far:
            yield near, far


def readable(connection: socket.socket, seconds: float) -> bool:
    return bool(select.select([connection], [], [], seconds)[0])


def test_a_receiver_is_woken_when_enough_has_come(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    told = waking(near)
    assert told is not None
    told.set(LEAST)
    far.sendall(bytes(LEAST - 1))
    assert not readable(near, 0.05)
    far.sendall(b"x")
    assert readable(near, 10)


def test_a_receiver_is_woken_by_what_is_there_when_it_wants_less(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    told = Waking(near)
    told.set(LEAST)
    far.sendall(b"x")
    told.set(1)
    assert readable(near, 10)


def test_a_receiver_is_woken_by_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    Waking(near).set(LEAST)
    far.close()
    assert readable(near, 10)


def test_the_peer_can_always_send_as_much_as_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    much = 8 * LEAST
    Waking(near).set(much)
    for _ in range(32):
        far.sendall(bytes(much))
        assert readable(near, 10)
        assert len(near.recv(much, socket.MSG_WAITALL)) == much


def test_what_is_no_plain_connection_is_left_alone() -> None:
    assert waking(None) is None


@pytest.fixture
def least(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel is told, with pieces small enough for a test, and every peer fast."""
    told: list[int] = []

    class Recorded(Waking):
        __slots__ = ()

        def set(self, least: int) -> None:
            told.append(least)
            super().set(least)

    monkeypatch.setattr(http, "waking", lambda connection: Recorded(connection))
    monkeypatch.setattr(http, "PIECE", 64 * KiB)
    monkeypatch.setattr(http, "FAST_PIECE", 256 * KiB)
    monkeypatch.setattr(http, "GATHERED", LEAST)
    monkeypatch.setattr(http, "FAST", 60)
    return told


@pytest.mark.parametrize("more", [-1, 0, 1, 8191, 70_000, LEAST, LEAST + 64 * KiB, 300_000])
@pytest.mark.parametrize("rest", [0, 1, 5000, 400_000])
def test_a_body_comes_whole_and_small_answers_after_it(least: list[int], more: int, rest: int) -> None:
    body = bytes(range(251)) * 8192 + bytes(more + 1)
    behind = body[-rest:] if rest else b""

    def flow() -> Flow[tuple[bytearray, bytes]]:
        yield from send(Request(method="GET", path="/a"))
        buffer = bytearray(len(body) - rest)
        yield from read_into(memoryview(buffer))
        last = b""
        if rest:
            last = yield from read(rest)
        return buffer, last

    def small() -> Flow[bytes]:
        yield from send(Request(method="GET", path="/b"))
        return (yield from read_some(1000))

    limits = replace(DEFAULT_LIMITS, read_timeout=10, retries=0)
    with ScriptedServer(lambda asked: Answer(body if asked.path == "/a" else b"small")) as server:
        with closing(HTTPTransport(server.url, limits=limits)) as opened:
            for _ in range(2):
                buffer, last = opened.drive(flow)
                assert (bytes(buffer), last) == (body[: len(body) - rest], behind)
                assert opened.drive(small) == b"small"
        assert {asked.connection for asked in server.asked} == {0}
    assert LEAST in least
