"""Files that another program writes in SWMR mode are served as they are now, and followed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from ndstream.core.operations import CreateGroup
from ndstream.core.ports import ANYBODY, Writing
from ndstream.errors import FileInUse
from ndstream.stores.hdf5.journal import JournaledFile
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.arrays import collect
from ndstream.testing.payloads import WRITER as MAY_WRITE

WRITER = """
import sys, h5py, numpy as np
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    rows = file.create_dataset("rows", (0, 100), "<i8", maxshape=(None, 100), chunks=(4, 100))
    file.swmr_mode = True
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line)
        rows.resize(rows.shape[0] + count, axis=0)
        rows[-count:] = np.arange(rows.shape[0] - count, rows.shape[0])[:, None]
        rows.flush()
        print(rows.shape[0], flush=True)
"""


class Writer:
    """A program that writes a file in SWMR mode, told how many rows to add."""

    def __init__(self, path: Path, script: str = WRITER) -> None:
        command = [sys.executable, "-c", script, str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def add(self, count: int) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return int(self.answer())


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "a.h5")
    yield writer
    writer.process.communicate()


def test_what_was_flushed_is_read(tmp_path: Path, writer: Writer) -> None:
    async def work() -> None:
        store = HDF5Store({"": tmp_path})
        for count in (3, 10, 1, 200):
            total = await asyncio.to_thread(writer.add, count)
            rows = await collect(await store.read("a.h5", "/rows", ANYBODY, None))
            assert np.array_equal(rows, np.repeat(np.arange(total)[:, None], 100, axis=1))
        await store.aclose()

    asyncio.run(work())


def test_reading_goes_on_while_rows_are_added(tmp_path: Path, writer: Writer) -> None:
    async def work() -> None:
        store = HDF5Store({"": tmp_path})
        adding = asyncio.get_running_loop().run_in_executor(None, lambda: [writer.add(7) for _ in range(100)])
        reads = 0
        while not adding.done():
            rows = await collect(await store.read("a.h5", "/rows", ANYBODY, None))
            assert np.array_equal(rows, np.repeat(np.arange(len(rows))[:, None], 100, axis=1))
            reads += 1
        await adding
        assert reads
        assert (await collect(await store.read("a.h5", "/rows", ANYBODY, None))).shape == (700, 100)
        await store.aclose()

    asyncio.run(work())


def test_those_who_follow_hear_that_it_grew(tmp_path: Path, writer: Writer) -> None:
    async def work() -> None:
        store = HDF5Store({"": tmp_path}, writing=Writing())
        events = store.follow("a.h5", ANYBODY)
        assert isinstance(events, AsyncGenerator)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)  # it has looked at the file once
        await asyncio.to_thread(writer.add, 5)
        event = await asyncio.wait_for(waiting, 20)
        assert (event.number, event.complete) == (1, False)
        await events.aclose()
        await store.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("userblock", [0, 1024])
def test_a_file_that_is_written_in_swmr_mode_is_not_written_by_us(tmp_path: Path, userblock: int) -> None:
    script = WRITER.replace('libver="latest"', f'libver="latest", userblock_size={userblock}')
    writer = Writer(tmp_path / "a.h5", script)

    async def work() -> None:
        store = HDF5Store({"": tmp_path}, writing=Writing(durability="flush"))
        try:
            for _ in range(2):
                with pytest.raises(FileInUse, match="h5clear -s"):
                    await store.apply("a.h5", MAY_WRITE, [CreateGroup(name="/g")])
                with pytest.raises(FileInUse):
                    await store.hold("a.h5", ANYBODY)
                await asyncio.to_thread(writer.add, 3)
            await asyncio.to_thread(writer.process.communicate)
            await store.apply("a.h5", MAY_WRITE, [CreateGroup(name="/g")])
        finally:
            await store.aclose()

    asyncio.run(work())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        assert sorted(file) == ["g", "rows"]
        assert file["rows"].shape == (6, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_what_we_leave_in_a_crash_does_not_say_that_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = [1, 2]
    script = (
        "import os, sys, h5py; from pathlib import Path; from ndstream.stores.hdf5.journal import JournaledFile\n"
        "disk = JournaledFile.open(Path(sys.argv[1])); file = h5py.File(disk, 'r+', libver='latest')\n"
        "for name in 'ab': file[name] = 1; file.flush(); disk.commit()\n"
        "file['c'] = 1; file.flush(); disk.stage(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    with h5py.File(shutil.copy(path, tmp_path / "b.h5"), "r+") as file:
        assert sorted(file) == ["a", "b", "x"]
    with JournaledFile.open(path) as disk, h5py.File(disk, "r+") as file:
        assert sorted(file) == ["a", "b", "c", "x"]
