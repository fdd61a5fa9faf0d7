"""Events over WebSockets, from a real server to an independent client."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ndstream.testing.fixtures import LocalServer, ServerFactory

numbers = itertools.count()
INTEGERS = {"class": "integer", "size": 4}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def running(ndstream_module_server: ServerFactory, served: Path) -> LocalServer:
    # One request at a time: those who follow must not be in the way of those who write.
    return ndstream_module_server(served, writable={"/": []}, limits={"requests_per_user": 1})


@dataclass(frozen=True)
class Site:
    """A served file, and who asks for it."""

    server: LocalServer
    path: Path

    def follow(self, path: str = "events/FILE", **options: Any) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.server.port}/v1/{path.replace('FILE', self.path.name)}"
        opened: ClientConnection = connect(url, compression=None, proxy=None, open_timeout=20, **options)
        return opened

    def stream(self) -> Any:
        return urllib.request.urlopen(f"{self.server.url}/v1/events/{self.path.name}?since=0", timeout=20)

    def append(self, *values: int) -> int:
        payload = {"dtype": INTEGERS, "shape": [len(values)], "data": values}
        batch = {"operations": [{"operation": "append", "name": "/rows", "data": payload}]}
        url = f"{self.server.url}/v1/write/{self.path.name}"
        request = urllib.request.Request(url, json.dumps(batch).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            number: int = json.load(answer)["number"]
            return number


def write_file(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", (0,), "<i4", maxshape=(None,))
    return path


@pytest.fixture
def site(running: LocalServer, served: Path) -> Site:
    """Serve a new file."""
    return Site(running, write_file(served / f"{next(numbers)}.h5"))


def test_each_commit_is_a_message_as_server_sent_events_have_it(site: Site) -> None:
    with site.follow() as events, site.stream() as stream:
        first = site.append(1, 2)
        site.append(3)
        messages = [events.recv(20), events.recv(20)]
        lines: Iterator[bytes] = (line for line in stream if line.startswith(b"data: "))
        assert [json.loads(next(lines)[6:]) for _ in messages] == list(map(json.loads, messages))
    event = json.loads(messages[1])
    assert event["number"] == first + 1
    (change,) = event["changes"]
    assert change.pop("address")
    assert change == {"name": "/rows", "kind": "appended", "shape": [3], "appended": [2, 3]}


def test_it_is_resumed_from_a_number(site: Site) -> None:
    numbers = [site.append(n) for n in range(4)]
    with site.follow(f"events/FILE?since={numbers[1]}") as events:
        assert [json.loads(events.recv(20))["number"] for _ in range(2)] == numbers[2:]
    with site.follow(additional_headers={"Last-Event-ID": str(numbers[2])}) as events:
        assert json.loads(events.recv(20))["number"] == numbers[3]


def test_many_followers_hear_of_everything(site: Site) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(site.follow()) for _ in range(20)]
        numbers = [site.append(n) for n in range(10)]
        for events in sockets:
            assert [json.loads(events.recv(20))["number"] for _ in numbers] == numbers


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("events/none.h5", {}, 404),
        ("events/FILE?since=x", {}, 400),
        ("data/FILE", {}, 404),
        ("events/FILE", {"origin": "http://elsewhere.example"}, 403),
        ("events/FILE", {"origin": "http://[::1"}, 403),
        ("events/FILE", {"additional_headers": {"Authorization": "Basic " + base64.b64encode(b"a:b").decode()}}, 401),
        ("../hdfstream/f.h5", {}, 404),
        ("../healthz", {}, 404),
    ],
)
def test_what_cannot_be_followed_is_refused_as_over_http(
    site: Site, path: str, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refusal, site.follow(path, **options):
        pass
    assert refusal.value.response.status_code == status
    assert refusal.value.response.body
    assert " ERROR " not in site.server.output()


@pytest.mark.parametrize("more", [b"x: " + b"y" * 10_000 + b"\r\n", b"x: y\r\n" * 200, b"content-length: 3\r\n"])
def test_a_head_that_opens_no_socket_is_answered(site: Site, more: bytes) -> None:
    head = f"GET /v1/events/{site.path.name} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    version = b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=20) as peer:
        peer.sendall(head.encode() + version + more + b"\r\n")
        assert peer.recv(1 << 16).startswith(b"HTTP/1.1 400")
        assert peer.recv(1) == b""


def test_a_page_of_this_server_may_follow(site: Site) -> None:
    with site.follow(origin=f"http://127.0.0.1:{site.server.port}") as events:
        site.append(1)
        assert json.loads(events.recv(20))["number"]


@pytest.mark.parametrize(("length", "code"), [(3, 1003), (100_000, 1009)])
def test_who_speaks_is_cut_off(site: Site, length: int, code: int) -> None:
    with site.follow() as events:
        events.send("x" * length)
        with pytest.raises(ConnectionClosedError):
            events.recv(20)
        assert events.close_code == code
    assert site.append(1)


def test_the_end_is_said(site: Site) -> None:
    with site.follow() as events:
        site.path.unlink()
        with pytest.raises(ConnectionClosedOK):
            events.recv(20)
        assert events.close_reason == "the file is gone"


def test_a_server_stops_while_it_is_followed(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    write_file(tmp_path / "f.h5")
    site = Site(ndstream_server(tmp_path, server={"drain": 600}, writable={"/": []}), tmp_path / "f.h5")
    with site.follow() as events:
        stopping = threading.Thread(target=site.server.stop)
        stopping.start()
        with pytest.raises(ConnectionClosedError):
            events.recv(20)
        assert events.close_code == 1012
        stopping.join()
    assert " ERROR " not in site.server.output()


def test_a_client_that_answers_no_ping_is_cut_off(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    write_file(tmp_path / "f.h5")
    server = ndstream_server(tmp_path, writable={"/": []}, limits={"idle_timeout": 0.5})
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent:
        silent.sendall(
            b"GET /v1/events/f.h5 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        came = b""
        while piece := silent.recv(1 << 16):
            came += piece
    head, _, frames = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    # A ping of four bytes, then the end: 1011.
    assert frames[:2] == b"\x89\x04"
    assert frames[6:7] == b"\x88"
    assert frames[8:10] == (1011).to_bytes(2, "big")
