"""Files whose owner died in the middle of a commit, and that are read next: nobody sees a part of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from itertools import count, cycle
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import pytest

from ndstream.core.limits import Limits
from ndstream.core.model import Group
from ndstream.core.ports import ANYBODY, Detail, Writing
from ndstream.errors import Busy, Conflict, Corrupt
from ndstream.stores.hdf5.disk import DiskFile
from ndstream.stores.hdf5.journal import JournaledFile, journal_path
from ndstream.stores.hdf5.recovery import Standing, standing
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.arrays import collect

from .conftest import until
from .crashing import Machine, PowerCut

T = TypeVar("T")

ROWS = 40
WRITABLE = Writing(durability="flush")

both = pytest.mark.parametrize("writing", [None, WRITABLE], ids=["read-only", "writable"])


def run(place: Path, work: Callable[[HDF5Store], Awaitable[T]], writing: Writing | None, **limits: float) -> T:
    async def whole() -> T:
        store = HDF5Store({"": place}, limits=Limits(**limits), writing=writing)  # type: ignore[arg-type]
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(whole())


def make(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=np.zeros((1, 100), "<i8"), chunks=(1, 100), maxshape=(None, 100))


def die(path: Path, calls: int = 2, *, torn: bool = True) -> bool:
    """Leave a commit of `ROWS` rows of ones decided, and so many of its calls carried out; False when all were."""
    machine = Machine(torn=torn)
    journaled = JournaledFile.open(path, disk=machine.file)
    with h5py.File(journaled, "r+") as file:
        file["rows"].resize(ROWS, axis=0)
        file["rows"][:] = 1
        file.create_group("made")
    journaled.stage()
    machine.last = machine.calls + calls
    try:
        journaled.apply()
    except PowerCut:
        return True
    finally:
        machine.kill()
    return False


async def describe(store: HDF5Store, name: str) -> None:
    root = await store.describe(name, "/", ANYBODY, Detail(depth=1))
    assert isinstance(root, Group)
    assert set(root.members) == {"rows", "made"}


async def read(store: HDF5Store, name: str) -> None:
    rows = await collect(await store.read(name, "/rows", ANYBODY, None))
    assert rows.shape == (ROWS, 100)
    assert (rows == 1).all()


async def read_stored(store: HDF5Store, name: str) -> None:
    reading = await store.stored(name, "/rows", ANYBODY, None)
    data = b"".join([bytes(piece) async for piece in reading.buffers()])
    assert (np.frombuffer(data, "<i8") == np.ones(ROWS * 100)).all()


async def download(store: HDF5Store, name: str) -> None:
    file, descriptor = await store.open(name, ANYBODY)
    with os.fdopen(descriptor, "rb") as opened, h5py.File(opened) as whole:
        assert file.size == os.fstat(descriptor).st_size
        assert (whole["rows"][:] == np.ones((ROWS, 100))).all()


@both
@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "within a call"])
def test_who_comes_next_sees_the_whole_commit(tmp_path: Path, writing: Writing | None, torn: bool) -> None:
    async def work(store: HDF5Store) -> None:
        ways = cycle((describe, read, read_stored, download))
        for calls in count():
            path = tmp_path / f"{calls}.h5"
            make(path)
            unfinished = die(path, calls, torn=torn)
            assert standing(path) is Standing.DEAD
            for _ in range(4):
                await next(ways)(store, path.name)
            if not unfinished:
                break
            next(ways)  # another one comes first with the next file
        assert calls > 3

    run(tmp_path, work, writing)
    assert all(standing(path) is Standing.NOBODY for path in tmp_path.glob("*.h5"))


def test_who_comes_at_the_same_time_waits(tmp_path: Path) -> None:
    make(tmp_path / "a.h5")
    die(tmp_path / "a.h5")

    async def work(store: HDF5Store) -> None:
        await asyncio.gather(*(way(store, "a.h5") for way in (describe, read, read_stored, download) * 4))

    run(tmp_path, work, WRITABLE)


@both
def test_a_link_to_a_file_that_was_left_finds_it_whole(tmp_path: Path, writing: Writing | None) -> None:
    make(tmp_path / "a.h5")
    die(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["rows"] = h5py.ExternalLink("a.h5", "/rows")

    run(tmp_path, lambda store: read(store, "b.h5"), writing)


def test_a_file_that_was_put_in_order_is_let_go_of(tmp_path: Path) -> None:
    make(tmp_path / "a.h5")
    die(tmp_path / "a.h5")

    async def work(store: HDF5Store) -> None:
        await read(store, "a.h5")
        await until(lambda: standing(tmp_path / "a.h5") is Standing.NOBODY)

    run(tmp_path, work, WRITABLE, writer_idle=0.01)


@both
def test_what_cannot_be_put_in_order_is_said(tmp_path: Path, writing: Writing | None) -> None:
    path = tmp_path / "a.h5"
    make(path)
    die(path, 0, torn=False)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"by somebody else")
    before = journal_path(path).read_bytes()

    async def work(store: HDF5Store) -> None:
        with pytest.raises(Conflict, match=r"changed by another program"):
            await read(store, "a.h5")

    run(tmp_path, work, writing)
    assert journal_path(path).read_bytes() == before


def test_a_file_in_the_middle_of_a_commit_of_somebody_else_is_busy_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    make(path)
    os.truncate(path, path.stat().st_size // 2)
    journal_path(path).touch()

    async def work(store: HDF5Store) -> None:
        journal = DiskFile.open(journal_path(path))
        assert journal.lock(shared=False)
        with pytest.raises(Busy, match="written by another process"):
            await read(store, "a.h5")
        journal.close()
        with pytest.raises(Corrupt):
            await read(store, "a.h5")

    run(tmp_path, work, None)
