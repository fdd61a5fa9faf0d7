"""A real server and raw sockets: what only shows between processes."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import msgpack
import numpy as np
import pytest

from ndstream.testing.fixtures import LocalServer, ServerFactory
from ndstream.wire.integers import write_integers

from .conftest import peak_memory

MOST = 1 << 24  # slices in one request
PARTICLES = 1 << 21
ROW = np.arange(1 << 20, dtype="<f8")  # longer than any buffer


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    with h5py.File(root / "data.h5", "w") as file:
        file["rows"] = np.stack([ROW, ROW + 1])
        file["particles"] = np.arange(PARTICLES, dtype="<i4")
        file["text"] = ["one", "two"]
    (root / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(3000))
    (root / "text.h5").write_bytes(b"no HDF5 at all")
    return root


@pytest.fixture(scope="module")
def server(tree: Path, ndstream_module_server: ServerFactory) -> LocalServer:
    return ndstream_module_server(tree, limits={"request_body": "32 MiB"})


@pytest.fixture
def connection(server: LocalServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    yield connection
    connection.close()


def post(connection: http.client.HTTPConnection, path: str, body: Any) -> http.client.HTTPResponse:
    packed = body if isinstance(body, bytes) else msgpack.packb(body)
    headers = {"content-type": "application/x-msgpack"}
    connection.request("POST", f"/hdfstream/msgpack/{path}", body=packed, headers=headers)
    return connection.getresponse()


def document(response: http.client.HTTPResponse) -> Any:
    assert response.headers["content-type"] == "application/x-msgpack"
    return msgpack.unpackb(response.read(), max_bin_len=1 << 30)


def test_a_row_longer_than_any_buffer(connection: http.client.HTTPConnection) -> None:
    found = document(post(connection, "data.h5", {"object": "rows", "slice": [[1, 1], [0, ROW.size]]}))
    assert found["data"] == [(ROW + 1).tobytes()]


def test_as_many_slices_as_there_may_be_in_one_request(tmp_path: Path, ndstream_server: ServerFactory) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["rows"] = values = np.arange(2 * MOST, dtype="<u2")
    server = ndstream_server(tmp_path)
    starts = np.arange(0, 2 * MOST, 2, dtype=np.int64)
    body = b"\x82\xa6object\xa4rows\xa5slice\x91\x92%s\x01" % write_integers(starts)
    before = peak_memory(server)
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)) as connection:
        found = document(post(connection, "data.h5", body))
    assert found["data"] == [values[::2].tobytes()]
    # The body itself, and where each slice is and goes.
    assert peak_memory(server) - before < 40 * MOST


def test_elements_without_a_known_length_end_with_a_last_chunk(connection: http.client.HTTPConnection) -> None:
    response = post(connection, "data.h5", {"object": "text", "slice": [[0, 2]]})
    assert response.headers["transfer-encoding"] == "chunked"
    assert document(response)["data"] == ["one", "two"]


@pytest.mark.parametrize("name", ["broken.h5", "text.h5"])
def test_a_corrupt_file_is_an_error_and_the_others_are_served_on(
    connection: http.client.HTTPConnection, name: str
) -> None:
    response = post(connection, name, {"object": "/"})
    assert response.status in (404, 500)
    assert list(document(response)) == ["error"]
    assert document(post(connection, "data.h5", {"object": "/"}))["hdf5_object"] == "group"


def test_a_body_longer_than_the_limit_is_refused_while_it_is_sent(server: LocalServer) -> None:
    """The answer comes after the head: not one byte of the body is sent before."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(
            b"POST /hdfstream/msgpack/ HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-msgpack\r\n"
            b"content-length: 34000000\r\n\r\n"
        )
        answer = b"".join(iter(lambda: raw.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert list(msgpack.unpackb(body)) == ["error"]


def test_a_file_that_is_cut_short_while_it_is_read_breaks_the_answer_off(
    server: LocalServer, connection: http.client.HTTPConnection, tree: Path
) -> None:
    """Nobody may take the part that came for the whole: the body ends before its announced length."""
    shrinking = tree / "shrinking.h5"
    with h5py.File(shrinking, "w") as file:
        file.create_dataset("x", (8 << 20,), "<f8")[...] = 1
    response = post(connection, "shrinking.h5", {"object": "x", "slice": [[0, 8 << 20]]})
    assert response.status == 200
    length = int(response.headers["content-length"])
    response.read(1 << 20)
    with shrinking.open("r+b") as cut:
        cut.truncate(1 << 20)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        assert len(response.read()) == length - (1 << 20)
    shrinking.unlink()


def test_a_killed_server_leaves_a_short_body(tree: Path, ndstream_server: ServerFactory) -> None:
    server = ndstream_server(tree)
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    response = post(connection, "data.h5", {"object": "rows", "slice": [[0, 2], [0, ROW.size]]})
    response.read(1 << 16)
    server.kill()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    connection.close()


def test_a_file_that_is_replaced_is_served_fresh(connection: http.client.HTTPConnection, tree: Path) -> None:
    for number in (1, 2):
        with h5py.File(tree / "new.h5", "w") as file:
            file["x"] = np.full(number * 100, number)
        (tree / "new.h5").rename(tree / "fresh.h5")
        entry = document(post(connection, "fresh.h5", b"\x80"))
        assert entry["size"] == (tree / "fresh.h5").stat().st_size
        for _ in range(2):
            described = document(post(connection, "fresh.h5", {"object": "x"}))
            assert described["shape"] == [number * 100]
            assert described["data"]["data"] == [np.full(number * 100, number).tobytes()]
        sliced = document(post(connection, "fresh.h5", {"object": "x", "slice": [[0, 1]]}))
        assert sliced["data"] == [np.full(1, number).tobytes()]
    (tree / "fresh.h5").unlink()


def test_an_error_on_a_kept_connection_leaves_it_usable(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    kept = connection.sock
    for body in ({"object": "nothing"}, b"\xc1", {"object": "rows", "slice": [[0, 9], [0, 1]]}, b"\x80"):
        document(post(connection, "data.h5", body))
        assert connection.sock is kept
