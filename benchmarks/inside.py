"""Rows of the reader by itself, in one process: what it reaches before anything is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from benchmarks.rounds import medians, timed
from benchmarks.served import Site
from benchmarks.table import Row, at_most, ratio_at_least
from ndstream.core.limits import Limits
from ndstream.core.model import Dataset
from ndstream.core.selection import Selection, everything, ranges, select
from ndstream.stores.hdf5.dtypes import type_of
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.layout import Contiguous
from ndstream.stores.hdf5.locate import layout_of
from ndstream.stores.hdf5.messages import Located
from ndstream.stores.hdf5.reader import Reader

ROUNDS = 5
RANGES = 100_000
CHUNKS = 8192
SMALL = 2000

# Dataset to how many times as fast as h5py it has to be decoded, here without a wire.
FILTERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "gzip + shuffle, float32": ("<f4", {"compression": "gzip", "shuffle": True}, 2.5),
    "gzip + shuffle, uint16": ("<u2", {"compression": "gzip", "shuffle": True}, 3.5),
    "zstd + shuffle, float32": ("<f4", {"shuffle": True, **hdf5plugin.Zstd()}, 1.3),
    "bitshuffle-lz4, uint16": ("<u2", dict(hdf5plugin.Bitshuffle()), 0.8),
    "uncompressed chunks, float32": ("<f4", {}, 0.7),
}


def write(path: Path) -> None:
    """Write smooth floats and counted photons, 64 MiB of each, in chunks of 1 MiB, and 400 MB without chunks."""
    random = np.random.default_rng(1)
    walk = np.cumsum(random.normal(size=(64, 512, 512)), axis=2).round(2).astype("<f4")
    counts = random.poisson(20, size=(64, 1024, 512)).astype("<u2")
    with h5py.File(path, "w") as file:
        for name, (dtype, options, _) in FILTERS.items():
            values = walk if dtype == "<f4" else counts
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), **options)
        file["rows"] = np.resize(walk, (RANGES, 1024))
        many = file.create_dataset("many chunks", (CHUNKS, 64), "<f4", chunks=(1, 64), compression="gzip")
        many[...] = 1


def inside(site: Site) -> Iterator[Row]:
    """Decode, gather and index."""
    path = site.file("inside.h5", write)
    with asyncio.Runner() as runner, h5py.File(path) as file:
        reader = Reader(Limits(), threads=2)
        run = runner.run
        try:
            for name, (_, _, budget) in FILTERS.items():
                yield _decoding(run, reader, file[name], budget)
            yield from _gathering(run, reader, file["rows"], path)
            yield _small(run, reader, file["rows"])
            yield _indexing(file["many chunks"])
        finally:
            run(reader.aclose())


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def _located(dataset: h5py.Dataset) -> Located:
    status = Path(dataset.file.filename).stat()
    dtype = type_of(dataset.id.get_type())
    layout = layout_of(dataset.id, dtype, file_size=status.st_size, chunk_index=1 << 20)
    return Located(
        dataset=Dataset(dtype=dtype, shape=dataset.shape, maxshape=dataset.maxshape, attributes={}),
        layout=layout,
        file=dataset.file.filename,
        generation=generation_of(status),
    )


async def _no_fetch(*_: Any) -> bytes:
    raise NotImplementedError("these datasets are not read through the library")


async def _read(reader: Reader, located: Located, selection: Selection) -> int:
    reading = await reader.open(located, selection, _no_fetch)
    return sum([len(buffer) async for buffer in reading.buffers()])


def _decoding(run: Run, reader: Reader, dataset: h5py.Dataset, budget: float) -> Row:
    located, selection = _located(dataset), everything(dataset.shape)
    warm = np.ones(dataset.shape, dataset.dtype)
    turns = {
        "ours": timed(lambda: run(_read(reader, located, selection))),
        "h5py": timed(lambda: dataset.read_direct(warm)),
    }
    seconds = medians(turns, ROUNDS)
    speed = {name: dataset.nbytes / taken / 1e9 for name, taken in seconds.items()}
    name = f"reader: {dataset.name.lstrip('/')}"
    return Row(name, speed["ours"], "GB/s", speed["h5py"], ratio_at_least(budget))


def _gathering(run: Run, reader: Reader, dataset: h5py.Dataset, path: Path) -> Iterator[Row]:
    located = _located(dataset)
    assert isinstance(located.layout, Contiguous)
    assert located.layout.offset is not None
    mapped = np.memmap(path, dataset.dtype, "r", located.layout.offset, dataset.shape)
    warm = np.ones((RANGES, dataset.shape[1]), dataset.dtype)
    rows = np.random.default_rng(2).integers(0, dataset.shape[0], RANGES)
    for order, starts in (("random", rows), ("ascending", np.sort(rows))):
        selection = ranges(dataset.shape, starts, np.ones(RANGES, np.int64), ((0, dataset.shape[1]),))

        def ours(selection: Selection = selection) -> None:
            run(_read(reader, located, selection))

        def local(starts: Any = starts) -> None:
            np.take(mapped, starts, axis=0, out=warm, mode="clip")

        seconds = medians({"ours": timed(ours), "numpy": timed(local)}, ROUNDS)
        speed = {name: warm.nbytes / taken / 1e9 for name, taken in seconds.items()}
        yield Row(f"reader: 100,000 ranges, {order}", speed["ours"], "GB/s", speed["numpy"], ratio_at_least(0.3))


def _small(run: Run, reader: Reader, dataset: h5py.Dataset) -> Row:
    located = _located(dataset)

    async def work() -> float:
        begin = time.perf_counter()
        for row in range(SMALL):
            reading = await reader.open(located, select(row, dataset.shape), _no_fetch)
            assert reading.ready is not None
        return (time.perf_counter() - begin) / SMALL * 1e6

    run(work())
    return Row("reader: 4 KB, contiguous", run(work()), "µs", None, at_most(50))


def _indexing(dataset: h5py.Dataset) -> Row:
    seconds = medians({"ours": timed(lambda: _located(dataset))}, ROUNDS)
    return Row("chunk index of 8,192 chunks", seconds["ours"] * 1e3, "ms", None, at_most(50))
