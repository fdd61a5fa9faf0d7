"""Long proofs: memory that stays bounded, the longest request, and thousands of damaged files."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import h5py
import msgspec
import numpy as np

from benchmarks.load import answer_length
from benchmarks.machine import forget_peak, memory, peak_memory
from benchmarks.served import Site
from benchmarks.table import Row, at_most
from ndstream.testing.damage import damaged
from ndstream.testing.fixtures import LocalServer
from ndstream.testing.sample import write_sample
from ndstream.wire.integers import write_integers

MiB = 1 << 20
CLIENTS = 8
ROWS = 4096  # of 1 MiB
SLICES = 1 << 24
DAMAGED = 400  # copies of each of two files
OBJECTS = ("/", "/types", "/attributes", "/filters/gzip_shuffle_fletcher32", "/layouts/sparse", "/links")


def write_sparse(path: Path) -> None:
    """Write 4 GiB of zeros that take no room on the disk."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"data", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((ROWS, MiB // 4)), plist)


def write_deflated(path: Path) -> None:
    """Write 4 GiB that are well compressed."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (ROWS, MiB // 4), "<i4", chunks=(1, MiB // 4), compression="gzip")
        data[0] = np.arange(MiB // 4) % 100
        _, stored = data.id.read_direct_chunk((0, 0))
        for row in range(1, ROWS):
            data.id.write_direct_chunk((row, 0), stored)


def write_numbers(path: Path) -> None:
    """Write numbers, every other one of which is a slice."""
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(2 * SLICES, dtype="<i4")


def bounded(site: Site) -> Iterator[Row]:
    """Read 4 GiB with 8 clients at once, and 16 million slices with one."""
    yield from _at_once(site, "contiguous", write_sparse)
    yield from _at_once(site, "gzip", write_deflated)
    path = site.file("numbers.h5", write_numbers)
    starts = np.arange(0, 2 * SLICES, 2, dtype=np.int64)
    body = b"\x82\xa6object\xa4data\xa5slice\x91\x92" + write_integers(starts) + b"\x01"
    with site.server() as server:
        grown, seconds = _watched(server, lambda: _drain(server.port, path.name, body))
    yield Row(f"{SLICES:,} slices in one request", seconds, "s")
    yield Row(f"{SLICES:,} slices in one request: over idle", grown, "MiB")


def _at_once(site: Site, layout: str, write: Callable[[Path], None]) -> Iterator[Row]:
    path = site.file(f"{layout}.h5", write)
    body = msgspec.msgpack.encode({"object": "data", "slice": [[0, ROWS], [0, MiB // 4]]})
    with site.server() as server, ThreadPoolExecutor(CLIENTS) as threads:

        def work() -> None:
            list(threads.map(lambda _: _drain(server.port, path.name, body), range(CLIENTS)))

        grown, seconds = _watched(server, work)
    path.unlink()
    title = f"memory, {CLIENTS} × {ROWS // 1024} GiB {layout} at once"
    yield Row(f"{title}: over idle", grown, "MiB", None, at_most(256))
    yield Row(f"{title}: speed", CLIENTS * ROWS * MiB / seconds / 1e9, "GB/s")


def _watched(server: LocalServer, work: Callable[[], object]) -> tuple[float, float]:
    """MiB by which the memory of the server grew at most, and seconds, while `work` was done."""
    pid = server.process.pid
    idle = memory(pid)
    forget_peak(pid)
    begin = time.perf_counter()
    work()
    return (peak_memory(pid) - idle) / MiB, time.perf_counter() - begin


def _drain(port: int, name: str, body: bytes) -> None:
    """Ask, and receive all of the answer.

    Raises
    ------
    ConnectionError
        It ended too early.
    """
    scratch = bytearray(4 * MiB)
    with _asked(port, name, body) as connection:
        head = b""
        while not (length := answer_length(head)):
            head += connection.recv(1 << 16)
        left = length - len(head)
        while left:
            count = connection.recv_into(scratch)
            if not count:
                raise ConnectionError(f"{name}: {left} bytes are missing")
            left -= count


def _asked(port: int, name: str, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    head = (
        f"POST /hdfstream/msgpack/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-msgpack\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def corruption(site: Site) -> Iterator[Row]:
    """Ask for objects of damaged files, and every now and then for a good one."""
    directory = site.directory / "damaged"
    directory.mkdir()
    formats = ("earliest", "latest")
    contents = [write_sample(directory / f"{libver}.h5", libver=libver).read_bytes() for libver in formats]
    path = directory / "damaged.h5"
    refused = asked = wrong = 0
    begin = time.perf_counter()
    with site.server() as server:
        for number, copy in enumerate(copy for content in contents for copy in damaged(content, DAMAGED, seed=11)):
            path.write_bytes(copy)
            for name in OBJECTS:
                asked += 1
                refused += b" 200 OK" not in _answer(server.port, "damaged/damaged.h5", name)
            if number % 50 == 0:
                wrong += b" 200 OK" not in _answer(server.port, "damaged/earliest.h5", "/types")
        died = server.process.poll() is not None
        last = _answer(server.port, "damaged/earliest.h5", "/")
    shutil.rmtree(directory)
    seconds = time.perf_counter() - begin
    yield Row(f"corruption, {asked:,} requests for damaged files: refused", refused, "")
    wrong += b" 200 OK" not in last
    yield Row("corruption: requests for a good file that failed", wrong, "", None, at_most(0))
    yield Row("corruption: deaths of the server", died, "", None, at_most(0))
    yield Row("corruption: each request", seconds / asked * 1e3, "ms")


def _answer(port: int, file: str, name: str) -> bytes:
    """All that comes, up to a cut connection."""
    body = msgspec.msgpack.encode({"object": name, "max_depth": 5, "data_size_limit": MiB})
    answer = b""
    with closing(_asked(port, file, body)) as connection, suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer
