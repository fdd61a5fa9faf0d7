"""Large data on its way to the process that writes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ndstream.core.dtypes import from_numpy
from ndstream.core.operations import Append, Payload, Write
from ndstream.core.ports import ANYBODY
from ndstream.stores.hdf5.aside import INLINE, Aside, Laid, inline
from ndstream.stores.hdf5.messages import Batch, Spooled
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.stores.spools import SpoolFiles
from ndstream.testing.arrays import collect
from ndstream.testing.payloads import WRITER, payload, table

from .test_writing import run

U1 = from_numpy(np.dtype("u1"))
SIZES = (10, INLINE, INLINE + 1, 5 << 20, 9 << 20)


def data(nbytes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, nbytes, "u1")


def batch(*sizes: int) -> Batch:
    operations = [Write(name="/t", data=payload(data(nbytes, nbytes), "|u1")) for nbytes in sizes]
    return Batch(operations=tuple(operations))


def content(aside: Aside, laid: Laid) -> list[bytes]:
    found = []
    for operation in laid.batch.operations:
        assert isinstance(operation, Write)
        plain = operation.data.data
        if isinstance(plain, bytes):
            assert len(plain) <= INLINE
            found.append(plain)
        else:
            place = msgspec.convert(plain, Spooled)
            descriptor = aside.descriptor if place.descriptor is None else place.descriptor
            found.append(os.pread(descriptor, place.nbytes, place.offset))
    return found


def test_data_is_where_the_batch_says_however_many_come_at_once() -> None:
    async def work() -> None:
        aside = Aside()
        batches = [SIZES, (3 << 20,), (1 << 20,) * 7, (20,)]
        laid = await asyncio.gather(*(aside.lay(batch(*sizes)) for sizes in batches))
        for each, sizes in zip(laid, batches, strict=True):
            assert content(aside, each) == [data(nbytes, nbytes).tobytes() for nbytes in sizes]

    asyncio.run(work())


@pytest.mark.parametrize("reached", [True, False])
def test_what_lies_in_a_file_that_is_reached_is_not_laid_anywhere(reached: bool) -> None:
    async def work() -> None:
        aside = Aside()
        aside.reached = reached
        whole = data(6 << 20)
        file = SpoolFiles().take()
        file.write(0, whole)
        body = file.mapped(whole.size)
        parts = (body[5 : 5 + (2 << 20)], body[3 << 20 :], body[100:200], whole.data)
        writes = [Write(name="/t", data=Payload(dtype=U1, shape=(part.nbytes,), data=part)) for part in parts]
        laid = await aside.lay(Batch(operations=tuple(writes)))
        assert content(aside, laid) == [bytes(part) for part in parts]
        assert (aside.nbytes < 7 << 20) == reached

    asyncio.run(work())


def test_what_is_laid_beside_a_batch_without_data_begins_on_a_page() -> None:
    async def work() -> None:
        aside = Aside()
        await aside.lay(Batch(operations=()))
        assert (await aside.lay(batch(1 << 20))).begin % 4096 == 0

    asyncio.run(work())


def test_room_is_used_again() -> None:
    async def work() -> None:
        aside = Aside()
        first, second, third = [await aside.lay(batch(4 << 20)) for _ in range(3)]
        aside.clear(second.begin)
        small, large = await aside.lay(batch(1 << 20)), await aside.lay(batch(4 << 20))
        assert small.begin == second.begin  # it fits into the gap, the other does not
        assert large.begin > third.begin
        for laid in (first, third, small, large):
            aside.clear(laid.begin)
        assert aside.nbytes == 0
        assert (await aside.lay(batch(12 << 20))).begin == 0

    asyncio.run(work())


def test_what_is_small_goes_with_the_message() -> None:
    (operation,) = inline(batch(INLINE)).operations
    assert isinstance(operation, Write)
    assert operation.data.data == bytes(data(INLINE, INLINE))


def test_writers_who_wait_and_give_up_leave_no_data_behind(tmp_path: Path) -> None:
    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "|u1")], create=True)
        assert store._owners is not None
        owned = store._owners.get(str(tmp_path / "a.h5"))
        assert owned is not None
        assert owned._tenure is not None
        aside = owned._tenure.aside

        def begin(seed: int) -> asyncio.Task[object]:
            rows = Append(name="/t", data=payload(data(1 << 20, seed), "|u1"))
            return asyncio.create_task(store.apply("a.h5", WRITER, [rows]))

        async with owned._turn:  # what comes meanwhile has to wait
            writers = [begin(0)]
            for _ in range(3):
                await asyncio.sleep(0)
            writers += map(begin, (1, 2, 3))
            for _ in range(3):
                await asyncio.sleep(0)
            assert aside.nbytes >= 4 << 20, "it was not laid aside while it waited"
            writers[3].cancel()
            writers[1].cancel()
            await asyncio.wait([writers[1], writers[3]])
        await asyncio.gather(writers[0], writers[2])
        rows = await collect(await store.read("a.h5", "/t", ANYBODY, None))
        assert np.array_equal(rows, np.concatenate([data(1 << 20, seed) for seed in (0, 2)]))
        await asyncio.gather(*owned._tasks)
        assert aside.nbytes == 0

    run(tmp_path, work)


def test_no_room_fails_those_alone_whose_data_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ndstream.errors import Busy
    from ndstream.stores.spools import SpoolFile

    async def work(store: HDF5Store) -> None:
        await store.apply("a.h5", WRITER, [table("/t", "|u1")], create=True)

        def full(self: SpoolFile, offset: int, data: object) -> None:
            raise Busy("no room for temporary files on the server")

        with monkeypatch.context() as patch:
            patch.setattr(SpoolFile, "write", full)
            large, small = [
                store.apply("a.h5", WRITER, [Append(name="/t", data=payload(data(nbytes), "|u1"))])
                for nbytes in (1 << 20, 10)
            ]
            failed, done = await asyncio.gather(large, small, return_exceptions=True)
        assert isinstance(failed, Busy)
        assert not isinstance(done, BaseException)
        assert (await collect(await store.read("a.h5", "/t", ANYBODY, None))).size == 10

    run(tmp_path, work)
