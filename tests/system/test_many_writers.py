"""Fifty clients, in three processes, append to one dataset at once, while others read it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import ndstream
from ndstream.client import connections
from ndstream.testing.fixtures import ServerFactory

PROCESSES, THREADS, TASKS = 2, 16, 18
CLIENTS = PROCESSES * THREADS + TASKS
TURNS = 5
ROWS = 3  # of each append

PROCESS = """
import sys, threading
import numpy as np
import ndstream

url, first, threads, turns = sys.argv[1], *map(int, sys.argv[2:])

def client(number):
    file = ndstream.open(url, "f.h5", mode="r+")
    rows, last = file["rows"], file["last"]
    for turn in range(turns):
        with file.transaction():
            rows.append(np.full((3, 2), [number, turn]))
            last[number] = turn

working = [threading.Thread(target=client, args=(first + n,)) for n in range(threads)]
for thread in working:
    thread.start()
for thread in working:
    thread.join()
"""


def check(rows: NDArray[Any]) -> None:
    """Appends are there as wholes, and those of each client in their order."""
    assert len(rows) % ROWS == 0
    appends = rows.reshape(-1, ROWS, 2)
    assert (appends == appends[:, :1]).all()
    clients, turns = appends[np.argsort(appends[:, 0, 0], kind="stable"), 0].T
    same = clients[1:] == clients[:-1]
    np.testing.assert_array_equal(turns[1:], np.where(same, turns[:-1] + 1, 0))
    assert not len(turns) or turns[0] == 0


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Read all the time."""
    stop = threading.Event()

    def read() -> int:
        length = 0
        while not stop.is_set():
            rows = ndstream.open(url, "f.h5")["rows"][...]
            check(rows)
            assert len(rows) >= length
            length = len(rows)
        return length

    with ThreadPoolExecutor(1) as reader:
        found = reader.submit(read)
        try:
            yield
        finally:
            stop.set()
    connections.forget()
    found.result()


async def tasks(url: str, first: int) -> list[int]:
    """Append from tasks, each with a connection of its own; where it landed."""

    async def client(number: int) -> list[int]:
        async with ndstream.aopen(url, "f.h5", mode="r+") as file:
            rows = await file["rows"]
            last = await file["last"]
            landed = []
            for turn in range(TURNS):
                landed.append(await rows.append(np.full((ROWS, 2), [number, turn])))
                await last.write(number, turn)
            return landed

    found = await asyncio.gather(*[client(first + number) for number in range(TASKS)])
    return [start for each in found for start in each]


def test_nothing_is_lost_halved_or_out_of_order(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    server = ndstream_server(tmp_path, writable={"/": []}, limits={"requests_per_user": 0})
    with ndstream.open(server.url, "f.h5", mode="x") as file:
        file.create_dataset("rows", (0, 2), "<i4", maxshape=(None, 2), chunks=(64, 2), compression="gzip")
        file.create_dataset("last", (CLIENTS,), "<i4")
    command = [sys.executable, "-c", PROCESS, server.url]
    with reading(server.url):
        processes = [
            subprocess.Popen([*command, str(number * THREADS), str(THREADS), str(TURNS)]) for number in range(PROCESSES)
        ]
        try:
            landed = asyncio.run(tasks(server.url, PROCESSES * THREADS))
        finally:
            ended = [process.wait(120) for process in processes]
    assert ended == [0] * PROCESSES
    server.stop()
    with h5py.File(tmp_path / "f.h5") as file:
        rows = file["rows"][...]
        assert file["last"][...].tolist() == [TURNS - 1] * CLIENTS
    check(rows)
    assert len(rows) == CLIENTS * TURNS * ROWS
    assert len(set(landed)) == TASKS * TURNS
    assert all(rows[start, 0] >= PROCESSES * THREADS for start in landed)
