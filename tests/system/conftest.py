"""What tests of whole processes share: raw requests, the memory of a server, and data that costs little to make."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest

from ndstream.testing.fixtures import LocalServer

MiB = 1 << 20
KNOWN = np.arange(300, dtype=">f8").reshape(100, 3)  # elements of the datasets of `known_tree`


def post(server: LocalServer, path: str, body: dict[str, Any]) -> bytes:
    """Bytes of a request for a description or a slice."""
    packed = msgpack.packb(body)
    head = (
        f"POST /hdfstream/msgpack/{path} HTTP/1.1\r\nHost: {server.port}\r\n"
        f"Content-Type: application/x-msgpack\r\nContent-Length: {len(packed)}\r\n\r\n"
    )
    return b"".join((head.encode(), packed))


@contextmanager
def asked(server: LocalServer, request: bytes, *, receive_buffer: int = 0) -> Iterator[socket.socket]:
    """Socket over which a request was sent, the answer not yet read."""
    with socket.socket() as connection:
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request)
        yield connection


def rest(connection: socket.socket) -> int:
    """Read until the other side closes, in whatever way; how many bytes came."""
    scratch, total = bytearray(MiB), 0
    with suppress(ConnectionResetError):
        while count := connection.recv_into(scratch):
            total += count
    return total


def get(server: LocalServer, path: str) -> tuple[int, bytes]:
    """Status and body of a GET, the path sent as it is."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def status(server: LocalServer) -> Any:
    """What the server says of itself."""
    return json.loads(get(server, "/status")[1])


def until(server: LocalServer, condition: Callable[[Any], bool]) -> Any:
    """Ask the server how it is until that is so; every look is a round trip through its event loop."""
    for _ in range(20_000):
        found = status(server)
        if condition(found):
            return found
    raise AssertionError(f"it did not come: {found}")


def protocols(found: Any) -> list[Any]:
    """What `status` says of the requests of each protocol; pages of the server itself aside."""
    return [counted for name, counted in found["requests"].items() if name != "pages"]


def active(found: Any) -> int:
    """Requests that are being served, from what `status` gives."""
    return sum(counted["active"] for counted in protocols(found))


def write_sparse(path: Path, nbytes: int) -> None:
    """Write a contiguous dataset `data` of rows of 1 MiB, all zero, that takes no room on the disk."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((nbytes // MiB, MiB // 4))
        h5py.h5d.create(file.id, b"data", h5py.h5t.STD_I32LE, space, plist)


def write_deflated(path: Path, nbytes: int) -> None:
    """Write a chunked dataset `data` of rows of 1 MiB, compressed, all chunks the same bytes in the file."""
    with h5py.File(path, "w") as file:
        rows = nbytes // MiB
        data = file.create_dataset("data", (rows, MiB // 4), "<i4", chunks=(1, MiB // 4), compression="gzip")
        data[0] = np.arange(MiB // 4) % 1000
        _, stored = data.id.read_direct_chunk((0, 0))
        for row in range(1, rows):
            data.id.write_direct_chunk((row, 0), stored)


def whole(server: LocalServer, path: Path) -> bytes:
    """Request for all rows of `data`."""
    with h5py.File(path) as file:
        rows, columns = file["data"].shape
    return post(server, path.name, {"object": "data", "slice": [[0, rows], [0, columns]]})


@pytest.fixture(scope="module")
def known_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that `stock.py` knows."""
    root = tmp_path_factory.mktemp("served")
    (root / "below" / "deep").mkdir(parents=True)
    (root / "first.bin").write_bytes(b"12345")
    (root / "below" / "notes.txt").write_text("größer\n", encoding="utf-8")
    with h5py.File(root / "below" / "deep" / "data.h5", "w") as file:
        file["data"] = KNOWN
        file.create_dataset("group/chunked", data=KNOWN, chunks=(7, 2), compression="gzip", shuffle=True)
        file["soft"] = h5py.SoftLink("/data")
    return root


@pytest.fixture(autouse=True)
def _room(tmp_path: Path) -> Iterator[None]:
    """Large files do not stay for the rest of the run."""
    yield
    for path in tmp_path.rglob("*.h5"):
        path.unlink()
