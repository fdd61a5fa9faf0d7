"""Files whose owner died in the middle of a commit, and that are read next: nobody sees a part of it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from itertools import count, cycle
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import pytest

from ndstream.core.limits import Limits
from ndstream.core.model import Group
from ndstream.core.operations import Append, Operation
from ndstream.core.ports import ANYBODY, Detail, Writing
from ndstream.errors import Busy, Conflict, Corrupt
from ndstream.stores.hdf5 import recovery
from ndstream.stores.hdf5.disk import DiskFile
from ndstream.stores.hdf5.journal import JournaledFile, journal_path
from ndstream.stores.hdf5.recovery import Standing, standing
from ndstream.stores.hdf5.replay import replay
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.arrays import collect
from ndstream.testing.payloads import WRITER, payload, table

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
    opened = await store.open(name, ANYBODY)
    with os.fdopen(opened.descriptor, "rb") as content, h5py.File(content) as whole:
        assert opened.file.size == os.fstat(opened.descriptor).st_size
        assert (whole["rows"][:] == np.ones((ROWS, 100))).all()
        await opened.check()


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


def test_who_comes_meanwhile_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a.h5")
    die(tmp_path / "a.h5")
    make(tmp_path / "other.h5")
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> int:
        begun.set()
        assert go_on.wait(60)
        return replay(*arguments)

    monkeypatch.setattr(recovery, "replay", slowly)

    async def work(store: HDF5Store) -> None:
        first = asyncio.create_task(read(store, "a.h5"))
        await until(begun.is_set)
        others = [asyncio.create_task(way(store, "a.h5")) for way in (describe, read, read_stored, download)]
        await store.describe("other.h5", "/", ANYBODY, Detail())  # by then they had been answered
        assert not any(task.done() for task in others)
        first.cancel()
        go_on.set()
        await asyncio.gather(*others)

    run(tmp_path, work, None)


def leave_with_key(path: Path) -> None:
    """Leave a file of a batch that was committed under the key "once"."""
    batch: list[Operation] = [table("/rows", "<i8"), Append(name="/rows", data=payload([1], "<i8"))]

    async def work(store: HDF5Store) -> None:
        await store.apply(path.name, WRITER, batch, create=True, key="once")
        assert store._owners is not None
        owned = store._owners.get(str(path))
        assert owned is not None
        tenure = owned._tenure
        assert tenure is not None
        tenure._process.hang_up()  # as the kernel does for a server that dies: without a word
        await tenure._gone.wait()

    run(path.parent, work, WRITABLE)
    assert standing(path) is Standing.DEAD


async def is_repeated(store: HDF5Store, name: str) -> bool:
    """Whether the batch is known when it comes again."""
    again: list[Operation] = [Append(name="/rows", data=payload([1], "<i8"))]
    return (await store.apply(name, WRITER, again, key="once")).repeated


def test_who_reads_through_a_link_leaves_the_keys(tmp_path: Path) -> None:
    leave_with_key(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["rows"] = h5py.ExternalLink("a.h5", "/rows")

    async def work(store: HDF5Store) -> None:
        assert (await collect(await store.read("b.h5", "/rows", ANYBODY, None))).tolist() == [1]
        assert await is_repeated(store, "a.h5")

    run(tmp_path, work, WRITABLE)


def test_who_gives_up_while_a_file_is_put_in_order_leaves_the_keys(tmp_path: Path) -> None:
    leave_with_key(tmp_path / "a.h5")

    async def work(store: HDF5Store) -> None:
        reading = asyncio.create_task(store.read("a.h5", "/rows", ANYBODY, None))
        await until(lambda: bool(store._mending))
        reading.cancel()
        assert await is_repeated(store, "a.h5")

    run(tmp_path, work, WRITABLE)


def test_keys_outlive_a_second_crash(tmp_path: Path) -> None:
    leave_with_key(tmp_path / "a.h5")

    async def work(store: HDF5Store) -> None:
        assert (await collect(await store.read("a.h5", "/rows", ANYBODY, None))).tolist() == [1]
        assert store._owners is not None
        owned = store._owners.get(str(tmp_path / "a.h5"))
        assert owned is not None
        tenure = owned._tenure
        assert tenure is not None
        tenure._process.hang_up()
        await tenure._gone.wait()

    run(tmp_path, work, WRITABLE)
    run(tmp_path, lambda store: is_repeated(store, "a.h5"), WRITABLE)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["rows"][:].tolist() == [1]


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


@both
def test_a_file_that_another_program_writes_is_read_as_it_is(tmp_path: Path, writing: Writing | None) -> None:
    path = tmp_path / "a.h5"
    make(path)
    die(path, 0, torn=False)
    before = journal_path(path).read_bytes()

    async def work(store: HDF5Store) -> None:
        with h5py.File(path, "r+"):
            assert (await collect(await store.read("a.h5", "/rows", ANYBODY, None))).shape == (1, 100)

    run(tmp_path, work, writing)
    assert journal_path(path).read_bytes() == before


def test_what_only_looks_like_a_journal_is_left_alone(tmp_path: Path) -> None:
    long = tmp_path / f"{'x' * 250}.h5"
    begun = tmp_path / "begun.h5"
    piped = tmp_path / "piped.h5"
    for path in (long, begun, piped):
        make(path)
    journal_path(begun).touch()  # somebody is about to write
    os.mkfifo(journal_path(piped))

    async def work(store: HDF5Store) -> None:
        for path in (long, begun, piped):
            assert standing(path) is Standing.NOBODY
            assert (await collect(await store.read(path.name, "/rows", ANYBODY, None))).shape == (1, 100)

    run(tmp_path, work, None)
    assert journal_path(begun).exists()
    assert journal_path(piped).exists()


def test_a_file_in_the_middle_of_a_commit_of_somebody_else_is_busy_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    make(path)
    os.truncate(path, path.stat().st_size // 2)
    journal_path(path).write_bytes(b"begun")

    async def work(store: HDF5Store) -> None:
        journal = DiskFile.open(journal_path(path))
        assert journal.lock(shared=False)
        with pytest.raises(Busy, match="written by another process"):
            await read(store, "a.h5")
        journal.close()
        with pytest.raises(Corrupt):
            await read(store, "a.h5")

    run(tmp_path, work, None)
