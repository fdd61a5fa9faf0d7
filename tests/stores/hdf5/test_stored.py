"""Chunks as they are stored: all that a selection touches, and nothing else, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ndstream.core.limits import Limits
from ndstream.core.operations import Append, Write
from ndstream.core.ports import ANYBODY, StoredChunks, Writing
from ndstream.core.selection import select
from ndstream.errors import Replaced, UnsupportedDType
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.payloads import WRITER, payload


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        values = np.arange(50 * 60, dtype="<i4").reshape(50, 60)
        file.create_dataset("x", data=values, chunks=(8, 16), maxshape=(None, 60), compression="gzip", shuffle=True)
        file["plain"] = values
        file.create_dataset("empty", (50, 60), "<i4", chunks=(8, 16))
    return tmp_path


def run(place: Path, work: Callable[[HDF5Store], Awaitable[None]], **limits: Any) -> None:
    async def whole() -> None:
        store = HDF5Store({"": place}, limits=Limits(**limits), writing=Writing(durability="flush"))
        try:
            await work(store)
        finally:
            await store.aclose()

    asyncio.run(whole())


@pytest.mark.parametrize(
    "key", [(), (3, 4), (slice(None, None, 20),), ([49, 1, 1],), ([1, 40], [2, 50]), (slice(0, 0),), (slice(8, 17), 5)]
)
def test_every_chunk_that_is_touched_comes_as_it_is_in_the_file(place: Path, key: Any) -> None:
    async def work(store: HDF5Store) -> None:
        assert isinstance(store, StoredChunks)
        selection = select(key, (50, 60))
        reading = await store.stored("a.h5", "/x", ANYBODY, selection)
        data = b"".join([bytes(buffer) async for buffer in reading.buffers()])
        parts = {part.chunk for part in selection.over((8, 16))}
        expected, sizes = [], []
        with h5py.File(place / "a.h5") as file:
            for chunk in sorted(parts):
                _, stored = file["x"].id.read_direct_chunk((chunk[0] * 8, chunk[1] * 16))
                expected.append(stored)
                sizes.append((chunk[0] * 4 + chunk[1], len(stored), 0))
        assert reading.index.tolist() == [list(row) for row in sizes]
        assert reading.nbytes == len(data)
        assert data == b"".join(expected)
        assert reading.dataset.chunks == (8, 16)

    run(place, work, piece=100)


def test_chunks_that_were_never_written_are_not_there(place: Path) -> None:
    async def work(store: HDF5Store) -> None:
        reading = await store.stored("a.h5", "/empty", ANYBODY, None)
        assert (reading.nbytes, reading.index.shape) == (0, (0, 3))

    run(place, work)


def test_what_has_no_chunks_is_refused(place: Path) -> None:
    async def work(store: HDF5Store) -> None:
        with pytest.raises(UnsupportedDType):
            await store.stored("a.h5", "/plain", ANYBODY, None)

    run(place, work)


def test_chunks_are_those_of_one_commit(place: Path) -> None:
    async def work(store: HDF5Store) -> None:
        row = payload(np.zeros((1, 60), "<i4"))
        await store.apply("a.h5", WRITER, [Append(name="/x", data=row)])
        first = select((slice(0, 48),), (51, 60))
        reading = await store.stored("a.h5", "/x", ANYBODY, first)
        parts = []
        async for buffer in reading.buffers():
            parts.append(bytes(buffer))
            await store.apply("a.h5", WRITER, [Append(name="/x", data=row)])
        assert sum(map(len, parts)) == reading.nbytes
        reading = await store.stored("a.h5", "/x", ANYBODY, None)
        with pytest.raises(Replaced):
            async for _ in reading.buffers():
                await store.apply("a.h5", WRITER, [Write(name="/x", data=payload(1, "<i4"))])

    run(place, work, piece=100, request_memory=400, reader_patience=0.05)


@pytest.mark.parametrize(("axis", "filtered"), [(0, True), (1, True), (0, False)])
def test_a_chunk_that_is_written_again_in_its_place_is_no_mixture(place: Path, axis: int, filtered: bool) -> None:
    side = 100
    values = np.ones((side, side), "u1")
    with h5py.File(place / "b.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(128, 128), maxshape=(None, None), fletcher32=filtered)

    async def work(store: HDF5Store) -> None:
        row = payload(np.full((1, side) if axis == 0 else (side, 1), 2, "u1"))
        await store.hold("b.h5", WRITER)
        reading = await store.stored("b.h5", "/x", ANYBODY, None)
        assert reading.nbytes == 128 * 128 + 4 * filtered
        parts = reading.buffers()
        got = [bytes(await anext(parts))]
        await store.apply("b.h5", WRITER, [Append(name="/x", data=row, axis=axis)])
        try:
            got += [bytes(buffer) async for buffer in parts]
        except Replaced:
            assert filtered
        else:
            assert not filtered
            chunk = np.frombuffer(b"".join(got), "u1").reshape(128, 128)
            assert np.array_equal(chunk[:side, :side], values)

    run(place, work, piece=1 << 10, request_memory=1 << 12)
