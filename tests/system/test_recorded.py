"""Recorded bytes (`tests/data`): what stock clients send is understood, what the original sends is what we send."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest

from ndstream.testing.fixtures import LocalServer, ServerFactory

from .conftest import KNOWN

RECORDED = Path(__file__).parents[1] / "data"
REQUESTS: list[dict[str, Any]] = json.loads((RECORDED / "stock_client_requests.json").read_text())


@pytest.fixture(scope="module")
def server(known_tree: Path, ndstream_module_server: ServerFactory) -> LocalServer:
    with h5py.File(known_tree / "int32.h5", "w") as file:
        file["data"] = np.arange(3, dtype="<i4")
    return ndstream_module_server(known_tree)


def send(server: LocalServer, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


@pytest.mark.parametrize("recorded", REQUESTS, ids=range(len(REQUESTS)))
def test_what_the_stock_client_sends_is_answered(server: LocalServer, recorded: dict[str, Any]) -> None:
    body = bytes.fromhex(recorded["body"])
    status, answer = send(server, recorded["method"], recorded["path"], recorded["headers"], body)
    assert status == 200
    asked = msgpack.unpackb(body) if body else {}
    if "slice" in asked:
        document = msgpack.unpackb(answer)
        (starts, counts), (first, count) = asked["slice"]
        ranges = np.broadcast(np.atleast_1d(starts), np.atleast_1d(counts))
        wanted = np.concatenate([KNOWN[start : start + many, first : first + count] for start, many in ranges])
        assert document["shape"] == list(wanted.shape)
        assert b"".join(document["data"]) == wanted.astype("<f8").tobytes()


def test_an_array_has_the_bytes_of_the_original(server: LocalServer) -> None:
    headers = {"Content-Type": "application/x-msgpack"}
    body = msgpack.packb({"object": "data", "slice": [[0, 3]]})
    status, answer = send(server, "POST", "/hdfstream/msgpack/int32.h5", headers, body)
    assert status == 200
    assert answer == (RECORDED / "ndarray_int32.msgpack").read_bytes()
