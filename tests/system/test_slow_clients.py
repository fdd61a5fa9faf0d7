"""Clients that die, stall or come all at once cost others nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.testing.fixtures import LocalServer, ServerFactory

from .conftest import MiB, active, asked, post, protocols, rest, status, until, whole, write_sparse
from .memory import growth

PROGRAM = Path(__file__).with_name("reader.py")
READ_AND_STOP = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(bytes.fromhex(sys.argv[2]))
connection.recv(65536)
print("begun", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def big(tmp_path: Path) -> Path:
    write_sparse(tmp_path / "big.h5", 256 * MiB)
    with h5py.File(tmp_path / "small.h5", "w") as file:
        file["data"] = np.arange(1000)
    return tmp_path / "big.h5"


def reads_small(server: LocalServer) -> bool:
    return bool((ndstream.open(server.url, "small.h5")["data"][...] == np.arange(1000)).all())


@pytest.mark.keeps_open(reason="the client keeps its connections")
@pytest.mark.parametrize("what", ["download", "slice"])
def test_a_client_that_is_killed_half_way_leaves_nothing_behind(
    big: Path, ndstream_server: ServerFactory, what: str
) -> None:
    server = ndstream_server(big.parent)
    request = (
        b"GET /hdfstream/download/big.h5 HTTP/1.1\r\nHost: x\r\n\r\n" if what == "download" else whole(server, big)
    )
    client = subprocess.Popen(
        [sys.executable, "-c", READ_AND_STOP, str(server.port), request.hex()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"begun\n"
        assert active(status(server)) == 1
        client.send_signal(signal.SIGKILL)
    until(server, lambda found: active(found) == 0)
    assert reads_small(server)


@pytest.mark.keeps_open(reason="the client keeps its connections")
def test_a_client_that_takes_nothing_is_cut_off_and_nobody_else_notices(
    big: Path, ndstream_server: ServerFactory
) -> None:
    server = ndstream_server(big.parent, limits={"send_timeout": 2})
    assert reads_small(server)
    with growth(server) as grown, asked(server, whole(server, big), receive_buffer=4096) as stalled:
        until(server, lambda found: active(found) == 1)
        remote = ndstream.open(server.url, "big.h5")["data"]
        out = np.ones(remote.shape, remote.dtype)
        remote.read_direct(out)
        assert not out.any()
        assert reads_small(server)
        until(server, lambda found: active(found) == 0)
        assert rest(stalled) < 256 * MiB
    assert grown.bytes < 64 * MiB
    assert "took nothing of its answer" in server.output()


def test_the_seventh_request_of_a_user_waits_and_is_then_served(big: Path, ndstream_server: ServerFactory) -> None:
    server = ndstream_server(big.parent)
    with ExitStack() as stack:
        held = [stack.enter_context(asked(server, whole(server, big))) for _ in range(6)]
        until(server, lambda found: active(found) == 6)
        request = post(server, "small.h5", {"object": "data", "slice": [[0, 1]]})
        seventh = stack.enter_context(asked(server, request.replace(b"Host", b"Connection: close\r\nHost")))
        until(server, lambda found: found["server"]["waiting_requests"] == 1)
        held[3].close()
        assert rest(seventh) > 8
        assert status(server)["server"]["waiting_requests"] == 0


def test_sixty_four_clients_at_once_all_get_what_they_ask_for(tmp_path: Path, ndstream_server: ServerFactory) -> None:
    """Four processes of sixteen threads, each with its own part of datasets of different layouts."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        values = np.arange(64 * 50_000, dtype="<i4").reshape(64, 50_000)
        file["contiguous"] = values
        file.create_dataset("chunked", data=values, chunks=(5, 7000), compression="gzip", shuffle=True)
        file.create_dataset("by the library", data=values, chunks=(8, 50_000), scaleoffset=0)
        file["text"] = [f"row {row}" for row in range(64)]
    server = ndstream_server(tmp_path)

    def run(first: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROGRAM), server.url, str(first), "16"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(run, range(0, 64, 16)))
    assert [result.stderr for result in results] == [""] * 4
    assert sum(int(result.stdout) for result in results) == 64
    assert {code for counted in protocols(status(server)) for code in counted["by_status"]} == {"200"}
