from __future__ import annotations

import asyncio
import logging
import queue
import re
import socket
import struct
import threading

import pytest

from ndstream.core.ports import Receive, Scope, Send
from ndstream.errors import ConnectionLost
from ndstream.server.meter import Meter
from ndstream.server.watch import Watch

from .conftest import Start, answer, ask, dial, everything, ok, until


async def fail_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError("of all things")


async def fail_half_way(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"half", length=8)
    raise ZeroDivisionError("of all things")


async def fail_half_way_in_chunks(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ZeroDivisionError("of all things")


def test_an_unforeseen_error_is_a_500_in_the_form_of_the_protocol_and_its_id_is_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(fail_at_once)
    failed = ask(server, "/scripted/a%0Ab")
    assert (failed.status, failed.headers["content-type"]) == (500, "application/x-scripted")
    identity = failed.headers["x-request-id"]
    assert failed.body == f"500!internal error, logged as request {identity}".encode()
    record = next(record for record in caplog.records if identity in record.getMessage())
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError
    # What a client sends must not look like a line of the log.
    assert "\n" not in record.getMessage()
    until(lambda: server.app._meters["scripted"].requests == {500: 1}, server)


def test_every_failure_is_logged_with_another_id(start: Start) -> None:
    server = start(fail_at_once)
    ids = {ask(server, "/scripted/a").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9a-f]{6}-[0-9a-f]+", one) for one in ids)


@pytest.mark.parametrize(
    ("script", "end"), [(fail_half_way, b"\r\n\r\nhalf"), (fail_half_way_in_chunks, b"\r\n\r\n4\r\nhalf\r\n")]
)
def test_after_the_first_byte_the_connection_is_aborted(
    start: Start, caplog: pytest.LogCaptureFixture, script: object, end: bytes
) -> None:
    server = start(script)
    with dial(server) as sock:
        sock.sendall(b"GET /scripted/x HTTP/1.1\r\nhost: x\r\n\r\n")
        received = everything(sock)
    assert received == b"" or received.endswith(end)
    until(lambda: server.app._meters["scripted"].requests == {500: 1}, server)
    # Told once, by us: uvicorn has nothing to add.
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["ndstream.server"]


def test_an_error_that_the_protocol_answers_itself_gets_an_id_when_it_is_the_servers(start: Start) -> None:
    async def unavailable(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    assert "x-request-id" in ask(start(unavailable), "/scripted/x").headers
    assert "x-request-id" not in ask(start(ok), "/scripted/x").headers


def test_a_client_that_goes_away_ends_the_work_for_it(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    ended: queue.Queue[BaseException] = queue.Queue()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        except BaseException as error:
            ended.put(error)
            raise

    server = start(endless)
    with dial(server) as sock:
        sock.sendall(b"GET /scripted/x HTTP/1.1\r\nhost: x\r\n\r\n")
        sock.recv(1 << 16)
    assert isinstance(ended.get(timeout=10), ConnectionLost)
    until(lambda: server.app._meters["scripted"].requests == {499: 1}, server)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_that_went_away_ends_work_that_never_waits(start: Start) -> None:
    gone, ended = threading.Event(), queue.Queue[BaseException]()

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begins", "more_body": True})
        gone.wait()  # the event loop learns of nothing
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        except BaseException as error:
            ended.put(error)
            raise

    server = start(busy)
    sock = dial(server)
    sock.sendall(b"GET /scripted/x HTTP/1.1\r\nhost: x\r\n\r\n")
    sock.recv(1 << 16)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    gone.set()
    assert isinstance(ended.get(timeout=10), ConnectionLost)
    until(lambda: server.app._meters["scripted"].requests == {499: 1}, server)


def test_what_was_lost_elsewhere_is_a_failure_not_a_client_that_went_away(start: Start) -> None:
    async def lose(scope: Scope, receive: Receive, send: Send) -> None:
        raise ConnectionLost("to a store far away")

    assert ask(start(lose), "/scripted/x").status == 500


def test_requests_are_logged_when_that_is_wanted(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start()
    ask(server, "/scripted/quiet")
    with caplog.at_level(logging.INFO, "ndstream.access"):
        ask(server, "/scripted/loud")
        until(lambda: "loud" in caplog.text, server)
    lines = [record.getMessage() for record in caplog.records if "/scripted/" in record.getMessage()]
    assert len(lines) == 1
    assert re.fullmatch(r"127\.0\.0\.1 - GET '/scripted/loud' 200 2 bytes [\d.]+ ms", lines[0])


def test_under_another_server_a_failure_after_the_first_byte_reaches_that_server() -> None:
    async def run() -> None:
        async def send(message: object) -> None:
            pass

        meter = Meter("x")
        with pytest.raises(ZeroDivisionError):
            await Watch(fail_half_way, meter)({"type": "http", "method": "GET", "path": "/"}, send, send)  # type: ignore[arg-type] # never called
        assert meter.requests == {500: 1}
        assert (meter.active, meter.sent) == (0, 4)

    asyncio.run(run())
