"""Chunked rows: filtered data decoded by the server, or by the client, against local h5py reading the same file."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from benchmarks.ceilings import ASKED, ceiling
from benchmarks.crew import Crew
from benchmarks.reading import LocalRead, RawRead, RemoteRead, local_rows
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Row, ratio_at_least
from ndstream.stores.hdf5.decode import pipeline
from ndstream.stores.hdf5.dtypes import type_of
from ndstream.stores.hdf5.layout import Chunked
from ndstream.stores.hdf5.locate import layout_of
from ndstream.wire.buffers import BufferPool, Scratch

ROUNDS = 5
THREADS = 2
TOGETHER = 6  # chunks that a thread of the bare reader decodes in one go
TOTAL = 128 << 20  # bytes of each dataset
SHAPE = {"<f4": (128, 512, 512), "<u2": (128, 1024, 512)}  # rows, and so chunks, of 1 MiB


@dataclass(frozen=True)
class Case:
    """A dataset, and how many times as fast as the limit it has to arrive: decoded by the server, or passed through."""

    dtype: str
    decoded: float
    through: float
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "gzip+shuffle float32": Case("<f4", 2.5, 3, {"compression": "gzip", "shuffle": True}),
    "gzip+shuffle uint16": Case("<u2", 3.5, 5, {"compression": "gzip", "shuffle": True}),
    "zstd+shuffle float32": Case("<f4", 1.3, 1.8, {"shuffle": True, **hdf5plugin.Zstd()}),
    "bitshuffle-lz4 uint16": Case("<u2", 0.8, 1.3, dict(hdf5plugin.Bitshuffle())),
}
PLAIN = "uncompressed 1 MiB"


def write(path: Path) -> None:
    """Write smooth floats and counted photons."""
    with h5py.File(path, "w") as file:
        for name, case in CASES.items():
            _dataset(file, name, case.dtype, case.options)
        _dataset(file, PLAIN, "<f4", {})


def _dataset(file: h5py.File, name: str, dtype: str, options: dict[str, Any]) -> None:
    shape = SHAPE[dtype]
    random = np.random.default_rng(1)
    values: NDArray[Any]
    if dtype == "<f4":
        values = np.cumsum(random.normal(size=(16, *shape[1:])), axis=2).round(2)
    else:
        values = random.poisson(2, size=(16, *shape[1:]))
    dataset = file.create_dataset(name, shape, dtype, chunks=(1, *shape[1:]), **options)
    for start in range(0, shape[0], 16):
        dataset[start : start + 16] = values


def chunked(site: Site) -> Iterator[Row]:
    """Read every dataset whole, with one client."""
    path = site.file("chunked.h5", write)
    with site.server() as server:
        for name, case in CASES.items():
            # Over hdfstream the server decodes; over its own protocol our client asks for chunks as they are stored.
            yield _row(f"{name}, decoded", _measured(f"{server.url}/hdfstream", path, name), case.decoded)
            stored = site.file(f"{name}.chunks", partial(_extract, path, name))
            with ceiling("raw", stored) as port, Crew([BareRead(port, path, name)]) as bare:
                seconds = _measured(server.url, path, name, bare=bare)
            yield _row(f"{name}, passed through", seconds, case.through)
            yield _row(f"{name}, passed through bare", seconds | {"ours": seconds["bare"]})
        with (
            ceiling("raw") as port,
            Crew([RemoteRead(server.url, path.name, PLAIN, path)]) as ours,
            Crew([RawRead(port, TOTAL)]) as raw,
        ):
            yield _row(PLAIN, medians({"ours": ours.round, "limit": raw.round}, ROUNDS), 0.7)


@dataclass
class BareRead:
    """Receive stored chunks from a bare socket and decode them in threads, into an array that is warm.

    What our client does, without HTTP, a file, an index, checks, or a server that looks anything up: how fast a reader
    can be on this machine.
    """

    port: int
    path: Path
    name: str
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Connect, read once, and compare with the file."""
        layout = _layout(self.path, self.name)
        sizes = layout.index.sizes.tolist()
        wanted = local_rows(self.path, self.name, None)
        out = np.ones((len(sizes), wanted.nbytes // len(sizes)), np.uint8)
        self._state = {
            "connection": socket.create_connection(("127.0.0.1", self.port)),
            "goes": [(first, sizes[first : first + TOGETHER]) for first in range(0, len(sizes), TOGETHER)],
            "buffers": [np.ones(TOGETHER * max(sizes), np.uint8) for _ in range(2 * THREADS)],
            "out": out,
            "pipeline": pipeline(layout.filters, out.shape[1]),
            "pool": BufferPool(64 << 20),
            "threads": ThreadPoolExecutor(THREADS),
        }
        self.run()
        if not np.array_equal(out.reshape(-1).view(wanted.dtype), wanted.reshape(-1)):
            raise ValueError(f"{self.name} came with other values")

    def run(self) -> None:
        """Ask, receive and decode."""
        connection, buffers = self._state["connection"], self._state["buffers"]
        nbytes = sum(sum(sizes) for _, sizes in self._state["goes"])
        connection.sendall(nbytes.to_bytes(ASKED, "big"))
        under_way: deque[Future[None]] = deque()
        for number, (first, sizes) in enumerate(self._state["goes"]):
            if len(under_way) == len(buffers):
                under_way.popleft().result()
            buffer = buffers[number % len(buffers)]
            if connection.recv_into(buffer, sum(sizes), socket.MSG_WAITALL) != sum(sizes):
                raise ConnectionError("the chunks ended too early")
            under_way.append(self._state["threads"].submit(self._decode, buffer, first, sizes))
        for each in under_way:
            each.result()

    def _decode(self, buffer: NDArray[np.uint8], first: int, sizes: list[int]) -> None:
        take = Scratch(self._state["pool"]).take
        start = 0
        for number, size in enumerate(sizes, first):
            self._state["pipeline"].decode(buffer[start : start + size], 0, self._state["out"][number], take)
            start += size


def _extract(path: Path, name: str, to: Path) -> None:
    """Write the stored chunks of a dataset, one behind the other."""
    index = _layout(path, name).index
    with path.open("rb") as file, to.open("wb") as stored:
        for offset, size in zip(index.offsets.tolist(), index.sizes.tolist(), strict=True):
            file.seek(offset)
            stored.write(file.read(size))


def _layout(path: Path, name: str) -> Chunked:
    with h5py.File(path) as file:
        dataset = file[name].id
        size = path.stat().st_size
        found = layout_of(dataset, type_of(dataset.get_type()), file_size=size, chunk_index=TOTAL)
    if not isinstance(found, Chunked):
        raise TypeError(f"{name} is not stored in chunks that we decode")
    return found


def _measured(url: str, path: Path, name: str, **others: Crew) -> dict[str, float]:
    """Seconds that our client takes, local h5py, and others."""
    with Crew([RemoteRead(url, path.name, name, path)]) as ours, Crew([LocalRead(path, name)]) as local:
        crews = {"ours": ours, "limit": local, **others}
        return medians({key: crew.round for key, crew in crews.items()}, ROUNDS)


def _row(name: str, seconds: dict[str, float], budget: float | None = None) -> Row:
    speed = {key: TOTAL / taken / 1e9 for key, taken in seconds.items()}
    least = None if budget is None else ratio_at_least(budget)
    return Row(f"chunked, {name}", speed["ours"], "GB/s", speed["limit"], least)
