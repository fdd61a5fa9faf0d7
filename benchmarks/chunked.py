"""Chunked rows: filtered data decoded by the server, or by the client, against local h5py reading the same file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from benchmarks.ceilings import ceiling
from benchmarks.crew import Crew
from benchmarks.reading import LocalRead, RawRead, RemoteRead
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Row, ratio_at_least
from ndstream.core.model import Filter
from ndstream.stores.hdf5.decode import pipeline
from ndstream.wire.buffers import BufferPool, Scratch

ROUNDS = 5
THREADS = 2
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
    with ceiling("raw") as port, site.server() as server:
        for name, case in CASES.items():
            # Over hdfstream the server decodes; over its own protocol our client asks for chunks as they are stored.
            ways = ((f"{server.url}/hdfstream", "decoded", case.decoded), (server.url, "passed through", case.through))
            for url, how, budget in ways:
                with Crew([RemoteRead(url, path.name, name, path)]) as ours, Crew([LocalRead(path, name)]) as local:
                    yield _row(f"{name}, {how}", {"ours": ours, "limit": local}, budget)
            with Crew([BareDecode(path, name)]) as bare, Crew([LocalRead(path, name)]) as local:
                yield _row(f"{name}, bare decoding", {"ours": bare, "limit": local})
        with Crew([RemoteRead(server.url, path.name, PLAIN, path)]) as ours, Crew([RawRead(port, TOTAL)]) as raw:
            yield _row(PLAIN, {"ours": ours, "limit": raw}, 0.7)


@dataclass
class BareDecode:
    """Decode the chunks of a dataset from memory into an array that is warm: no reader can be faster."""

    path: Path
    name: str
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Load the chunks, and decode them once."""
        with h5py.File(self.path) as file:
            dataset = file[self.name]
            filters = dataset.id.get_create_plist()
            stages = [filters.get_filter(number) for number in range(filters.get_nfilters())]
            made = tuple(Filter(id=code, name=name.decode(), options=options) for code, _, options, name in stages)
            chunks = [dataset.id.read_direct_chunk(at.chunk_offset)[1] for at in _chunks_of(dataset)]
            nbytes = dataset.nbytes // len(chunks)
        self._state = {
            "stored": [np.frombuffer(chunk, np.uint8) for chunk in chunks],
            "out": np.ones((len(chunks), nbytes), np.uint8),
            "pipeline": pipeline(made, nbytes),
            "threads": ThreadPoolExecutor(THREADS),
        }
        self.run()

    def run(self) -> None:
        """Decode."""
        list(self._state["threads"].map(self._share, range(THREADS)))

    def _share(self, first: int) -> None:
        take = Scratch(BufferPool(0)).take
        for number in range(first, len(self._state["stored"]), THREADS):
            self._state["pipeline"].decode(self._state["stored"][number], 0, self._state["out"][number], take)


def _chunks_of(dataset: h5py.Dataset) -> list[Any]:
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    return found


def _row(name: str, crews: dict[str, Crew], budget: float | None = None) -> Row:
    seconds = medians({key: crew.round for key, crew in crews.items()}, ROUNDS)
    speed = {key: TOTAL / taken / 1e9 for key, taken in seconds.items()}
    least = None if budget is None else ratio_at_least(budget)
    return Row(f"chunked, {name}", speed["ours"], "GB/s", speed["limit"], least)
