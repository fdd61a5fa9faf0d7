"""Files that are written: kept through every crash, whole for every reader, and refused when they are not ours."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeVar

import h5py
import msgspec
import numpy as np
import pytest
import uvloop

from ndstream.core.dtypes import from_numpy
from ndstream.core.limits import Limits
from ndstream.core.model import Filter
from ndstream.core.operations import (
    Append,
    Committed,
    CreateDataset,
    CreateGroup,
    Delete,
    Insert,
    Move,
    Operation,
    Payload,
    Resize,
    SetAttributes,
    Write,
    WriteChunk,
)
from ndstream.core.ports import ANYBODY, Writing
from ndstream.core.selection import select, to_plain
from ndstream.errors import (
    Conflict,
    Corrupt,
    DataError,
    FileInUse,
    Forbidden,
    InvalidRequest,
    NotFound,
    Replaced,
    StorageFailed,
    StorageFull,
    TooLarge,
    UnsupportedDType,
    UnsupportedFilter,
    WorkerDied,
)
from ndstream.stores.hdf5 import owners
from ndstream.stores.hdf5.journal import journal_path
from ndstream.stores.hdf5.messages import Locate, Located, Target
from ndstream.stores.hdf5.owned import Owned
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.stores.hdf5.tenure import Tenure
from ndstream.testing.arrays import collect
from ndstream.testing.payloads import WRITER, dataset, payload, table
from ndstream.wire.compression import pack, stored_chunk

from .conftest import until

T = TypeVar("T")

GZIP = (Filter(id=1, name="deflate", options=(1,)),)


def run(
    place: Path,
    work: Callable[[HDF5Store], Awaitable[T]],
    limits: Limits | None = None,
    durability: Literal["fsync", "flush"] = "flush",
) -> T:
    async def whole() -> T:
        store = HDF5Store({"": place}, limits=limits or Limits(), writing=Writing(durability=durability))
        try:
            return await work(store)
        finally:
            await store.aclose()

    return uvloop.run(whole())


def owned(store: HDF5Store, path: Path) -> Owned:
    assert store._owners is not None
    found = store._owners.get(str(path))
    assert found is not None
    return found


def owner(store: HDF5Store, path: Path) -> int:
    pid = owned(store, path).pid
    assert pid is not None
    return pid


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_a_killed_owner_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    kill_and_check(tmp_path, kills=12, seed=1)


def kill_and_check(place: Path, *, kills: int, seed: int) -> None:
    """Kill the owner at random moments under a mix of operations; after each kill the file is whole."""
    path = place / "a.h5"
    chance = random.Random(seed)
    acknowledged: list[int] = []
    unknown: list[int] = []

    async def work(store: HDF5Store) -> None:
        rows = table("/rows", "<i8", (64,), filters=GZIP)
        await store.apply("a.h5", WRITER, [rows, dataset("/all", np.zeros(5000, "<i8"))], create=True)
        number = 0

        async def client(stop: asyncio.Event) -> None:
            nonlocal number
            while not stop.is_set():
                number += 1
                mine = number
                batch: list[Operation] = [
                    Append(name="/rows", data=payload([[mine] * 64], "<i8")),
                    CreateGroup(name=f"/groups/{mine}"),
                    SetAttributes(name=f"/groups/{mine}", values={"mine": payload(mine)}),
                    Write(name="/all", data=payload(mine, "<i8")),
                    Delete(name=f"/groups/{mine - 20}", missing_ok=True),
                ]
                try:
                    await store.apply("a.h5", WRITER, batch)
                except WorkerDied:
                    unknown.append(mine)
                else:
                    acknowledged.append(mine)

        for _ in range(kills):
            stop = asyncio.Event()
            before = len(acknowledged)
            clients = [asyncio.create_task(client(stop)) for _ in range(3)]
            target = before + chance.randrange(1, 12)
            while len(acknowledged) < target:  # noqa: ASYNC110  (a random moment is what is wanted)
                await asyncio.sleep(chance.random() / 200)
            os.kill(owner(store, path), signal.SIGKILL)
            stop.set()
            await asyncio.gather(*clients)
            check(await collect(await store.read("a.h5", "/rows", ANYBODY, None)))
            everywhere = await collect(await store.read("a.h5", "/all", ANYBODY, None))
            assert (everywhere == everywhere[0]).all()

    def check(rows: np.ndarray[Any, Any]) -> None:
        assert (rows == rows[:, :1]).all()
        found = rows[:, 0].tolist()
        assert len(set(found)) == len(found)
        assert set(acknowledged) <= set(found) <= set(acknowledged) | set(unknown)

    run(place, work)
    assert [entry.name for entry in place.iterdir()] == ["a.h5"]
    with h5py.File(path) as file:
        check(file["rows"][:])
        for name, group in file["groups"].items():
            assert group.attrs["mine"] == int(name)
        assert (file["all"][:] == file["all"][0]).all()


def test_readers_go_on_after_an_idle_owner_was_killed(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        first = owner(store, tmp_path / "a.h5")
        os.kill(first, signal.SIGKILL)
        await until(lambda: owned(store, tmp_path / "a.h5").pid not in (first, None))
        assert (await collect(await store.read("a.h5", "/x", ANYBODY, None))).tolist() == [1]

    run(tmp_path, work)


def test_nothing_is_put_in_order_while_somebody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    reading: Future[None] = Future()
    began: list[bool] = []
    started = Tenure.started

    async def noted(tenure: Tenure) -> None:
        began.append(reading.done())
        await started(tenure)

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        file = owned(store, path)
        file.gate.enter([reading])
        monkeypatch.setattr(Tenure, "started", noted)
        os.kill(owner(store, path), signal.SIGSTOP)
        tasks = []
        for value in (2, 3):  # each a commit of its own
            write = store.apply("a.h5", WRITER, [Write(name="/x", data=payload([value]))])
            tasks.append(asyncio.create_task(write))
            await until(lambda: not file.idle and len(file._queue) == len(tasks) - 1)
        os.kill(owner(store, path), signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await tasks[0]
        await until(lambda: bool(began or file.gate._empty._waiters))
        reading.set_result(None)
        await tasks[1]
        assert began == [True]

    run(tmp_path, work)


def test_no_garbage_is_collected_while_the_library_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In every process that is started, at every occasion that there is.
    (tmp_path / "sitecustomize.py").write_text(
        "import gc, sys\n"
        "def told(phase, info):\n"
        "    frame, names = sys._getframe(), set()\n"
        "    while frame:\n"
        "        names.add((frame.f_code.co_filename.rpartition('/')[2], frame.f_code.co_name))\n"
        "        frame = frame.f_back\n"
        f"    mark = {str(tmp_path)!r} + ('/within' if ('journal.py', '_change') in names else '/beside')\n"
        "    if ('owner.py', 'serve') in names:\n"
        "        open(mark, 'w').close()\n"
        "gc.callbacks.append(told)\n"
        "gc.set_threshold(1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "served").mkdir()

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "<i8")], create=True)
        for number in range(5):
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([number]))])
            with pytest.raises(NotFound):
                await store.apply("a.h5", WRITER, [CreateGroup(name="/g"), Delete(name="/none")])

    run(tmp_path / "served", work)
    assert (tmp_path / "beside").exists()
    assert not (tmp_path / "within").exists()


def test_a_disk_that_failed_is_tried_again_by_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In the owner alone, and once: what the kernel says of a disk that lost something.
    failing = tmp_path / "failing"
    failing.mkdir()
    (failing / "sitecustomize.py").write_text(
        "import errno, os\n"
        "real = os.fdatasync\n"
        "def fdatasync(descriptor):\n"
        "    try:\n"
        f"        os.unlink({str(tmp_path / 'fail')!r})\n"
        "    except FileNotFoundError:\n"
        "        return real(descriptor)\n"
        "    raise OSError(errno.EIO, 'Input/output error')\n"
        "os.fdatasync = fdatasync\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(failing), prepend=os.pathsep)
    place = tmp_path / "served"
    place.mkdir()

    async def work() -> None:
        store = HDF5Store({"": place}, writing=Writing())
        try:
            await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
            first = owner(store, place / "a.h5")
            (tmp_path / "fail").touch()
            with pytest.raises(StorageFailed):
                await store.apply("a.h5", WRITER, [Write(name="/x", data=payload([2]))])
            await until(lambda: owned(store, place / "a.h5").pid not in (first, None))
            await store.apply("a.h5", WRITER, [Write(name="/x", data=payload([3]))])
            assert (await collect(await store.read("a.h5", "/x", ANYBODY, None))).tolist() == [3]
        finally:
            await store.aclose()

    uvloop.run(work())


def test_who_gives_up_letting_a_file_go_leaves_it_readable(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        release = asyncio.create_task(store.release("a.h5", ANYBODY))
        await until(lambda: owned(store, tmp_path / "a.h5").gate.closed)
        release.cancel()
        assert (await collect(await store.read("a.h5", "/x", ANYBODY, None))).tolist() == [1]
        with pytest.raises(asyncio.CancelledError):
            await release

    run(tmp_path, work)


def test_a_killed_server_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from ndstream.core.operations import Append\n"
        "from ndstream.core.ports import Writing\n"
        "from ndstream.stores.hdf5.store import HDF5Store\n"
        "from ndstream.testing.payloads import WRITER, payload, table\n"
        "async def main():\n"
        "    store = HDF5Store({'': Path(sys.argv[1])}, writing=Writing())\n"
        "    await store.apply('a.h5', WRITER, [table('/t', '<i8')], create=True)\n"
        "    for n in range(10**6):\n"
        "        await store.apply('a.h5', WRITER, [Append(name='/t', data=payload([n], '<i8'))], key=str(n))\n"
        "        print(n, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        lines = [int(server.stdout.readline()) for _ in range(20)]
        server.kill()
        lines += [int(line) for line in server.stdout.read().split()]

    async def work(store: HDF5Store) -> None:
        batch = [Append(name="/t", data=payload([lines[-1]], "<i8"))]
        again = await store.apply("a.h5", WRITER, batch, key=str(lines[-1]))
        assert again.repeated  # the journal remembers

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        rows = file["t"][:].tolist()
    assert rows[: len(lines)] == lines
    assert rows == list(range(len(rows)))


def test_an_owner_whose_server_is_gone_leaves_what_was_committed_under_which_key(tmp_path: Path) -> None:
    batch: list[Operation] = [table("/t", "<i8"), Append(name="/t", data=payload([1], "<i8"))]

    async def first(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, batch, create=True, key="once")
        assert store._owners is not None
        owned = store._owners.get(str(tmp_path / "a.h5"))
        assert owned is not None
        tenure = owned._tenure
        assert tenure is not None
        tenure._process.hang_up()  # as the kernel does for a server that dies: without a word
        await tenure._gone.wait()

    async def second(store: HDF5Store) -> None:
        # Whoever reads first has the journal put in order, and gone, before the batch comes again.
        assert (await collect(await store.read("a.h5", "/t", ANYBODY, None))).tolist() == [1]
        again = await store.apply("a.h5", WRITER, batch, key="once")
        assert again.repeated

    run(tmp_path, first)
    run(tmp_path, second)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["t"][...].tolist() == [1]


def test_readers_see_one_commit_never_half_of_two(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        zeros = np.zeros((64, 64), "<i4")
        await store.apply(
            "a.h5",
            WRITER,
            [dataset("/zip", zeros, chunks=(8, 8), filters=GZIP), dataset("/plain", np.zeros((512, 512), "<i4"))],
            create=True,
        )
        reads = 0
        done = asyncio.Event()

        async def reader(name: str) -> None:
            nonlocal reads
            while not done.is_set():
                try:
                    found = await collect(await store.read("a.h5", name, ANYBODY, None))
                except Replaced:
                    continue
                assert (found == found.flat[0]).all()
                reads += 1
                await asyncio.sleep(0)  # as for whoever sends what was read

        readers = [asyncio.create_task(reader(name)) for name in ("/zip", "/plain", "/zip", "/plain")]
        for number in range(30):
            both = [Write(name=name, data=payload(number, "<i4")) for name in ("/zip", "/plain")]
            await store.apply("a.h5", WRITER, both)
            found = await collect(await store.read("a.h5", "/zip", ANYBODY, None))
            assert (found == number).all()
        done.set()
        await asyncio.gather(*readers)
        assert reads > 20

    run(tmp_path, work)


def test_who_comes_after_a_while_without_readers_sees_whole_commits_too(tmp_path: Path) -> None:
    """Small commits that nobody reads between are carried out and put in place in one step."""

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", np.zeros((64, 1024), "<i4"))], create=True)
        await collect(await store.read("a.h5", "/x", ANYBODY, None))  # now it is known where it is
        assert store._owners is not None
        owned = store._owners.get(str(tmp_path / "a.h5"))
        assert owned is not None
        shut = 0
        for number in range(1, 60, 3):
            for unread in range(3):
                write = [Write(name="/x", data=payload(number + unread, "<i4"))]
                commit = asyncio.create_task(store.apply("a.h5", WRITER, write))
                if unread == 2:
                    for _ in range(3):
                        await asyncio.sleep(0)  # until it has begun
                    shut += owned.gate.closed
                    found = await collect(await store.read("a.h5", "/x", ANYBODY, None))
                    assert (found == found.flat[0]).all()
                    assert found.flat[0] in (number + 1, number + 2)
                await commit
            found = await collect(await store.read("a.h5", "/x", ANYBODY, None))
            assert (found == number + 2).all()
        assert shut

    run(tmp_path, work)


def test_a_long_read_goes_on_while_rows_are_appended(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        first = np.arange(400 * 1000, dtype="<i4").reshape(400, 1000)
        make = table("/t", "<i4", (1000,), chunks=(16, 1000), filters=GZIP)
        await store.apply("a.h5", WRITER, [make, Append(name="/t", data=payload(first))], create=True)
        reading = await store.read("a.h5", "/t", ANYBODY, None)
        parts = []
        async for buffer in reading.buffers():
            parts.append(bytes(buffer))
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(first[:3]))])
        assert b"".join(parts) == first.tobytes()
        assert len(parts) > 5

    run(tmp_path, work, Limits(piece=1 << 17, request_memory=1 << 20))


def test_a_long_read_takes_no_chunk_for_the_one_that_was_in_its_place(tmp_path: Path) -> None:
    columns, chunk = 8, (64, 256)
    chance = np.random.default_rng(1)

    def places() -> list[int]:
        """Where the chunks of the last rows are in the file, by column."""
        with h5py.File(tmp_path / "a.h5", locking=False) as file:
            return [
                file["t"].id.get_chunk_info_by_coord((3 * chunk[0], column * chunk[1])).byte_offset
                for column in range(columns)
            ]

    def moved(before: list[int], now: list[int]) -> bool:
        return any(place in before and before.index(place) != column for column, place in enumerate(now))

    async def work(store: HDF5Store) -> None:
        first = chance.integers(0, 1 << 16, (3 * chunk[0] + 20, columns * chunk[1]), "<u4")
        make = table("/t", "<u4", first.shape[1:], chunks=chunk, filters=GZIP)
        await store.apply("a.h5", WRITER, [make, Append(name="/t", data=payload(first))], create=True)
        reading = await store.read("a.h5", "/t", ANYBODY, None)
        parts = reading.buffers()
        got = [bytes(await anext(parts))]
        # Whoever looks at the last row has its chunks kept as they are now.
        before = places()
        row = len(first) - 1
        assert np.array_equal(
            await collect(await store.read("a.h5", "/t", ANYBODY, select(row, first.shape))), first[row]
        )
        for _ in range(20):
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(first[:1]))])
            if moved(before, places()):
                break
        else:
            pytest.fail("no chunk has come to where another one was")
        got += [bytes(buffer) async for buffer in parts]
        assert b"".join(got) == first.tobytes()

    run(tmp_path, work, Limits(piece=1 << 17, request_memory=1 << 20))


@pytest.mark.parametrize("block", [0, 512])
@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}, {"compression": "gzip", "fletcher32": True}])
def test_where_added_chunks_are_is_asked_for_alone(
    filters: dict[str, Any], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "_MANY", 1)
    joined: list[int] = []
    together = owners._continued

    def counting(before: Located, more: Located) -> Located:
        joined.append(more.since)
        return together(before, more)

    monkeypatch.setattr(owners, "_continued", counting)
    random = np.random.default_rng(1)
    values = random.integers(0, 9, (50, 6), "<i4")
    with h5py.File(tmp_path / "a.h5", "w", libver="latest", userblock_size=block) as file:
        file.create_dataset("x", data=values, chunks=(4, 4), maxshape=(None, 9), **filters)

    async def work(store: HDF5Store) -> None:
        nonlocal values

        async def change(operation: Operation) -> None:
            await store.apply("a.h5", WRITER, [operation])
            assert store._owners is not None
            owned = store._owners.get(str(tmp_path / "a.h5"))
            assert owned is not None
            kept = await store._owners._current(owned, "/x", ANYBODY)
            afresh, _ = await owned.ask(Locate(target=Target(file=owned.path, generation=owned.generation, name="/x")))
            assert kept.located == afresh
            assert np.array_equal(await collect(await store.read("a.h5", "/x", ANYBODY, None)), values)

        for rows in (1, 3, 4, 17, 2, 1):
            added = random.integers(0, 9, (rows, 6), "<i4")
            values = np.concatenate((values, added))
            await change(Append(name="/x", data=payload(added)))
        assert joined == [24, 26, 28, 36, 38]
        # Not when what was there has changed, nor when the grid has another form, nor of what was never written.
        values[3] = 7
        await change(Write(name="/x", selection=to_plain(select(3, values.shape)), data=payload(7, "<i4")))
        values = np.pad(values, ((0, 0), (0, 3)))
        await change(Resize(name="/x", shape=values.shape))
        values = np.pad(values, ((0, 9), (0, 0)))
        await change(Resize(name="/x", shape=values.shape))
        assert len(joined) == 5

    run(tmp_path, work)


def test_a_long_read_of_what_is_changed_fails_and_does_not_mix(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", np.zeros(1 << 20, "<i4"))], create=True)
        reading = await store.read("a.h5", "/x", ANYBODY, None)
        parts = []
        with pytest.raises(Replaced):
            async for buffer in reading.buffers():
                parts.append(np.frombuffer(buffer, "<i4").copy())
                await store.apply("a.h5", WRITER, [Write(name="/x", data=payload(1, "<i4"))])
        assert parts
        assert all((part == 0).all() for part in parts)

    run(tmp_path, work, Limits(piece=1 << 16, request_memory=1 << 18, reader_patience=0.05))


@pytest.mark.parametrize(("start", "told"), [(64, True), (96, False), (128, False)])
def test_a_chunk_disturbs_who_reads_when_it_holds_rows_that_were_there(start: int, told: bool, tmp_path: Path) -> None:
    rows, chunk = 80, (32, 1024)

    async def work(store: HDF5Store) -> None:
        zeros = np.zeros((rows, chunk[1]), "<i4")
        make = dataset("/x", zeros, maxshape=(None, chunk[1]), chunks=chunk)
        await store.apply("a.h5", WRITER, [make], create=True)
        reading = await store.read("a.h5", "/x", ANYBODY, None)
        parts = reading.buffers()
        got = [bytes(await anext(parts))]
        data = payload(np.ones(chunk, "<i4").reshape(-1).view("u1"))
        await store.apply("a.h5", WRITER, [WriteChunk(name="/x", start=(start, 0), data=data)])
        try:
            got += [bytes(buffer) async for buffer in parts]
        except Replaced:
            assert told
        else:
            assert not told
            assert b"".join(got) == zeros.tobytes()
        assert not any(map(any, got))

    run(tmp_path, work, Limits(piece=1 << 14, request_memory=1 << 16, reader_patience=0.05))


@pytest.mark.parametrize("moves", [[("/x", "/z")], [("/x", "/z"), ("/y", "/x")]])
def test_a_long_read_does_not_go_on_with_what_has_got_the_name(moves: list[tuple[str, str]], tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        zeros = np.zeros((256, 1024), "<i4")
        some: dict[str, Any] = {"maxshape": (None, 1024), "chunks": (16, 1024)}
        make = [dataset("/x", zeros, **some), dataset("/y", zeros + 1, **some)]
        await store.apply("a.h5", WRITER, make, create=True)
        reading = await store.read("a.h5", "/x", ANYBODY, None)
        parts = reading.buffers()
        got = [bytes(await anext(parts))]
        await store.apply("a.h5", WRITER, [Move(name=name, target=target) for name, target in moves])
        got.append(bytes(await anext(parts)))
        await store.apply("a.h5", WRITER, [Append(name="/z", data=payload(zeros[:1]))])
        with pytest.raises(Replaced):
            async for buffer in parts:
                got.append(bytes(buffer))  # noqa: PERF401  (what comes before it fails counts)
        assert not any(map(any, got))

    run(tmp_path, work, Limits(piece=1 << 16, request_memory=1 << 18))


@pytest.mark.parametrize("written", [False, True])
def test_a_long_read_notices_who_writes_a_file_that_was_let_go(written: bool, tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        zeros = np.zeros(1 << 20, "<i4")
        await store.apply("a.h5", WRITER, [dataset("/x", zeros)], create=True)
        reading = await store.read("a.h5", "/x", ANYBODY, None)
        parts = reading.buffers()
        got = [bytes(await anext(parts))]
        await store.release("a.h5", ANYBODY)
        got.append(bytes(await anext(parts)))
        if written:
            with h5py.File(tmp_path / "a.h5", "r+") as file:
                file["x"][...] = 1
                file["y"] = zeros  # another length, whatever the clock of the file system says
            with pytest.raises(Replaced):
                async for buffer in parts:
                    got.append(bytes(buffer))  # noqa: PERF401  (what comes before it fails counts)
            assert not any(map(any, got))
        else:
            got += [bytes(buffer) async for buffer in parts]
            assert b"".join(got) == zeros.tobytes()

    run(tmp_path, work, Limits(piece=1 << 16, request_memory=1 << 18))


def test_nobody_writes_a_file_before_it_is_known_how_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Tenure] = []
    aclose = Tenure.aclose

    async def trying(tenure: Tenure) -> None:
        await aclose(tenure)
        ended.append(tenure)
        with pytest.raises(BlockingIOError):
            h5py.File(tmp_path / "a.h5", "r+", locking=True)

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", np.zeros(1 << 20, "<i4"))], create=True)
        reading = await store.read("a.h5", "/x", ANYBODY, None)
        with monkeypatch.context() as patch:
            patch.setattr(Tenure, "aclose", trying)
            await store.release("a.h5", ANYBODY)
        assert ended
        h5py.File(tmp_path / "a.h5", "r+", locking=True).close()
        await reading.aclose()

    run(tmp_path, work)


def test_a_commit_does_not_wait_for_who_waits_for_it(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        texts = dataset("/x", ["text"] * 300_000, chunks=(1000,))
        await store.apply("a.h5", WRITER, [texts], create=True)
        reading = await store.read("a.h5", "/x", ANYBODY, None)
        elements = reading.elements()
        await anext(elements)
        write = asyncio.create_task(store.apply("a.h5", WRITER, [Write(name="/x", data=payload("other"))]))
        with pytest.raises(Replaced):  # what is left can only be asked for when the commit is in place
            async for _ in elements:
                pass
        async with asyncio.timeout(30):
            await write

    run(tmp_path, work, Limits(reader_patience=3600, piece=1 << 16))


def test_a_long_read_of_text_notices_that_its_name_went_to_another(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("old", "new"):
            file.create_dataset(name, data=[name * 50] * 20000, dtype=h5py.string_dtype(), chunks=(100,))

    async def work(store: HDF5Store) -> None:
        await store.hold("a.h5", WRITER)
        reading = await store.read("a.h5", "/old", ANYBODY, None)
        pieces = reading.elements()
        await anext(pieces)
        await store.apply("a.h5", WRITER, [Move(name="/old", target="/older"), Move(name="/new", target="/old")])
        with pytest.raises(Replaced):
            async for _ in pieces:
                pass

    run(tmp_path, work, Limits(piece=1 << 16, request_memory=1 << 18, reader_patience=0.01))


def test_readings_that_were_opened_together_are_of_one_commit_or_fail(tmp_path: Path) -> None:
    """The first was sent when a commit changes both: the second must not go on with what is there now."""

    async def work(store: HDF5Store) -> None:
        zeros = np.zeros(1 << 18, "<i8")
        await store.apply("a.h5", WRITER, [dataset("/x", zeros), dataset("/y", zeros)], create=True)
        both = [Write(name=name, data=payload(1, "<i8")) for name in ("/x", "/y")]
        async with store.steady("a.h5", ANYBODY):
            opened = [await store.read("a.h5", name, ANYBODY, None) for name in ("/x", "/y")]
            writing = asyncio.create_task(store.apply("a.h5", WRITER, both))
            assert (await collect(opened[0]) == 0).all()
            assert not writing.done()
        await writing
        with pytest.raises(Replaced):
            await collect(opened[1])

    run(tmp_path, work, Limits(reader_patience=0.001))


def test_large_data_does_not_pass_through_memory(tmp_path: Path) -> None:
    values = np.arange(24 << 20, dtype="u1")

    async def work(store: HDF5Store) -> None:
        make = CreateDataset(name="/x", dtype=payload(values[:1]).dtype, shape=values.shape)
        await store.apply("a.h5", WRITER, [make, Write(name="/x", data=payload(values))], create=True)
        assert (await collect(await store.read("a.h5", "/x", ANYBODY, None)) == values).all()

    run(tmp_path, work)


def test_a_long_journal_is_emptied_when_nobody_writes(tmp_path: Path) -> None:
    journal = journal_path(tmp_path / "a.h5")
    frames = np.random.default_rng(1).integers(0, 255, (8, 1 << 20), "u1")

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/frames", frames)], create=True)
        # Where a commit has bytes already, the next one goes through the journal.
        await store.apply("a.h5", WRITER, [Write(name="/frames", data=payload(frames + 1))])
        assert journal.stat().st_size > frames.nbytes
        await until(lambda: journal.stat().st_size <= 2 * limits.journal)
        await store.apply("a.h5", WRITER, [Write(name="/frames", data=payload(frames + 2))])

    limits = Limits(journal=1 << 20)
    run(tmp_path, work, limits)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["frames"][...], frames + 2)


def test_readers_that_give_up_leave_the_owner_to_others(tmp_path: Path) -> None:
    """Its answer to them is not taken for the answer to the next one, and the file is not closed to everybody."""

    async def work(store: HDF5Store) -> None:
        names = [f"/{number}" for number in range(20)]
        await store.apply("a.h5", WRITER, [dataset(name, np.full(9, int(name[1:]))) for name in names], create=True)
        before = owner(store, tmp_path / "a.h5")
        for steps, name in enumerate(names[:-1]):
            reading = asyncio.create_task(store.read("a.h5", name, ANYBODY, None))
            for _ in range(steps % 4 + 1):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        async with asyncio.timeout(60):
            assert (await collect(await store.read("a.h5", names[-1], ANYBODY, None))).tolist() == [19] * 9
            await store.apply("a.h5", WRITER, [CreateGroup(name="/after")])
        assert owner(store, tmp_path / "a.h5") == before

    run(tmp_path, work)


def test_a_file_is_written_under_one_of_its_names(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/rows")], create=True)
        os.link(tmp_path / "a.h5", tmp_path / "b.h5")
        row = Append(name="/rows", data=payload(np.array([1], "<i4")))
        for _ in range(2):
            with pytest.raises(FileInUse, match="another name"):
                await store.apply("b.h5", WRITER, [row])
            await store.apply("a.h5", WRITER, [row])
        await store.release("a.h5", ANYBODY)
        await store.apply("b.h5", WRITER, [row])

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["rows"].shape == (3,)


def test_a_file_that_somebody_else_writes_is_in_use(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        with h5py.File(tmp_path / "a.h5", "w"):
            for attempt in (store.hold("a.h5", ANYBODY), store.apply("a.h5", WRITER, [CreateGroup(name="/x")])):
                with pytest.raises(FileInUse):
                    await attempt
        await store.apply("a.h5", WRITER, [CreateGroup(name="/x")])
        script = f"import h5py; h5py.File({str(tmp_path / 'a.h5')!r}, 'r+')"
        other = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script], check=False, capture_output=True
        )
        assert b"lock" in other.stderr

    run(tmp_path, work)


def test_a_file_that_is_replaced_is_a_new_one(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        with h5py.File(tmp_path / "b.h5", "w") as other:
            other["y"] = [2]
        (tmp_path / "b.h5").rename(tmp_path / "a.h5")
        assert (await collect(await store.read("a.h5", "/y", ANYBODY, None))).tolist() == [2]
        with pytest.raises(Conflict):
            await store.apply("a.h5", WRITER, [CreateGroup(name="/z")])
        await store.apply("a.h5", WRITER, [CreateGroup(name="/z")])
        (tmp_path / "a.h5").unlink()
        with pytest.raises(NotFound):
            await store.apply("a.h5", WRITER, [CreateGroup(name="/zz")])

    run(tmp_path, work)


@pytest.mark.parametrize("when", ["at once", "when it is let go of"])
def test_a_file_in_the_place_of_one_that_is_written_is_another_state(tmp_path: Path, when: str) -> None:
    async def work(store: HDF5Store) -> None:
        done = await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        events = store.follow("a.h5", ANYBODY, since=done.tag)
        for number in (1, 2):
            with h5py.File(tmp_path / "b.h5", "w") as other:
                other["x"] = [number]
            (tmp_path / "b.h5").rename(tmp_path / "a.h5")
            if when != "at once":
                await store.release("a.h5", ANYBODY)
            for _ in range(2):
                now = await store.state("a.h5", ANYBODY)
                assert (now.commit, now.tag == done.tag) == (done.number + number, False)
            told = await anext(events)
            assert (told.tag, told.complete) == (now.tag, False)
            await store.release("a.h5", ANYBODY)
            assert await store.state("a.h5", ANYBODY) == now

    run(tmp_path, work)


def test_a_change_by_somebody_else_is_told_once_to_each_who_follows(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"

    async def work(store: HDF5Store) -> None:
        with h5py.File(path, "w") as file:
            file["x"] = 0
        heard: list[list[int]] = [[], [], []]

        async def follow(numbers: list[int]) -> None:
            async for event in store.follow("a.h5", ANYBODY):
                assert not event.complete
                numbers.append(event.number)

        following = [asyncio.create_task(follow(numbers)) for numbers in heard]
        await asyncio.sleep(0)  # until they have looked for the first time
        state = path.stat()
        for number in range(1, 4):
            # The last time it is again as it was in the beginning.
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + (number % 3) * 1_000_000_000))
            await until(lambda number=number: all(numbers[-1:] == [number] for numbers in heard))  # type: ignore[misc]
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        assert heard == [[1, 2, 3]] * 3
        assert (await store.state("a.h5", ANYBODY)).commit == 3

    run(tmp_path, work)


def test_what_another_program_changed_is_another_state(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"

    async def work(store: HDF5Store) -> None:
        done = await store.apply("a.h5", WRITER, [table("/t", "<i8")], create=True)
        await store.release("a.h5", ANYBODY)
        # To let go of a file and to take it again changes nothing.
        await store.hold("a.h5", WRITER)
        await store.release("a.h5", ANYBODY)
        assert (await store.state("a.h5", ANYBODY)).tag == done.tag
        done = await store.apply("a.h5", WRITER, [], condition=done.tag)
        await store.release("a.h5", ANYBODY)
        with h5py.File(path, "r+") as file:
            file["t"].resize((3,))
        for condition in (done.tag, done.number):
            with pytest.raises(Conflict):
                await store.apply("a.h5", WRITER, [Delete(name="/t")], condition=condition)
        now = await store.state("a.h5", ANYBODY)
        await store.apply("a.h5", WRITER, [], condition=now.tag)
        await store.release("a.h5", ANYBODY)
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["other"] = 1
        (tmp_path / "b.h5").rename(path)
        with pytest.raises(Conflict):
            await store.apply("a.h5", WRITER, [], condition=now.commit + 1)

    run(tmp_path, work)


def test_tags_of_an_earlier_server_name_no_state_of_a_later_one(tmp_path: Path) -> None:
    async def first(store: HDF5Store) -> Committed:
        return await store.apply("a.h5", WRITER, [table("/t", "<i8")], create=True)

    async def second(store: HDF5Store) -> None:
        again = await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([1], "<i8"))])
        assert (again.number, again.tag == before.tag) == (before.number, False)
        with pytest.raises(Conflict):
            await store.apply("a.h5", WRITER, [Delete(name="/t")], condition=before.tag)

    before = run(tmp_path, first)
    run(tmp_path, second)


def test_a_batch_that_a_killed_server_had_committed_is_found_by_its_key_before_its_condition(tmp_path: Path) -> None:
    batch = [Append(name="/t", data=payload([1], "<i8"))]

    async def work(store: HDF5Store) -> None:
        tag = (await store.apply("a.h5", WRITER, [table("/t", "<i8")], create=True)).tag
        first = await store.apply("a.h5", WRITER, batch, condition=tag, key="k")
        os.kill(owner(store, tmp_path / "a.h5"), signal.SIGKILL)
        other = HDF5Store({"": tmp_path}, writing=Writing(durability="flush"))
        await store.aclose()
        try:
            again = await other.apply("a.h5", WRITER, batch, condition=tag, key="k")
            assert (again.number, again.repeated) == (first.number, True)
        finally:
            await other.aclose()

    run(tmp_path, work)


@pytest.mark.parametrize("durability", ["fsync", "flush"])
@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_another_program_changes_is_let_go_of(
    tmp_path: Path, durability: Literal["fsync", "flush"], large: bool
) -> None:
    path = tmp_path / "a.h5"
    values = np.arange(1 << 18 if large else 10)

    async def work(store: HDF5Store) -> None:
        made = table("/t", "<i8", chunks=(1 << 15,))
        await store.apply("a.h5", WRITER, [dataset("/x", np.arange(300_000)), made], create=True)
        for _ in range(3):
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(values))])
        old = path.read_bytes()
        os.truncate(path, 100_000)
        with pytest.raises(Conflict):
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(values))])
        with pytest.raises(Corrupt):
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(values))])
        path.write_bytes(old)
        await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(values))])
        await store.apply("a.h5", WRITER, [CreateGroup(name="/g")])
        with h5py.File(path, "r+", locking=False) as file:
            file["x"][0] = 7
        with pytest.raises(Conflict):
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(values))])
        found = await collect(await store.read("a.h5", "/x", ANYBODY, None))
        assert (found[0], found[1]) == (7, 1)
        await store.apply("a.h5", WRITER, [Append(name="/t", data=payload(values))])

    run(tmp_path, work, durability=durability)
    with h5py.File(path) as file:
        assert np.array_equal(file["t"], np.tile(values, 5))
        assert file["x"][:2].tolist() == [7, 1]
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        for condition in (None, 0, 0, None):
            made = await store.apply("a.h5", WRITER, [], create=True, condition=condition)
            await store.apply("a.h5", WRITER, [CreateGroup(name="/g")], condition=made.number)
            with pytest.raises(Conflict):
                await store.apply("a.h5", WRITER, [CreateGroup(name="/h")], create=True, condition=0)
            (tmp_path / "a.h5").unlink()
        with pytest.raises(NotFound):
            await store.apply("a.h5", WRITER, [CreateGroup(name="/h")])

    run(tmp_path, work)


def test_a_file_that_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        for _ in range(3):
            await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
            (tmp_path / "a.h5").unlink()
        await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        assert names(tmp_path) == {"a.h5", journal_path(tmp_path / "a.h5").name}
        (tmp_path / "a.h5").rename(tmp_path / "b.h5")

    run(tmp_path, work)
    assert names(tmp_path) == {"b.h5"}


def test_a_file_is_not_made_for_what_fails(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        nothing: list[Operation] = [CreateGroup(name="/g"), Delete(name="/none")]
        for condition in (None, 0):
            with pytest.raises(NotFound, match="/none"):
                await store.apply("a.h5", WRITER, nothing, create=True, condition=condition)
            assert names(tmp_path) == set()
        one, other = await asyncio.gather(
            store.apply("a.h5", WRITER, nothing, create=True),
            store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True),
            return_exceptions=True,
        )
        assert isinstance(one, NotFound)
        assert isinstance(other, Committed)
        with pytest.raises(NotFound, match="/none"):
            await store.apply("a.h5", WRITER, nothing, create=True)
        assert (await collect(await store.read("a.h5", "/x", ANYBODY, None))).tolist() == [1]

    run(tmp_path, work)


def test_a_file_that_was_emptied_is_no_file(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        os.truncate(tmp_path / "a.h5", 0)
        with pytest.raises(Conflict):
            await store.apply("a.h5", WRITER, [CreateGroup(name="/g")])
        for _ in range(2):
            with pytest.raises(Corrupt):
                await store.apply("a.h5", WRITER, [CreateGroup(name="/g")], create=True)
        assert (tmp_path / "a.h5").read_bytes() == b""

    run(tmp_path, work)


def test_nothing_is_committed_to_a_journal_that_is_gone(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "<i8")], create=True)
        await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([1]))])
        journal_path(tmp_path / "a.h5").unlink()
        with pytest.raises(Conflict, match="journal"):
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([2]))])
        await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([3]))])
        assert journal_path(tmp_path / "a.h5").exists()

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["t"][:].tolist() == [1, 3]


def test_little_data_makes_no_more_work_than_is_allowed(tmp_path: Path) -> None:
    row = np.dtype([("k", "<i8"), ("v", "<i8")])
    one = payload(np.zeros(1, row))
    most = 1 << 20

    async def work(store: HDF5Store) -> None:
        some: list[Operation] = [
            table("/t", row),
            Append(name="/t", data=payload(np.zeros(100, row))),
            table("/x", "<i8"),
        ]
        await store.apply("a.h5", WRITER, some, create=True)
        for shape in ((1 << 40,), (1 << 18,)):
            with pytest.raises(TooLarge, match="spool"):
                made = msgspec.structs.replace(dataset("/y", np.zeros((), "<i8")), shape=shape)
                await store.apply("a.h5", WRITER, [made])
        await store.apply("a.h5", WRITER, [Resize(name="/x", shape=(1 << 40,)), Resize(name="/t", shape=(1 << 40,))])
        selection = to_plain(select(slice(0, most // 16), (1 << 40,)))
        zeros = Write(name="/x", data=payload(0), selection=selection)
        await store.apply("a.h5", WRITER, [zeros, zeros])
        batches: tuple[list[Operation], ...] = (
            [zeros] * 3,
            [Write(name="/x", data=payload(0))],
            [Append(name="/t", data=one, key="k")],
            [Insert(name="/t", index=3, data=one)],
        )
        for batch in batches:
            with pytest.raises(TooLarge, match="spool"):
                await store.apply("a.h5", WRITER, batch)
        last = (1 << 40) - 2
        await store.apply("a.h5", WRITER, [Insert(name="/t", index=last, data=one)])

    run(tmp_path, work, limits=Limits(spool=most))
    assert (tmp_path / "a.h5").stat().st_size < 4 * most


def test_what_is_too_long_to_be_cut_is_not(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "<i8", chunks=(4,))], create=True)
        await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([1, 2]))])
        await store.apply("a.h5", WRITER, [Resize(name="/t", shape=(1 << 50,))])
        with pytest.raises(TooLarge, match="cut off"):
            await store.apply("a.h5", WRITER, [Resize(name="/t", shape=(10,))])
        await store.apply("a.h5", WRITER, [Resize(name="/t", shape=((1 << 50) - (1 << 20),))])

    run(tmp_path, work)


def test_a_file_that_is_removed_while_it_is_taken_is_not_held_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    call = Tenure.call

    async def removing(tenure: Tenure, request: Any, patience: float) -> Any:
        answer = await call(tenure, request, patience)
        path.unlink()
        return answer

    async def work(store: HDF5Store) -> None:
        monkeypatch.setattr(Tenure, "call", removing)
        with pytest.raises(Conflict):
            await store.apply("a.h5", WRITER, [dataset("/x", [1])], create=True)
        monkeypatch.setattr(Tenure, "call", call)
        await store.apply("a.h5", WRITER, [dataset("/x", [2])], create=True)

    run(tmp_path, work)
    with h5py.File(path) as file:
        assert file["x"][:].tolist() == [2]


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/x", np.zeros(1000, "<i4"))], create=True)
        most = 8 << 20
        resource.prlimit(owner(store, tmp_path / "a.h5"), resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        with pytest.raises((StorageFull, StorageFailed)):
            await store.apply("a.h5", WRITER, [CreateGroup(name="/g"), dataset("/big", np.ones(16 << 20, "u1"))])
        await store.apply("a.h5", WRITER, [Write(name="/x", data=payload(1, "<i4"))])
        assert (await collect(await store.read("a.h5", "/x", ANYBODY, None)) == 1).all()

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"x"}


@pytest.mark.parametrize("again", [False, True])
def test_a_disk_that_is_full_when_a_commit_is_decided_already_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    path = tmp_path / "a.h5"
    aclose = Tenure.aclose

    async def with_room(tenure: Tenure, **options: Any) -> None:
        if again:  # there is room when the process ends, and before it is known what it had done
            resource.prlimit(tenure.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await aclose(tenure, **options)

    monkeypatch.setattr(Tenure, "aclose", with_room)

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "<i8", (1000,)), dataset("/big", [1] * 1000000)], create=True)
        # Room for the journal, none at the end of the file.
        most = path.stat().st_size + 4096
        resource.prlimit(owner(store, path), resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        rows = [Append(name="/t", data=payload(np.ones((10, 1000), "<i8")))]
        wrong = [Append(name="/t", data=payload(np.ones((10, 1), "<i8")))]
        told = await asyncio.gather(
            store.apply("a.h5", WRITER, rows, key="k"),
            store.apply("a.h5", WRITER, wrong),
            return_exceptions=True,
        )
        assert [type(each) for each in told] == [StorageFailed, InvalidRequest]
        assert "committed" in str(told[0])
        assert (await store.apply("a.h5", WRITER, rows, key="k")).repeated
        assert (await collect(await store.read("a.h5", "/t", ANYBODY, None))).shape == (10, 1000)

    run(tmp_path, work)


def test_a_change_behind_a_link_in_a_file_that_is_written_is_seen_at_once(tmp_path: Path) -> None:
    def put(count: int) -> None:
        with h5py.File(tmp_path / "new", "w") as file:
            file["numbers"] = np.full(count, count, "<i4")
            file["texts"] = np.array([str(count)] * count, h5py.string_dtype())
        (tmp_path / "new").rename(tmp_path / "b.h5")

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["out"] = h5py.ExternalLink("b.h5", "/")

    async def work(store: HDF5Store) -> None:
        put(1)
        await store.apply("a.h5", WRITER, [CreateGroup(name="/x")])
        for count in (1, 2, 3):
            put(count)
            for name, expected in (("/out/numbers", count), ("/out/texts", str(count).encode())):
                for _ in range(2):
                    found = await collect(await store.read("a.h5", name, ANYBODY, None))
                    assert found.tolist() == [expected] * count
            put(count + 10)
            assert store.read_at_hand("a.h5", "/out/numbers", ANYBODY, None) is None

    run(tmp_path, work)


def test_what_is_in_other_files_is_not_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["out"] = h5py.ExternalLink("b.h5", "/")
        layout = h5py.VirtualLayout((3,), "<i4")
        layout[:] = h5py.VirtualSource("b.h5", "x", (3,))
        file.create_virtual_dataset("virtual", layout)

    async def work(store: HDF5Store) -> None:
        for operation in (CreateGroup(name="/out/x"), Write(name="/virtual", data=payload(1, "<i4"))):
            with pytest.raises(Forbidden):
                await store.apply("a.h5", WRITER, [operation])
        with pytest.raises(UnsupportedFilter):
            await store.apply("a.h5", WRITER, [dataset("/z", [1], filters=(Filter(id=399, name="none"),))])

    run(tmp_path, work)


@pytest.mark.parametrize("namesake", [True, False])
def test_sources_in_other_files_are_not_mistaken_for_what_is_in_the_file_that_is_written(
    tmp_path: Path, namesake: bool
) -> None:
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.arange(3, dtype="<i4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if namesake:
            file["x"] = np.full(3, 77, "<i4")
        layout = h5py.VirtualLayout((3,), "<i4")
        layout[:] = h5py.VirtualSource("b.h5", "x", (3,))
        file.create_virtual_dataset("virtual", layout, fillvalue=-1)

    async def work(store: HDF5Store) -> None:
        await store.hold("a.h5", ANYBODY)
        with pytest.raises(DataError, match="another file"):
            await store.read("a.h5", "/virtual", ANYBODY, None)
        await store.release("a.h5", ANYBODY)
        assert (await collect(await store.read("a.h5", "/virtual", ANYBODY, None))).tolist() == [0, 1, 2]

    run(tmp_path, work)


def test_filters_go_with_elements_of_any_length_or_are_refused(tmp_path: Path) -> None:
    lzf, checked = Filter(id=32000, name="lzf"), Filter(id=3, name="fletcher32")
    texts = ["one", "zwei", "größe"]

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [dataset("/texts", texts, filters=(lzf, *GZIP))], create=True)
        with pytest.raises(InvalidRequest):
            await store.apply("a.h5", WRITER, [dataset("/checked", texts, filters=(checked,))])

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["texts"]
        assert file["texts"].asstr()[...].tolist() == texts


def test_compressed_chunks_are_stored_as_they_came(tmp_path: Path) -> None:
    frames = np.random.default_rng(4).poisson(3, (4, 64, 80)).astype("<u2")
    images = [pack(frame, "bslz4") for frame in frames]
    filters, _ = stored_chunk(images[0])

    async def work(store: HDF5Store) -> None:
        made = table("/f", "<u2", frames.shape[1:], chunks=(1, *frames.shape[1:]), filters=filters)
        await store.apply("a.h5", WRITER, [made], create=True)
        heard = aiter(store.follow("a.h5", ANYBODY, since=2))
        for number in (0, 1, 3):
            data = payload(np.frombuffer(images[number].payload, "u1"))
            await store.apply("a.h5", WRITER, [WriteChunk(name="/f", start=(number, 0, 0), data=data)])
        events = [await anext(heard) for _ in range(2)]
        assert [event.changes[0].appended for event in events] == [(1, 2), None]
        found = await collect(await store.read("a.h5", "/f", ANYBODY, None))
        assert np.array_equal(found[[0, 1, 3]], frames[[0, 1, 3]])
        assert not found[2].any()

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["f"][3], frames[3])
        assert file["f"].id.read_direct_chunk((1, 0, 0)) == (0, bytes(images[1].payload))


def test_a_chunk_is_rewritten_whether_it_packs_or_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 256, 4000).astype("u1")

    async def work(store: HDF5Store) -> None:
        for name, filters in (("/gzip", GZIP), ("/lzf", (Filter(id=32000, name="lzf", optional=True),))):
            await store.apply("a.h5", WRITER, [dataset(name, noise, chunks=(4000,), filters=filters)], create=True)
            for values in (np.zeros(4000, "u1"), noise, np.ones(4000, "u1")):
                await store.apply("a.h5", WRITER, [Write(name=name, data=payload(values))])
                assert np.array_equal(await collect(await store.read("a.h5", name, ANYBODY, None)), values)
                one = Write(name=name, selection=to_plain(select((slice(5, 6),), (4000,))), data=payload([7], "u1"))
                await store.apply("a.h5", WRITER, [one])

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        for each in file.values():
            assert each[5] == 7
            assert (np.delete(each[...], 5) == 1).all()


def test_nonsense_of_one_is_not_the_trouble_of_others(tmp_path: Path) -> None:
    def number(value: int) -> Resize:
        return Resize(name="/t", shape=(value,))

    async def work(store: HDF5Store) -> None:
        kind = from_numpy(h5py.regionref_dtype)
        made: list[Operation] = [
            table("/t", "<i8"),
            CreateGroup(name="/g"),
            CreateDataset(name="/r", dtype=kind, shape=(1,)),
        ]
        await store.apply("a.h5", WRITER, made, create=True)
        first = owner(store, tmp_path / "a.h5")

        def region(**value: Any) -> Write:
            return Write(name="/r", data=Payload(dtype=kind, shape=(1,), data=[value]))

        nonsense: list[Operation] = [
            number(1 << 70),
            number(1 << 64),
            number(1 << 63),
            number(-1),
            Insert(name="/t", index=1 << 70, data=payload([1], "<i8")),
            WriteChunk(name="/t", start=((1 << 64) - 8192,), data=payload(np.zeros(65536, "u1"))),
            dataset_of((1 << 40, 1 << 40)),
            dataset_of((1 << 62, 1 << 2)),
            region(name="/g", blocks=[]),
            region(name="/t", blocks=[[[3], [1]]]),
            region(name="/t", blocks=[[[-1], [1]]]),
            region(name="/t", blocks=["abc"]),
            region(name="/t", points=[[1, 2, 3]]),
            region(name="/t", points="abc"),
            region(name="/t", points=[[-1]]),
        ]

        async def refused(operation: Operation) -> None:
            with pytest.raises((InvalidRequest, UnsupportedDType)):
                await store.apply("a.h5", WRITER, [operation])

        async def row() -> None:
            await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([1], "<i8"))])

        await asyncio.gather(*(each for operation in nonsense for each in (row(), refused(operation), row())))
        assert owner(store, tmp_path / "a.h5") == first
        assert (await collect(await store.read("a.h5", "/t", ANYBODY, None))).size == 2 * len(nonsense)

    run(tmp_path, work)
    with h5py.File(tmp_path / "a.h5") as file:
        assert sorted(file) == ["g", "r", "t"]


def dataset_of(shape: tuple[int, ...]) -> CreateDataset:
    return CreateDataset(name="/huge", dtype=payload([1.0]).dtype, shape=shape)


def test_no_more_files_are_owned_than_allowed(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        async def write(*names: str) -> None:
            batch = [CreateGroup(name="/g", exist_ok=True)]
            await asyncio.gather(*(store.apply(f"{name}.h5", WRITER, batch, create=True) for name in names))

        for names in ("abcd", "efg", "hia", "bcde"):
            await write(*names)
            assert owners_alive() == 4

    run(tmp_path, work, Limits(writers=4))


def owners_alive() -> int:
    mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(b"hdf5.owner" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in mine)


def test_what_was_committed_is_told_however_long_it_takes_to_tell(tmp_path: Path) -> None:
    groups: list[Operation] = [CreateGroup(name=f"/{number:0200}") for number in range(1000)]
    limits = Limits(document=1 << 16)

    async def begin(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, groups, key="k", create=True)
        first = owner(store, tmp_path / "a.h5")
        os.kill(first, signal.SIGKILL)  # the next one finds the key in the journal, and tells of it
        await until(lambda: owned(store, tmp_path / "a.h5").pid not in (first, None))
        await store.apply("a.h5", WRITER, [dataset("/x", [1])])
        assert (await store.apply("a.h5", WRITER, groups, key="k")).repeated

    run(tmp_path, begin, limits)
    with h5py.File(tmp_path / "a.h5") as file:
        assert len(file) == 1001


def test_fifty_writers_lose_nothing(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "<i8")], create=True)

        async def client(number: int) -> None:
            for turn in range(10):
                await store.apply("a.h5", WRITER, [Append(name="/t", data=payload([number * 10 + turn], "<i8"))])

        await asyncio.gather(*(client(number) for number in range(50)))
        assert sorted(await collect(await store.read("a.h5", "/t", ANYBODY, None))) == list(range(500))
        assert (await store.state("a.h5", ANYBODY)).commit == 501

    run(tmp_path, work)


def test_who_gives_up_does_not_take_the_outcome_from_who_sent_the_same_again(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "<i8")], create=True)

        def begin(number: int, key: str) -> asyncio.Task[Committed]:
            row = Append(name="/t", data=payload([number], "<i8"))
            return asyncio.create_task(store.apply("a.h5", WRITER, [row], key=key))

        assert store._owners is not None
        owned = store._owners.get(str(tmp_path / "a.h5"))
        assert owned is not None
        async with owned._turn:  # what comes meanwhile has to wait
            before = begin(0, "before")
            for _ in range(3):
                await asyncio.sleep(0)
            first, unwanted, again = begin(1, "same"), begin(2, "unwanted"), begin(1, "same")
            for _ in range(3):
                await asyncio.sleep(0)
            first.cancel()
            unwanted.cancel()
            await asyncio.wait([first, unwanted])
        committed = await again
        assert committed.repeated
        assert (await before).number < committed.number
        assert (await collect(await store.read("a.h5", "/t", ANYBODY, None))).tolist() == [0, 1]
        assert not (await begin(2, "unwanted")).repeated

    run(tmp_path, work)


def test_above_several_roots_no_file_is_made(tmp_path: Path) -> None:
    async def work() -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        store = HDF5Store({"pub": tmp_path / "one", "priv": tmp_path / "two"}, writing=Writing())
        try:
            with pytest.raises(NotFound):
                await store.apply("new.h5", WRITER, [CreateGroup(name="/x")], create=True)
            await store.apply("priv/new.h5", WRITER, [CreateGroup(name="/x")], create=True)
        finally:
            await store.aclose()

    asyncio.run(work())
    assert [path.name for path in tmp_path.rglob("*.h5")] == ["new.h5"]


def test_a_store_without_leave_to_write_does_not(tmp_path: Path) -> None:
    async def work() -> None:
        with h5py.File(tmp_path / "a.h5", "w"):
            pass
        store = HDF5Store({"": tmp_path})
        with pytest.raises(Forbidden):
            await store.apply("a.h5", WRITER, [CreateGroup(name="/x")])
        await store.aclose()

    asyncio.run(work())
