"""Whole files, read past the HDF5 library while they are written: of one commit, or known not to be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from ndstream.core.operations import Operation, Write
from ndstream.core.ports import ANYBODY, Opened, Writing
from ndstream.errors import NotFound, Replaced
from ndstream.stores.hdf5.owned import Owned
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.payloads import WRITER, dataset, payload

from .conftest import until


@contextmanager
def closing(opened: Opened) -> Iterator[Opened]:
    try:
        yield opened
    finally:
        os.close(opened.descriptor)


def run(place: Path, work: Callable[[HDF5Store], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = HDF5Store({"": place}, writing=Writing(durability="flush"))
        try:
            await store.apply("a.h5", WRITER, [dataset("/x", np.zeros(1000, "<i4"))], create=True)
            await work(store)
        finally:
            await store.aclose()

    asyncio.run(whole())


def owned(store: HDF5Store, path: Path) -> Owned:
    assert store._owners is not None
    found = store._owners.get(str(path))
    assert found is not None
    return found


def change(number: int) -> list[Operation]:
    return [Write(name="/x", data=payload(number, "<i4"))]


def check_content(opened: Opened, value: int) -> None:
    with os.fdopen(os.dup(opened.descriptor), "rb") as content, h5py.File(content) as file:
        assert (file["x"][:] == value).all()


def test_a_commit_is_noticed_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        with closing(await store.open("a.h5", ANYBODY)) as opened:
            before = os.fstat(opened.descriptor)
            await opened.check()
            await store.apply("a.h5", WRITER, change(1))
            os.utime(opened.descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert os.fstat(opened.descriptor).st_size == before.st_size
            with pytest.raises(Replaced):
                await opened.check()

    run(tmp_path, work)


def test_what_is_written_before_a_commit_and_refused_changes_nothing(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        with closing(await store.open("a.h5", ANYBODY)) as opened:
            large = dataset("/large", np.ones(1 << 20, "u1"))
            with pytest.raises(NotFound):
                await store.apply("a.h5", WRITER, [large, Write(name="/nowhere", data=payload(1, "<i4"))])
            await opened.check()
            check_content(opened, 0)

    run(tmp_path, work)


def test_a_file_is_opened_before_or_after_a_commit_is_put_in_place(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        gate = owned(store, tmp_path / "a.h5").gate
        gate.visited = False
        gate.shut()
        opening = asyncio.create_task(store.open("a.h5", ANYBODY))
        await until(lambda: gate.visited or opening.done())
        assert not opening.done()
        gate.open()
        with closing(await opening) as opened:
            gate.visited = False
            gate.shut()
            checking = asyncio.ensure_future(opened.check())
            await until(lambda: gate.visited)
            assert not checking.done()
            gate.open()
            await checking

    run(tmp_path, work)


def test_a_file_that_is_let_go_of_meanwhile_is_still_the_same(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        with closing(await store.open("a.h5", ANYBODY)) as opened:
            await store.release("a.h5", ANYBODY)
            await opened.check()
            check_content(opened, 0)
            with h5py.File(tmp_path / "a.h5", "r+") as file:
                file["x"][:] = 1
            with pytest.raises(Replaced):
                await opened.check()

    run(tmp_path, work)


def test_a_file_that_is_taken_meanwhile_is_the_same_until_the_first_commit(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.release("a.h5", ANYBODY)
        with closing(await store.open("a.h5", ANYBODY)) as opened:
            await store.hold("a.h5", ANYBODY)
            await opened.check()
            await store.apply("a.h5", WRITER, change(1))
            with pytest.raises(Replaced):
                await opened.check()

    run(tmp_path, work)
