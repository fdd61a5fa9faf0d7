"""ndstream.aopen against a server of ours over real sockets; h5py is the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ndstream
from ndstream.errors import ConnectFailed, InvalidRequest, InvalidSelection, NotFound, OutOfBounds, UnsupportedMediaType
from ndstream.testing.fixtures import ServerFactory

Use = Callable[[Any], Awaitable[None]]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    (root / "d").mkdir()
    path = root / "d" / "f.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(6000, dtype=">i4").reshape(200, 30)
        file["x"].attrs["unit"] = "mm"
        file["t"] = np.array(["one", "zwei ü"], h5py.string_dtype())
        file["g/deep/s"] = 7.5
        file["link"] = h5py.SoftLink("/g/deep")
        packed = file.create_dataset("packed", (600, 1000), "<f4", chunks=(64, 300), compression="gzip", shuffle=True)
        packed[:250] = np.random.default_rng(1).integers(0, 99, (250, 1000))
        file["null"] = h5py.Empty("<f8")
    (root / "d" / "notes.txt").write_text("text")
    return path


@pytest.fixture(scope="module")
def url(ndstream_module_server: ServerFactory, local: Path) -> str:
    return ndstream_module_server(local.parent.parent).url


@pytest.fixture
def with_root(url: str) -> Callable[[Use], None]:
    """Run a coroutine function with the root directory of a server."""

    def run(use: Use) -> None:
        async def main() -> None:
            async with ndstream.aopen(url) as root:
                await use(root)

        asyncio.run(main())

    return run


def test_everything_is_as_h5py_reads_it(with_root: Callable[[Use], None], local: Path) -> None:
    async def use(root: Any) -> None:
        file = await root["d/f.h5"]
        with h5py.File(local) as expected:
            for name in ("x", "t", "g/deep/s", "link/s", "packed"):
                dataset = await file[name]
                assert dataset.dtype == expected[name].dtype
                np.testing.assert_array_equal(await dataset[...], expected[name][()])
            x = await file["x"]
            assert x.attrs["unit"] == "mm"
            np.testing.assert_array_equal(await x[[5, 1, 1], ::-2], expected["x"][()][[5, 1, 1], ::-2])
            rows = [row async for row in x]
            np.testing.assert_array_equal(rows, expected["x"][()])
            first, last = await file.read_many([(x, 0), (x, -1)])
            np.testing.assert_array_equal([first, last], expected["x"][()][[0, -1]])
            assert await file.read_many([]) == []
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(x[number]) for number in range(5)]
            np.testing.assert_array_equal([task.result() for task in tasks], expected["x"][()][:5])

    with_root(use)


def test_groups_and_directories_are_mappings_of_names(with_root: Callable[[Use], None]) -> None:
    async def use(root: Any) -> None:
        assert list(root) == ["d"]
        directory = await root["d"]
        assert sorted(directory) == ["f.h5", "notes.txt"]
        group = await (await directory["f.h5"]).root()
        assert list(group) == ["g", "link", "null", "packed", "t", "x"]
        assert [name async for name, _ in group.items()] == list(group)
        assert await (await (await group["g"])["deep/s"])[()] == 7.5
        null = await group["null"]
        assert (await null[()]).shape is None
        assert (await null[...,]).shape is None
        with pytest.raises(InvalidSelection):
            await null[np.array([1])]
        scalar = await group["g/deep/s"]
        assert isinstance(await scalar[...,], np.ndarray)

    with_root(use)


def test_a_read_goes_into_an_array_that_is_there(with_root: Callable[[Use], None]) -> None:
    async def use(root: Any) -> None:
        x = await (await root["d/f.h5"])["x"]
        out = np.zeros((2, 30), "<f8")
        assert await x.read(np.s_[3:5], out=out) is out
        np.testing.assert_array_equal(out, np.arange(90.0, 150).reshape(2, 30))
        with pytest.raises(InvalidRequest):
            await x.read(np.s_[3:5], out=np.zeros(3))

    with_root(use)


def test_hundreds_of_reads_at_once_are_all_right(with_root: Callable[[Use], None]) -> None:
    async def use(root: Any) -> None:
        x = await (await root["d/f.h5"])["x"]
        rows = await asyncio.gather(*[asyncio.ensure_future(x.read(n % 200)) for n in range(300)])
        np.testing.assert_array_equal(np.array(rows)[:, 0], np.arange(300) % 200 * 30)

    with_root(use)


def test_cancelled_reads_leave_nothing_behind(with_root: Callable[[Use], None], local: Path) -> None:
    with h5py.File(local) as file:
        expected = {name: file[name][()] for name in ("packed", "x")}

    async def use(root: Any) -> None:
        file = await root["d/f.h5"]
        datasets = {name: await file[name] for name in expected}
        for turn in range(40):
            name = ("packed", "x")[turn % 2]
            outs = [np.empty_like(expected[name]) for _ in range(3)]
            reads = [asyncio.create_task(datasets[name].read(out=out)) for out in outs]
            # Each time they get a little further: before the request, to the head, into the data, to the end.
            for _ in range(turn):
                await asyncio.sleep(0)
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
            for out in outs:
                out[...] = 255
            np.testing.assert_array_equal(await datasets["x"][turn], expected["x"][turn])
            # The memory is the caller's again: nobody writes into it any more.
            assert all((out == 255).all() for out in outs)
        np.testing.assert_array_equal(await datasets["packed"][...], expected["packed"])
        assert len(asyncio.all_tasks()) == 1

    with_root(use)


def test_errors_are_those_of_the_synchronous_client(with_root: Callable[[Use], None]) -> None:
    async def use(root: Any) -> None:
        file = await root["d/f.h5"]
        with pytest.raises(NotFound):
            await file["nothing"]
        with pytest.raises(OutOfBounds):
            await (await file["x"])[200]
        with pytest.raises(UnsupportedMediaType):
            await (await root["d/notes.txt"]).root()

    with_root(use)


def test_opening_can_be_awaited_alone_and_fails_typed() -> None:
    async def main() -> None:
        with pytest.raises(ConnectFailed):
            await ndstream.aopen("http://127.0.0.1:1", retries=0)

    asyncio.run(main())
    with pytest.raises(InvalidRequest, match="hdfstream"):
        ndstream.aopen("http://127.0.0.1:1/hdfstream")
