"""A server that dies: the client notices, and goes on when there is one again."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.errors import TransportError
from ndstream.testing.fixtures import LocalServer, ServerFactory

from .conftest import MiB, until, write_sparse

pytestmark = pytest.mark.keeps_open(reason="the client keeps its connections")


def test_a_server_killed_half_way_is_an_error_and_never_a_short_array(
    tmp_path: Path, ndstream_server: ServerFactory
) -> None:
    write_sparse(tmp_path / "big.h5", 256 * MiB)
    server = ndstream_server(tmp_path)
    data = ndstream.open(server.url, "big.h5", data_size_limit=0)["data"]
    out = np.ones(data.shape, data.dtype)
    failures: list[BaseException] = []

    def read() -> None:
        try:
            data.read_direct(out)
        except BaseException as error:  # noqa: BLE001 - it is what the test looks at
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while out[0, 0] and reader.is_alive():
        os.sched_yield()
    server.process.send_signal(signal.SIGKILL)
    reader.join()
    server.kill()
    (failure,) = failures
    assert isinstance(failure, TransportError)
    assert isinstance(failure, ConnectionError)
    assert out[-1, -1] == 1


def test_a_client_goes_on_with_a_server_that_was_started_again(tmp_path: Path, ndstream_server: ServerFactory) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = np.arange(1000)
    first = ndstream_server(tmp_path)
    data = ndstream.open(first.url, "data.h5", data_size_limit=0)["data"]
    assert data[1] == 1
    first.kill()
    with pytest.raises(TransportError):
        data[2]
    ndstream_server(tmp_path, port=first.port)
    assert data[3] == 3


def test_an_idle_worker_that_is_killed_costs_no_request(tmp_path: Path, ndstream_server: ServerFactory) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        for number in range(40):
            file[f"data {number}"] = np.arange(10) + number
    server = ndstream_server(tmp_path, limits={"workers": 2})
    file = ndstream.open(server.url, "data.h5", data_size_limit=0)
    for number in range(40):
        if number in (10, 20, 30):
            killed = _kill_workers(server.process.pid)
            # The server finds out by itself; what it had just sent to one of them would be lost with it.
            until(server, partial(_are_replaced, server, killed))
        assert file[f"data {number}"][3] == 3 + number


def _kill_workers(pid: int) -> set[int]:
    killed = _workers(pid)
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    return killed


def _are_replaced(server: LocalServer, killed: set[int], _: object) -> bool:
    return killed.isdisjoint(_workers(server.process.pid))


def _workers(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}
