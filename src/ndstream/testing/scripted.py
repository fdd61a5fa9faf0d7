"""An HTTP server that answers what a test tells it to, faults included, and remembers what it was asked."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that came; `connection` numbers the TCP connections in the order of their first request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say.

    Attributes
    ----------
    body : bytes
    status : int
    headers : mapping
        `content_type` goes in besides.
    framing
        Whether the body has its length announced, comes in chunks, or ends with the connection.
    compressed : bool
        Send the body gzipped.
    cut : int, optional
        End the connection after so many bytes of the body.
    hold : threading.Event, optional
        Wait for it, or for the end of the server, after `cut` bytes (or before the head, without `cut`).
    """

    body: bytes = b""
    status: int = 200
    content_type: str = "application/x-msgpack"
    headers: Mapping[str, str] = field(default_factory=dict)
    framing: Literal["length", "chunked", "close"] = "length"
    compressed: bool = False
    cut: int | None = None
    hold: threading.Event | None = None


Script = Callable[[Asked], Answer]


class ScriptedServer:
    """The server; a context manager. It listens on loopback, over TLS when `context` is given.

    Attributes
    ----------
    script : callable
        Answers a request; may be replaced at any time.
    asked : list of Asked
    """

    def __init__(self, script: Script, context: object = None) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._http = _Server(self)
        if context is not None:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)  # type: ignore[attr-defined]  # an ssl.SSLContext
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="scripted server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.stopping.set()
        self._http.shutdown()
        self.drop()
        self._http.server_close()
        self._thread.join()

    def drop(self) -> None:
        """End all connections that are open now."""
        self._http.drop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, owner: ScriptedServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self.stopping = threading.Event()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def number(self, connection: socket.socket) -> int:
        with self._lock:
            if connection not in self._sockets:
                self._sockets.append(connection)
            return self._sockets.index(connection)

    def drop(self) -> None:
        with self._lock:
            open_now = [each for each in self._sockets if each.fileno() >= 0]
        for each in open_now:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the peer was faster

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is part of many a script."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = Asked(
            method=self.command,
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length),
            connection=self.server.number(self.connection),
        )
        self.server.owner.asked.append(asked)
        self._say(self.server.owner.script(asked))

    do_GET = do_POST = do_HEAD = handle_any  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of http.server
        """Say nothing: tests look at `asked`."""

    def _say(self, answer: Answer) -> None:
        body = gzip.compress(answer.body) if answer.compressed else answer.body
        if answer.hold is not None and answer.cut is None:
            self._wait(answer.hold)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.compressed:
            self.send_header("Content-Encoding", "gzip")
        if answer.framing == "length":
            self.send_header("Content-Length", str(len(body)))
        elif answer.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self._send_body(body if answer.cut is None else body[: answer.cut], chunked=answer.framing == "chunked")
        if answer.cut is not None:
            if answer.hold is not None:
                self._wait(answer.hold)
            self.wfile.flush()
            self.close_connection = True
        elif answer.framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def _send_body(self, body: bytes, *, chunked: bool) -> None:
        if not chunked:
            self.wfile.write(body)
            return
        for start in range(0, len(body), 1000):
            piece = body[start : start + 1000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def _wait(self, event: threading.Event) -> None:
        while not event.wait(0.01) and not self.server.stopping.is_set():
            continue
