from __future__ import annotations

import asyncio
import http.client
import logging
import queue
import signal
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trustme

from ndstream.config import load
from ndstream.core.ports import Receive, Scope, Send
from ndstream.errors import Busy, ConfigError, ServiceError
from ndstream.server import run
from ndstream.server.listen import bind, url_of
from ndstream.server.run import Server
from ndstream.stores.memory import MemoryStore
from ndstream.testing.fixtures import ServerFactory

from .conftest import Start, answer, ask, dial, everything


class Held:
    """A protocol that answers half, and the rest when the test says so."""

    def __init__(self) -> None:
        self.begun: queue.Queue[Callable[[], object]] = queue.Queue()
        self.cancelled = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"half", length=8)
        go_on = asyncio.Event()
        self.begun.put(partial(asyncio.get_running_loop().call_soon_threadsafe, go_on.set))
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await send({"type": "http.response.body", "body": b"half"})


def test_a_server_process_is_ready_when_it_says_so_and_ends_in_good_order(
    ndstream_server: ServerFactory, tmp_path: Path
) -> None:
    server = ndstream_server(tmp_path)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"ok\n"
    # Kept alive and idle: no reason to wait for it. One signal, a second one would hurry it.
    assert server.stop() == 0
    connection.close()
    assert "Traceback" not in server.output()


def test_a_port_that_is_taken_is_told(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    first = ndstream_server(tmp_path)
    with pytest.raises(ServiceError, match=f"server.port: {first.port} on 127.0.0.1 is in use by another program"):
        ndstream_server(tmp_path, port=first.port)


def test_a_server_starts_again_on_the_port_it_had(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    first = ndstream_server(tmp_path)
    first.kill()
    assert ndstream_server(tmp_path, port=first.port).port == first.port


def test_a_second_signal_does_not_wait_for_running_requests(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(1 << 30)
    server = ndstream_server(tmp_path, server={"drain": 600})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/hdfstream/download/huge.bin")
    response = connection.getresponse()
    assert response.read(4) == bytes(4)
    server.process.send_signal(signal.SIGTERM)
    refused_when_stopping(server.port)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    connection.close()


def refused_when_stopping(port: int) -> None:
    """Return when nobody listens any more."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        except OSError:
            return
        finally:
            connection.close()


def test_a_server_that_stops_lets_running_requests_end(start: Start) -> None:
    held = Held()
    server = start(held)
    with dial(server) as sock:
        sock.sendall(b"GET /scripted/x HTTP/1.1\r\nhost: x\r\n\r\n")
        go_on = held.begun.get(timeout=10)
        server.stop()
        go_on()
        assert everything(sock).endswith(b"halfhalf")


def test_a_server_that_stops_cuts_what_does_not_end(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    server = start(held, server={"drain": 0.1})
    with dial(server) as sock:
        sock.sendall(b"GET /scripted/x HTTP/1.1\r\nhost: x\r\n\r\n")
        held.begun.get(timeout=10)
        server.stop()
        assert not everything(sock).endswith(b"halfhalf")
    assert held.cancelled.wait(10)
    server.__exit__(None, None, None)
    assert "Traceback" not in caplog.text


def test_the_store_is_closed_with_the_server(start: Start) -> None:
    closed = threading.Event()

    class Closing(MemoryStore):
        async def aclose(self) -> None:
            closed.set()

    server = start(store=Closing({}))
    server.__exit__(None, None, None)
    assert closed.is_set()


def test_a_store_that_does_not_start_ends_the_server(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        async def start(self) -> None:
            raise Busy("no room for workers")

    with pytest.raises(ServiceError, match="the store does not start: no room for workers"):
        start(store=Broken({}))
    assert "the store does not start: no room for workers" in caplog.text


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return tmp_path / "server.pem"


def test_with_a_certificate_the_server_speaks_https(start: Start, certificate: Path) -> None:
    server = start(server={"certificate": certificate})
    assert server.url == f"https://127.0.0.1:{server.port}"
    trust = ssl.create_default_context(cafile=certificate.with_name("ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=trust)
    connection.request("GET", "/scripted/x")
    assert connection.getresponse().read() == b"ok"
    connection.request("GET", "/")
    assert f"https://127.0.0.1:{server.port}/scripted" in connection.getresponse().read().decode()
    connection.close()


def test_a_wrong_certificate_is_told_with_its_file(start: Start, certificate: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.certificate: .*nowhere\.pem: No such file"):
        start(server={"certificate": certificate.with_name("nowhere.pem")})
    with pytest.raises(ConfigError, match=r"server\.certificate: .*ca\.pem"):
        start(server={"certificate": certificate.with_name("ca.pem")})


def test_every_address_of_a_name_gets_the_same_port() -> None:
    sockets = bind("localhost", 0, 16)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize(
    ("host", "message"), [("192.0.2.1", "no address of this machine"), ("no.such.name.invalid", "is not known here")]
)
def test_a_host_that_is_not_this_one_is_refused(host: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bind(host, 0, 16)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("data.example.org", "http://data.example.org:80"),
    ],
)
def test_the_url_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert url_of(host, 80, tls=False) == url


def test_what_is_seldom_meant_is_warned_about(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    start()
    assert "public" not in caplog.text
    monkeypatch.setattr(run, "is_loopback", lambda sockets: False)
    start()
    assert "what is served is public" in caplog.text
    (tmp_path / "users").touch(mode=0o600)
    start()
    assert "passwords travel unencrypted" in caplog.text
    start(roots={"data": tmp_path}, access={"data/users": ["x"], "date": ["x"]})
    assert "nothing is served as 'date'" in caplog.text
    assert "nothing is served as 'data/users'" not in caplog.text


def test_a_server_that_cannot_be_built_gives_its_port_back(tmp_path: Path) -> None:
    sockets = bind("127.0.0.1", 0, 16)
    port = sockets[0].getsockname()[1]
    for sock in sockets:
        sock.close()
    (tmp_path / "users").touch(mode=0o666)
    (tmp_path / "users").chmod(0o666)
    config = load(overrides={"server": {"port": port}, "users": {"file": tmp_path / "users"}}, environ={})
    for _ in range(2):
        with pytest.raises(ConfigError, match="chmod 600"):
            Server(config, store=MemoryStore({}))


def test_nothing_is_logged_about_a_quiet_start_and_end(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start()
    ask(server, "/scripted/x")
    server.__exit__(None, None, None)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
