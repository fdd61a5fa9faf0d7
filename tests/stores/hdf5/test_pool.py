"""Workers answer, crash, hang and end, and callers are told which."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import pytest
import uvloop

from ndstream.core.counters import Counters
from ndstream.core.limits import Limits, MiB
from ndstream.core.model import Dataset
from ndstream.errors import (
    Busy,
    Corrupt,
    NotFound,
    Quarantined,
    Replaced,
    TimedOut,
    TooLarge,
    WorkerDied,
)
from ndstream.stores.hdf5 import process
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.messages import Describe, Described, Fetch, Fetched, Locate, Located, Target
from ndstream.stores.hdf5.pool import Pool

from .conftest import until

T = TypeVar("T")

#: Long enough for a worker to load the library, short enough to wait for in a test.
SOON = Limits(workers=2, worker_timeout=3.0)


class Site:
    """A pool over one directory with some files, in an event loop of its own."""

    def __init__(self, root: Path, runner: asyncio.Runner) -> None:
        self.root = root
        self.runner = runner
        self.pools: list[Pool] = []
        self.counters = Counters()
        for name in ("a.h5", "b.h5"):
            with h5py.File(root / name, "w") as file:
                file["d"] = np.arange(1000)

    def pool(self, limits: Limits = SOON) -> Pool:
        pool = Pool({"": str(self.root)}, limits, self.counters)
        self.pools.append(pool)
        return pool

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def target(self, path: str = "a.h5", name: str = "/d") -> Target:
        file = self.root / path
        return Target(file=str(file), generation=generation_of(file.stat()), name=name)

    def describe(self, path: str = "a.h5", name: str = "/d") -> Describe:
        return Describe(target=self.target(path, name), depth=0, wide=20, data=0)

    def fetch(self, path: str = "a.h5", count: int = 10) -> Fetch:
        return Fetch(target=self.target(path), start=(0,), count=(count,), step=(1,), most=MiB)


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
on_both_loops = pytest.mark.parametrize("site", sorted(LOOPS), indirect=True)


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    factory = LOOPS[getattr(request, "param", "uvloop")]
    with asyncio.Runner(loop_factory=factory) as runner:
        site = Site(tmp_path, runner)
        yield site
        for pool in site.pools:
            runner.run(pool.aclose())
            assert not pool.pids


async def ready(pool: Pool) -> None:
    """Wait until all workers take calls."""
    await pool.start()
    await until(lambda: len(pool.idle) == len(pool.pids))


@on_both_loops
def test_the_pool_answers(site: Site) -> None:
    pool = site.pool()

    async def work() -> None:
        described = await pool.call(site.describe())
        assert isinstance(described, Described)
        assert isinstance(described.node, Dataset)
        located = await pool.call(Locate(target=site.target()))
        assert isinstance(located, Located)
        assert located.file == str(site.root / "a.h5")
        assert located.generation == site.target().generation
        fetched = await pool.call(site.fetch())
        assert isinstance(fetched, Fetched)
        assert fetched.data == np.arange(10).tobytes()
        assert {1, 2, 3, 32000} <= pool.filters

    site.run(work())
    assert [site.counters["worker_calls", kind] for kind in ("describe", "locate", "fetch")] == [1, 1, 1]


def test_starting_does_not_wait_for_the_workers(site: Site) -> None:
    pool = site.pool()

    async def work() -> float:
        began = time.perf_counter()
        await pool.start()
        return time.perf_counter() - began

    assert site.run(work()) < 0.3
    assert len(pool.pids) == 2


def test_errors_have_their_classes_and_tell_nothing_of_the_machine(site: Site) -> None:
    pool = site.pool()
    (site.root / "no.h5").write_bytes(b"this is not HDF5" * 100)

    async def work() -> None:
        with pytest.raises(NotFound) as missing:
            await pool.call(site.describe(name="/x"))
        with pytest.raises(Corrupt) as corrupt:
            await pool.call(site.describe("no.h5"))
        with pytest.raises(TooLarge):
            await pool.call(Fetch(target=site.target(), start=(0,), count=(10,), step=(1,), most=79))
        for caught in (missing, corrupt):
            assert str(site.root) not in str(caught.value)

    site.run(work())
    assert site.counters["worker_deaths", "describe"] == 0


def test_many_calls_at_once_are_all_answered(site: Site) -> None:
    pool = site.pool()

    async def work() -> None:
        calls = [pool.call(site.fetch("ab"[number % 2] + ".h5", number)) for number in range(300)]
        for number, answer in enumerate(await asyncio.gather(*calls)):
            assert isinstance(answer, Fetched)
            assert answer.data == np.arange(number).tobytes()

    site.run(work())


@on_both_loops
def test_large_answers_arrive_whole(site: Site) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 40, 1 << 20)
    with h5py.File(site.root / "large.h5", "w") as file:
        file["d"] = values
    pool = site.pool()
    request = Fetch(target=site.target("large.h5"), start=(0,), count=(1 << 20,), step=(1,), most=8 * MiB)

    answer = site.run(pool.call(request))

    assert isinstance(answer, Fetched)
    assert answer.data == values.tobytes()


def test_a_cancelled_call_does_not_confuse_the_next(site: Site) -> None:
    pool = site.pool(Limits(workers=1, worker_timeout=10))

    async def work() -> None:
        await ready(pool)
        for number in range(20):
            call = asyncio.ensure_future(pool.call(site.fetch(count=number + 100)))
            await asyncio.sleep(0)  # begun, and not answered
            call.cancel()
            answer = await pool.call(site.fetch(count=number))
            assert isinstance(answer, Fetched)
            assert answer.data == np.arange(number).tobytes()

    site.run(work())


@on_both_loops
def test_a_crash_costs_one_call_and_the_worker_is_replaced(site: Site) -> None:
    pool = site.pool()

    async def work() -> None:
        await ready(pool)
        hang(pool)  # so that it is at its call when it is killed
        victim, other = pool.idle
        call = asyncio.ensure_future(pool.call(site.describe()))
        waiting = [asyncio.ensure_future(pool.call(site.describe("b.h5"))) for _ in range(5)]
        await asyncio.sleep(0)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await call
        os.kill(other, signal.SIGCONT)
        for answer in await asyncio.gather(*waiting):
            assert isinstance(answer, Described)
        await until(lambda: victim not in pool.pids and len(pool.pids) == 2)
        assert isinstance(await pool.call(site.describe()), Described)

    site.run(work())
    assert site.counters["worker_deaths", "describe"] == 1


def test_an_idle_worker_that_dies_costs_nothing(site: Site) -> None:
    pool = site.pool()

    async def work() -> None:
        await ready(pool)
        before = pool.pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not set(before) & set(pool.pids))
        assert isinstance(await pool.call(site.describe()), Described)

    site.run(work())
    assert site.counters["worker_deaths", "describe"] == 0


def hang(pool: Pool) -> None:
    for pid in pool.pids:
        os.kill(pid, signal.SIGSTOP)


def test_a_hang_ends_in_time_and_puts_the_file_aside_until_it_changes(site: Site) -> None:
    pool = site.pool(Limits(workers=2, worker_timeout=1.5, worker_strikes=2))

    async def work() -> None:
        for _ in range(2):
            await ready(pool)
            hang(pool)
            with pytest.raises(TimedOut):
                await pool.call(site.describe())
        with pytest.raises(Quarantined):
            await pool.call(site.describe())
        for pid in pool.pids:
            os.kill(pid, signal.SIGCONT)
        assert isinstance(await pool.call(site.describe("b.h5")), Described)
        with h5py.File(site.root / "a.h5", "w") as file:
            file["d"] = 1
        assert isinstance(await pool.call(site.describe()), Described)

    site.run(work())
    assert site.counters["worker_timeouts", "describe"] == 2
    assert site.counters["quarantined", "describe"] == 1


@on_both_loops
def test_calls_that_waited_for_a_bad_file_are_refused_with_it(site: Site) -> None:
    pool = site.pool(Limits(workers=2, worker_timeout=1.0, worker_strikes=1))

    async def work() -> list[Any]:
        await ready(pool)
        hang(pool)
        return await asyncio.gather(*(pool.call(site.describe()) for _ in range(10)), return_exceptions=True)

    found = site.run(work())
    assert sorted(type(error).__name__ for error in found) == ["Quarantined"] * 9 + ["TimedOut"]


def test_one_file_never_occupies_all_workers(site: Site) -> None:
    pool = site.pool(Limits(workers=3, worker_timeout=10))

    async def work() -> None:
        await ready(pool)
        hang(pool)
        calls = [asyncio.ensure_future(pool.call(site.describe())) for _ in range(10)]
        await asyncio.sleep(0)
        assert len(pool.idle) == 1
        (free,) = pool.idle
        os.kill(free, signal.SIGCONT)
        assert isinstance(await pool.call(site.describe("b.h5")), Described)
        for pid in pool.pids:
            os.kill(pid, signal.SIGCONT)
        await asyncio.gather(*calls)

    site.run(work())


def test_calls_go_to_the_worker_that_has_the_file_open(site: Site) -> None:
    pool = site.pool()

    def open_files(pid: int) -> set[str]:
        names = set()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = entry.readlink()
            if target.parent == site.root:
                names.add(target.name)
        return names

    async def work() -> None:
        await ready(pool)
        for path in ("a.h5", "b.h5", "a.h5", "b.h5", "b.h5", "a.h5"):
            await pool.call(site.describe(path))

    site.run(work())
    assert sorted(sorted(open_files(pid)) for pid in pool.pids) in ([["a.h5"], ["b.h5"]], [[], ["a.h5", "b.h5"]])


def test_a_file_that_is_not_the_one_meant_is_not_read(site: Site) -> None:
    pool = site.pool()
    request = site.describe()
    with h5py.File(site.root / "a.h5", "w") as file:
        file["d"] = 1

    async def work() -> None:
        for _ in range(2):
            with pytest.raises(Replaced):
                await pool.call(request)
        assert isinstance(await pool.call(site.describe()), Described)

    site.run(work())


@on_both_loops
def test_closing_fails_what_is_under_way(site: Site) -> None:
    pool = site.pool()

    async def work() -> None:
        await ready(pool)
        hang(pool)
        calls = [asyncio.ensure_future(pool.call(site.describe())) for _ in range(5)]
        await asyncio.sleep(0)
        await pool.aclose()
        for call in calls:
            with pytest.raises(Busy):
                await call
        with pytest.raises(Busy):
            await pool.call(site.describe())
        assert not pool.pids

    site.run(work())


def test_closing_at_once_leaves_nothing(site: Site) -> None:
    pool = site.pool()

    async def work() -> None:
        await pool.start()
        pids = pool.pids
        await pool.aclose()
        await pool.aclose()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    site.run(work())


def test_workers_that_cannot_start_are_reported(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "_MODULE", "ndstream.no_such_module")
    pool = site.pool()

    async def work() -> None:
        with pytest.raises(WorkerDied):
            await pool.call(site.describe())

    site.run(work())
    assert "no_such_module" in caplog.text


def test_a_worker_keeps_to_its_memory(site: Site) -> None:
    with h5py.File(site.root / "large.h5", "w") as file:
        file.create_dataset("d", (3 << 29,), "u1")
    pool = site.pool(Limits(workers=1, worker_memory=1 << 30, worker_timeout=20))
    request = Fetch(target=site.target("large.h5"), start=(0,), count=(3 << 29,), step=(1,), most=3 << 29)

    async def work() -> None:
        with pytest.raises(TooLarge):
            await pool.call(request)
        assert isinstance(await pool.call(site.describe()), Described)

    site.run(work())


ORPHANS = """
import asyncio, os, sys
from ndstream.core.limits import Limits
from ndstream.stores.hdf5.pool import Pool

async def main():
    pool = Pool({"": sys.argv[1]}, Limits(workers=2))
    await pool.start()
    while len(pool.idle) < 2:
        await asyncio.sleep(0.01)
    print(*pool.pids, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("hanging", [False, True])
def test_no_worker_outlives_a_killed_server(tmp_path: Path, hanging: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == 2
        ends = [os.pidfd_open(pid) for pid in pids]
        if hanging:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        server.kill()
    for end in ends:
        assert select.select([end], [], [], 10)[0], "the worker is still there"
        os.close(end)
