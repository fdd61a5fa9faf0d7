from __future__ import annotations

import queue
import socket
import time

import pytest

from ndstream.core.ports import Receive, Scope, Send
from ndstream.server.connection import Connection, connection_of

from .conftest import Start, answer, ask, dial, everything, until

SHORT = 0.3
REQUEST = b"GET /scripted/x HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /scripted/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        if not message["more_body"]:
            break
    await answer(send, b"%d" % length)


OFFER = b"POST /scripted/x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
BODIES = {
    "counted": (b"content-length: 5\r\n\r\n", b"hello"),
    "chunked": (b"transfer-encoding: chunked\r\n\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    "none": (b"\r\n", b""),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("together", [True, False])
def test_an_offer_of_another_protocol_is_passed_over(start: Start, body: str, together: bool) -> None:
    head, content = BODIES[body]
    server = start(read_all)
    with dial(server) as sock:
        parts = [OFFER + head, content, OFFER + head + content, LAST]
        for part in [b"".join(parts)] if together else parts:
            sock.sendall(part)
        received = everything(sock)
    assert received.count(b"HTTP/1.1 200") == 3
    assert received.count(b"\r\n\r\n5") == (0 if body == "none" else 2)


@pytest.mark.parametrize("target", [b"x:1", b"/scripted/x"])
def test_a_tunnel_is_refused(start: Start, target: bytes) -> None:
    server = start()
    with dial(server) as sock:
        sock.sendall(b"CONNECT " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        assert everything(sock).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n", REQUEST, b"\r\n"])
def test_a_connection_without_a_whole_request_is_closed(start: Start, sent: bytes) -> None:
    server = start(limits={"idle_timeout": SHORT})
    with dial(server) as sock:
        sock.sendall(sent)
        received = everything(sock)
    assert received.startswith(b"HTTP/1.1 200" if sent == REQUEST else b"")
    assert (sent == REQUEST) == (received != b"")


def test_a_head_that_comes_drop_by_drop_is_cut(start: Start) -> None:
    server = start(limits={"idle_timeout": SHORT})
    began = time.monotonic()
    with dial(server) as sock, pytest.raises(OSError):
        sock.sendall(b"GET / HTTP/1.1\r\nx: ")
        while True:
            sock.sendall(b"x")
            sock.settimeout(0.05)
            try:
                if not sock.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                continue
    assert time.monotonic() - began < 10


def test_a_body_that_stalls_is_cut(start: Start) -> None:
    server = start(read_all, limits={"idle_timeout": SHORT})
    with dial(server) as sock:
        sock.sendall(b"POST /scripted/x HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        assert everything(sock) == b""


def test_a_body_that_flows_is_read_to_its_end(start: Start) -> None:
    server = start(read_all, limits={"idle_timeout": SHORT})
    body = bytes(16 << 20)
    assert ask(server, "/scripted/x", method="POST", body=body).body == b"%d" % len(body)


def test_a_head_without_end_is_refused(start: Start) -> None:
    server = start(limits={"request_head": 65536})
    with dial(server) as sock:
        received = b""
        try:
            sock.sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(64):
                sock.sendall(b"x: " + bytes(b"y" * 65536))
        except OSError:
            pass
        received = everything(sock)
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert ask(server, "/scripted/x").status == 200


def test_a_long_head_within_the_limit_is_read(start: Start) -> None:
    headers = {f"x-{number}": "y" * 60_000 for number in range(10)}
    assert ask(start(), "/scripted/" + "x" * 60_000, headers=headers).status == 200


def test_trailers_without_end_are_cut(start: Start) -> None:
    server = start(read_all, limits={"request_head": 65536})
    with dial(server) as sock:
        try:
            sock.sendall(b"POST /scripted/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
            for _ in range(64):
                sock.sendall(b"x: " + b"y" * 65536)
        except OSError:
            pass
        assert b"200" not in everything(sock)


def test_a_client_that_takes_nothing_of_its_answer_is_cut(start: Start) -> None:
    ended: queue.Queue[bool] = queue.Queue()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        finally:
            ended.put(True)

    server = start(endless, limits={"send_timeout": SHORT})
    with dial(server) as sock:
        sock.sendall(REQUEST)
        assert ended.get(timeout=10)
        assert ask(server, "/healthz").status == 200
        sock.settimeout(20)
        everything(sock)


def test_a_client_that_takes_little_of_a_finished_answer_is_cut_too(start: Start) -> None:
    connections: list[Connection | None] = []

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        connections.append(connection_of(scope))
        await answer(send, bytes(32 << 20))

    server = start(large, limits={"send_timeout": SHORT, "idle_timeout": SHORT})
    with dial(server) as sock:
        sock.sendall(REQUEST)
        until(lambda: bool(connections) and connections[0] is not None and connections[0].lost, server)
        assert len(everything(sock)) < 32 << 20


def test_a_slow_client_that_goes_on_reading_gets_everything(start: Start) -> None:
    size = 24 << 20

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(size))

    server = start(large, limits={"send_timeout": 1, "idle_timeout": 1})
    with dial(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        received, deadline = 0, time.monotonic() + 2
        while piece := sock.recv(1 << 15):
            received += len(piece)
            # Reads on and on, at first as slowly as it takes to outlive the time a stalled client gets.
            if time.monotonic() < deadline:
                time.sleep(0.005)
    assert received > size


def test_many_requests_in_one_packet_are_all_answered(start: Start) -> None:
    server = start()
    with dial(server) as sock:
        sock.sendall(REQUEST * 20 + REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert everything(sock).count(b"HTTP/1.1 200 OK") == 21


def test_small_answers_do_not_wait_for_acknowledgements(start: Start) -> None:
    server = start()
    ask(server, "/scripted/x")
    with dial(server) as sock:
        sock.sendall(REQUEST)
        sock.recv(1 << 16)
        (connection,) = server._uvicorn.server_state.connections
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_head_and_body_of_an_answer_leave_together(start: Start) -> None:
    server = start()
    with dial(server) as sock:
        for _ in range(3):
            sock.sendall(REQUEST)
            received = sock.recv(1 << 16)
            head, _, body = received.partition(b"\r\n\r\n")
            assert b"content-length: %d" % len(body) in head.lower()
            assert body


def test_a_head_without_a_body_yet_is_sent(start: Start) -> None:
    async def later(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    server = start(later)
    with dial(server) as sock:
        sock.sendall(REQUEST)
        assert sock.recv(1 << 16).endswith(b"\r\n\r\n")
