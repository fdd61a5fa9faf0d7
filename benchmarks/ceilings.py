"""What the machine can do without us: bytes over a bare socket, and small answers from memory over uvicorn.

Programs: ``python -m benchmarks.ceilings raw|small|frames``, ``raw`` also with the name of a file to send; each prints
its port, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop

ASKED = 8  # bytes of a request for bytes: how many, as an integer
_WARM = 64 << 20
SMALL = 4096


@contextmanager
def ceiling(name: str, *arguments: str | Path) -> Iterator[int]:
    """Run one of the programs; gives its port."""
    command = [sys.executable, "-m", "benchmarks.ceilings", name, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def serve_raw(file: str | None = None) -> None:
    """Send as many bytes of warm memory, or of what a file holds, as asked for, a thread for each connection."""
    warm = memoryview(bytearray(b"\1" * _WARM) if file is None else Path(file).read_bytes())
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def answer(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while request := connection.recv(ASKED, socket.MSG_WAITALL):
                left = int.from_bytes(request, "big")
                while left:
                    left -= connection.send(warm[: min(left, len(warm))])

    def accept() -> None:
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    _serve_until_the_end(listener.getsockname()[1])


def serve_small() -> None:
    """Answer every request with the same `SMALL` bytes, on a bare ASGI application."""
    body = bytes(SMALL)
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % SMALL)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True).start()
    _serve_until_the_end(listener.getsockname()[1])


def serve_frames() -> None:
    """Decode every frame, and answer with a map that holds `SMALL` bytes: asyncio and msgspec, nothing else."""
    decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    body = bytes(SMALL)

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport
            self._buffer = b""

        def data_received(self, data: bytes) -> None:
            self._buffer += data
            while len(self._buffer) >= 4 and len(self._buffer) >= (end := 4 + int.from_bytes(self._buffer[:4], "big")):
                request = decode(self._buffer[4:end])
                self._buffer = self._buffer[end:]
                answer = encode({"status": "success" if request["path"] else "error", "data": body})
                self._transport.write(len(answer).to_bytes(4, "big") + answer)

    async def serve(listener: socket.socket) -> None:
        server = await asyncio.get_running_loop().create_server(Echo, sock=listener)
        await server.serve_forever()

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=lambda: uvloop.run(serve(listener)), daemon=True).start()
    _serve_until_the_end(listener.getsockname()[1])


def _serve_until_the_end(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    {"raw": serve_raw, "small": serve_small, "frames": serve_frames}[sys.argv[1]](*sys.argv[2:])
