"""The driver of flows over HTTP, against a server that does what it is told."""

from __future__ import annotations

import multiprocessing
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.errors import CertificateError, ConnectFailed, ConnectionLost, ProtocolError, TimedOut
from ndstream.testing.scripted import Answer, Script, ScriptedServer
from ndstream.transports import http
from ndstream.transports.http import HTTPTransport
from ndstream.wire.flow import Flow, Head, Request, peek, read, read_into, read_some, send

BODY = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(http, "PIECE", 1000)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda asked: Answer(BODY)) as made:
        yield made


def transport(server: ScriptedServer, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> closing[HTTPTransport]:
    return closing(HTTPTransport(server.url, limits=limits, **options))


def whole(request: Request) -> Flow[tuple[Head, bytes]]:
    head = yield from send(request)
    pieces = []
    while piece := (yield from read_some(1000)):
        pieces.append(piece)
    return head, b"".join(pieces)


def get(path: str = "/a", **options: Any) -> Flow[tuple[Head, bytes]]:
    return whole(Request(method="GET", path=path, **options))


def into(buffer: bytearray) -> Flow[None]:
    yield from send(Request(method="GET", path="/a"))
    yield from read_into(memoryview(buffer))


def in_turn(*answers: Answer) -> Script:
    left = iter(answers)
    return lambda asked: next(left)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_flow_gets_exactly_the_bytes_it_asks_for(server: ScriptedServer, framing: Any, compressed: bool) -> None:
    server.script = lambda asked: Answer(BODY, framing=framing, compressed=compressed)

    def flow() -> Flow[tuple[bytes, bytes, bytes, bytes]]:
        yield from send(Request(method="GET", path="/a"))
        looked = yield from peek(5)
        first = yield from read(7)
        middle = bytearray(6000)
        yield from read_into(memoryview(middle))
        rest = b""
        while piece := (yield from read_some(999)):
            rest += piece
        return looked, first, bytes(middle), rest

    with transport(server) as opened:
        looked, first, middle, rest = opened.drive(flow)
    assert looked == BODY[:5]
    assert first + middle + rest == BODY


def test_a_peek_behind_the_end_gives_what_there_is(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(b"abc")

    def flow() -> Flow[bytes]:
        yield from send(Request(method="GET", path="/a"))
        return (yield from peek(9))

    with transport(server) as opened:
        assert opened.drive(flow) == b"abc"


def test_a_request_carries_its_method_path_headers_and_body(server: ScriptedServer) -> None:
    request = Request(method="POST", path="/a%20b", headers={"X-One": "1"}, body=b"\x80")
    with transport(server, headers={"Authorization": "Basic eA=="}) as opened:
        head, _ = opened.drive(lambda: whole(request))
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/a%20b", b"\x80")
    assert asked.headers["x-one"] == "1"
    assert asked.headers["authorization"] == "Basic eA=="
    assert head.status == 200
    assert head.headers["content-type"] == "application/x-msgpack"


def test_requests_share_one_connection(server: ScriptedServer) -> None:
    with transport(server) as opened:
        for _ in range(5):
            opened.drive(get)
    assert {asked.connection for asked in server.asked} == {0}


def test_a_body_that_was_not_read_closes_its_connection_and_harms_no_other(server: ScriptedServer) -> None:
    def flow() -> Flow[bytes]:
        yield from send(Request(method="GET", path="/a"))
        return (yield from read(3))

    with transport(server) as opened:
        assert opened.drive(flow) == BODY[:3]
        assert opened.drive(get)[1] == BODY


def test_a_kept_connection_that_the_server_ended_is_replaced(server: ScriptedServer) -> None:
    with transport(server) as opened:
        opened.drive(get)
        server.drop()
        assert opened.drive(get)[1] == BODY


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_connection_lost_in_the_body_starts_the_flow_again(server: ScriptedServer, framing: Any) -> None:
    server.script = in_turn(Answer(BODY, cut=5000, framing=framing), Answer(BODY, framing=framing))
    buffer = bytearray(len(BODY))
    counts: list[int] = []
    with transport(server) as opened:
        opened.drive(lambda: into(buffer), counts.append)
    assert buffer == BODY
    assert sum(counts) == len(BODY)
    assert min(counts) < 0


def test_repetitions_are_bounded(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(BODY, cut=100)
    with transport(server, limits=replace(DEFAULT_LIMITS, retries=3)) as opened, pytest.raises(ConnectionLost) as error:
        opened.drive(lambda: into(bytearray(len(BODY))))
    assert len(server.asked) == 4
    assert server.url in str(error.value)


def test_an_unsafe_request_is_not_repeated(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(BODY, cut=100)
    with transport(server) as opened, pytest.raises(ConnectionLost):
        opened.drive(lambda: get(safe=False))
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server: ScriptedServer, status: int) -> None:
    server.script = in_turn(Answer(status=status, headers={"Retry-After": "0"}), Answer(status=status), Answer(BODY))
    with transport(server) as opened:
        assert opened.drive(get)[1] == BODY


def test_a_server_that_asks_for_too_much_patience_is_not(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(status=503, headers={"Retry-After": "3600"})
    with transport(server) as opened:
        head, _ = opened.drive(get)
    assert head.status == 503
    assert len(server.asked) == 1


def test_a_server_that_stays_busy_says_so_in_the_end(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(status=429)
    with transport(server) as opened:
        head, _ = opened.drive(get)
    assert head.status == 429
    assert len(server.asked) == 1 + DEFAULT_LIMITS.retries


def test_a_redirection_is_not_followed(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(status=302, headers={"Location": "http://127.0.0.1:9/elsewhere"})
    with transport(server) as opened:
        assert opened.drive(get)[0].status == 302


def test_a_closed_port_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with closing(HTTPTransport(url)) as opened, pytest.raises(ConnectFailed, match="refused"):
        opened.drive(get)


def test_silence_is_a_timeout(server: ScriptedServer) -> None:
    never = threading.Event()
    server.script = lambda asked: Answer(BODY, hold=never)
    limits = replace(DEFAULT_LIMITS, read_timeout=0.1)
    with transport(server, limits=limits) as opened, pytest.raises(TimedOut, match=r"0\.1 s"):
        opened.drive(get)
    assert len(server.asked) == 1


def test_silence_in_the_body_is_a_timeout(server: ScriptedServer) -> None:
    never = threading.Event()
    server.script = lambda asked: Answer(BODY, cut=5000, hold=never)
    limits = replace(DEFAULT_LIMITS, read_timeout=0.1)
    with transport(server, limits=limits) as opened, pytest.raises(TimedOut):
        opened.drive(lambda: into(bytearray(len(BODY))))


def test_a_broken_compression_is_a_protocol_error(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(b"no gzip at all", headers={"Content-Encoding": "gzip"})
    with transport(server) as opened, pytest.raises(ProtocolError):
        opened.drive(get)


def test_the_session_cookie_of_a_container_is_kept(server: ScriptedServer) -> None:
    server.script = lambda asked: Answer(BODY, headers={"Set-Cookie": "JSESSIONID=abc; Path=/; HttpOnly"})
    with transport(server) as opened:
        opened.drive(get)
        opened.drive(get)
    assert "cookie" not in server.asked[0].headers
    assert server.asked[1].headers["cookie"] == "JSESSIONID=abc"


def test_an_answer_can_be_left_to_the_caller(server: ScriptedServer) -> None:
    def flow() -> Flow[None]:
        yield from send(Request(method="GET", path="/a"))

    with transport(server) as opened, opened.begin(flow) as exchange:
        assert exchange.read_some(3) == BODY[:3]


def test_a_forked_child_has_connections_of_its_own(server: ScriptedServer) -> None:
    with transport(server) as opened:
        opened.drive(get)
        context = multiprocessing.get_context("fork")
        with context.Pool(1) as pool:
            assert pool.apply(_get_in_child, (opened.base,)) == BODY
        child = context.Process(target=_use_in_child, args=(opened,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert opened.drive(get)[1] == BODY
    first, *_, last = server.asked
    assert first.connection == last.connection
    assert {asked.connection for asked in server.asked[1:-1]}.isdisjoint({first.connection})


def _get_in_child(base: str) -> bytes:
    with closing(HTTPTransport(base)) as opened:
        return opened.drive(get)[1]


def _use_in_child(opened: HTTPTransport) -> None:
    assert opened.drive(get)[1] == BODY
    opened.close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_server(authority: trustme.CA) -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(lambda asked: Answer(BODY), context) as made:
        yield made


def test_an_unknown_certificate_is_refused(secure_server: ScriptedServer) -> None:
    with transport(secure_server) as opened, pytest.raises(CertificateError):
        opened.drive(get)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_certificates_are_not_checked_if_told_so(secure_server: ScriptedServer) -> None:
    with transport(secure_server, verify=False) as opened:
        assert opened.drive(get)[1] == BODY


def test_a_certificate_of_a_named_authority_is_trusted(
    secure_server: ScriptedServer, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with transport(secure_server, verify=str(tmp_path / "ca.pem")) as opened:
        assert opened.drive(get)[1] == BODY


def test_a_small_body_leaves_together_with_its_head() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with ThreadPoolExecutor(1) as thread:
            transport = HTTPTransport(f"http://127.0.0.1:{port}")
            request = Request(method="POST", path="/x", body=(b"head", memoryview(b"tail")))
            asked = thread.submit(transport.open, request)
            connection, _ = listener.accept()
            with connection:
                received = connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
                with asked.result() as exchange:
                    assert exchange.head.status == 204
            transport.close()
    assert received.startswith(b"POST /x HTTP/1.1\r\n")
    assert received.endswith(b"\r\n\r\nheadtail")
