"""A damaged file costs its own requests a typed error, and nobody anything else."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ndstream.core import model
from ndstream.core.counters import Counters
from ndstream.core.dtypes import is_fixed
from ndstream.core.limits import Limits, MiB
from ndstream.core.ports import ANYBODY, Detail
from ndstream.errors import Corrupt, DataError, NDStreamError, Quarantined, Replaced, TimedOut, WorkerDied
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.testing.arrays import collect
from ndstream.testing.damage import damaged

VARIANTS = 270
LIMITS = Limits(workers=1)
#: Some of the damaged files hang the library: each is put aside the first time, after a short while.
IMPATIENT = Limits(
    workers=2, worker_timeout=1.5, worker_strikes=1, worker_memory=1 << 30, request_memory=4 * MiB, piece=MiB
)
#: Seconds in which every single request must have its answer, however it waits for others.
PATIENCE = 60.0
AT_ONCE = 6
NAMES = ("/contiguous", "/deep/chunked", "/checked", "/compact", "/text", "/record", "/growing", "/soft", "/deep")


def write_victim(path: Path, libver: str) -> Path:
    """Write a small file with the structures that damage can hit: trees, heaps, headers, indexes, filters."""
    with h5py.File(path, "w", libver=libver) as file:
        numbers = np.arange(600, dtype="<i4").reshape(30, 20)
        file["contiguous"] = numbers
        deep = file.create_group("deep")
        deep.create_dataset("chunked", data=numbers, chunks=(7, 6), compression="gzip", shuffle=True)
        file.create_dataset("checked", data=numbers, chunks=(10, 20), fletcher32=True)
        file.create_dataset("growing", data=numbers, chunks=(5, 20), maxshape=(None, 20))
        file.create_dataset("text", data=["one", "größer", "x" * 100], dtype=h5py.string_dtype())
        file["record"] = np.array([(1, 2.5, b"x")] * 5, [("a", "<i4"), ("b", "<f8"), ("c", "S4")])
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, space, compact)
        file["soft"] = h5py.SoftLink("/deep/chunked")
        for number in range(12):
            deep.create_group(f"group{number}").attrs["number"] = number
            file.attrs[f"attribute {number}"] = f"value {number}"
    return path


class Patient:
    """A store over one directory, asked with patience."""

    def __init__(self, root: Path, limits: Limits = LIMITS) -> None:
        self.root = root
        self.counters = Counters()
        self.store = HDF5Store({"": root}, limits=limits, counters=self.counters)
        self.turns = asyncio.Semaphore(AT_ONCE)

    async def outcome(self, work: Awaitable[Any]) -> str:
        """Name of what became of a request; anything but a typed error is a failure of the test."""
        async with self.turns:
            try:
                async with asyncio.timeout(PATIENCE):
                    await work
            except NDStreamError as error:
                assert str(self.root) not in str(error)
                return type(error).__name__
            return "fine"

    async def read(self, path: str, name: str) -> None:
        """Read all of a dataset, or the beginning of one that damage has made gigantic."""
        reading = await self.store.read(path, name, ANYBODY, None)
        try:
            received = 0
            if is_fixed(reading.dtype):
                async for buffer in reading.buffers():
                    received += len(buffer)
                    if received > 4 * MiB:
                        return
                assert received == reading.nbytes
            else:
                async for some in reading.elements():
                    received += len(some)
                    if received > 10_000:
                        return
                assert received == np.prod(reading.shape, dtype=object)
        finally:
            await reading.aclose()

    def questions(self, path: str) -> list[Awaitable[Any]]:
        """Everything that is asked about a damaged file."""
        asked: list[Awaitable[Any]] = [
            self.store.describe(path, "/", ANYBODY, Detail(depth=5, wide=100, data=10_000)),
            self.store.describe(path, "/deep/chunked", ANYBODY, Detail()),
        ]
        return asked + [self.read(path, name) for name in NAMES]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damaged_files_cost_typed_errors_and_nothing_else(tmp_path: Path, libver: str) -> None:
    good = write_victim(tmp_path / "good.h5", libver)
    content = good.read_bytes()
    names = []
    for number, copy in enumerate(damaged(content, VARIANTS, seed=2026)):
        names.append(f"{number}.h5")
        (tmp_path / names[-1]).write_bytes(copy)

    async def work() -> Counter[str]:
        patient = Patient(tmp_path, IMPATIENT)
        try:
            outcomes = await asyncio.gather(
                *(patient.outcome(question) for name in names for question in patient.questions(name))
            )
            assert patient.store.problem() is None
            # A busy machine may be too slow for such short times, but not again and again.
            for number in range(5):
                shutil.copy(good, tmp_path / f"good {number}.h5")
                questions = patient.questions(f"good {number}.h5")
                if set(await asyncio.gather(*map(patient.outcome, questions))) == {"fine", "NotFound"}:
                    break  # not found: a group is no dataset
            else:
                raise AssertionError("a good file is not read after all the damaged ones")
        finally:
            await patient.store.aclose()
        return Counter(outcomes)

    seen = asyncio.run(work())
    assert seen["fine"] > VARIANTS  # most damage is small, and most of what is asked lies elsewhere
    assert seen["Corrupt"] > 50


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"plain text\n" * 100, bytes(5000)])
def test_what_is_no_hdf5_file_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)

    async def work() -> None:
        patient = Patient(tmp_path)
        try:
            with pytest.raises(Corrupt):
                await patient.store.describe("a.h5", "/", ANYBODY, Detail())
            with pytest.raises(Corrupt):
                await patient.store.read("a.h5", "/x", ANYBODY, None)
        finally:
            await patient.store.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_an_unreadable_member_does_not_take_its_group_down(tmp_path: Path, libver: str) -> None:
    path = write_victim(tmp_path / "a.h5", libver)
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["deep/chunked"].id).addr
    with path.open("r+b") as raw:
        raw.seek(address)
        raw.write(b"\xff" * 16)

    async def work() -> None:
        patient = Patient(tmp_path)
        try:
            group = await patient.store.describe("a.h5", "/deep", ANYBODY, Detail(depth=5, wide=100))
            assert isinstance(group, model.Group)
            assert len(group.members) == 13
            assert isinstance(group.members["chunked"], model.Unreadable)
            assert sum(isinstance(member, model.Group) for member in group.members.values()) == 12
            with pytest.raises(DataError):
                await patient.store.describe("a.h5", "/deep/chunked", ANYBODY, Detail())
            for name in ("/deep/chunked", "/soft"):
                with pytest.raises(DataError):
                    await patient.store.read("a.h5", name, ANYBODY, None)
            array = await collect(await patient.store.read("a.h5", "/contiguous", ANYBODY, None))
            assert (array.reshape(-1) == np.arange(600)).all()
        finally:
            await patient.store.aclose()

    asyncio.run(work())


def test_a_checksum_that_does_not_fit_is_an_error_not_data(tmp_path: Path) -> None:
    path = write_victim(tmp_path / "a.h5", "latest")
    with h5py.File(path) as file:
        place = file["checked"].id.get_chunk_info(1).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place + 17)
        raw.write(b"\x77")

    async def work() -> None:
        patient = Patient(tmp_path)
        try:
            with pytest.raises(Corrupt):
                await collect(await patient.store.read("a.h5", "/checked", ANYBODY, None))
        finally:
            await patient.store.aclose()

    asyncio.run(work())


def test_a_file_cut_short_during_its_life_is_an_error_not_short_data(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(1 << 20)

    async def work() -> None:
        patient = Patient(tmp_path)
        try:
            await patient.read("a.h5", "/x")
            os.truncate(path, 1 << 20)
            with pytest.raises(DataError):
                await patient.read("a.h5", "/x")
            reading = None
            with h5py.File(path, "w") as file:
                file["x"] = np.zeros(1 << 20)
            reading = await patient.store.read("a.h5", "/x", ANYBODY, None)
            os.truncate(path, 5000)
            with pytest.raises((Replaced, Corrupt)):
                await collect(reading)
        finally:
            await patient.store.aclose()

    asyncio.run(work())


# -- workers that die or hang --


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, Patient, Path]]:
    """A store with a single worker, over a good file and one that will get the blame."""
    write_victim(tmp_path / "good.h5", "latest")
    blamed = write_victim(tmp_path / "blamed.h5", "latest")
    with asyncio.Runner() as runner:

        async def begin() -> Patient:
            return Patient(tmp_path, Limits(workers=1, worker_timeout=3.0))

        patient = runner.run(begin())
        yield runner, patient, blamed
        runner.run(patient.store.aclose())


async def ask_while_stopped(patient: Patient, name: str, detail: int) -> asyncio.Task[Any]:
    """Give the only worker, which is stopped first, a question about a file, so that it holds it for certain."""
    await patient.store.describe("good.h5", "/", ANYBODY, Detail(data=detail))  # it is there, and idle
    (worker,) = patient.store._pool.pids
    os.kill(worker, signal.SIGSTOP)
    task = asyncio.create_task(patient.store.describe(name, "/", ANYBODY, Detail()))
    for _ in range(2):  # one turn of the loop begins the request, the next one hands it to the worker
        await asyncio.sleep(0)
    return task


def test_a_file_that_kills_workers_is_put_aside_until_it_changes(lonely: tuple[asyncio.Runner, Patient, Path]) -> None:
    runner, patient, blamed = lonely

    async def work() -> None:
        for strike in range(2):
            task = await ask_while_stopped(patient, "blamed.h5", strike)
            (worker,) = patient.store._pool.pids
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(WorkerDied):
                await task
        for _ in range(3):
            with pytest.raises(Quarantined):
                await patient.store.describe("blamed.h5", "/", ANYBODY, Detail())
            with pytest.raises(Quarantined):
                await patient.store.read("blamed.h5", "/contiguous", ANYBODY, None)
        await patient.read("good.h5", "/contiguous")
        os.utime(blamed, ns=(1, 1))
        await patient.store.describe("blamed.h5", "/", ANYBODY, Detail())
        await patient.read("blamed.h5", "/contiguous")

    runner.run(work())
    assert patient.counters["worker_deaths", "describe"] == 2


def test_a_file_that_hangs_a_worker_costs_one_request_its_time(lonely: tuple[asyncio.Runner, Patient, Path]) -> None:
    runner, patient, _ = lonely

    async def work() -> None:
        task = await ask_while_stopped(patient, "blamed.h5", 0)
        with pytest.raises(TimedOut):
            await task
        await patient.read("good.h5", "/contiguous")
        await patient.read("blamed.h5", "/contiguous")

    runner.run(work())
    assert patient.counters["worker_timeouts", "describe"] == 1


def test_many_who_wait_for_one_bad_file_share_its_fate_and_no_other(
    lonely: tuple[asyncio.Runner, Patient, Path],
) -> None:
    runner, patient, _ = lonely

    async def work() -> None:
        first = await ask_while_stopped(patient, "blamed.h5", 0)
        same = [asyncio.create_task(patient.store.describe("blamed.h5", "/", ANYBODY, Detail())) for _ in range(5)]
        other = asyncio.create_task(patient.read("good.h5", "/checked"))
        results = await asyncio.gather(first, *same, return_exceptions=True)
        assert [type(result) for result in results] == [TimedOut] * 6
        await other

    runner.run(work())
    assert patient.counters["worker_calls", "describe"] == 2
