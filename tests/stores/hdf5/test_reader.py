"""What the reader gives is what h5py reads, whatever the storage, the selection and the limits."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.dtypes import Foreign, Integer, String
from ndstream.core.limits import Limits, MiB
from ndstream.core.model import Dataset
from ndstream.core.ports import Lending, Lent
from ndstream.core.selection import Selection, everything, ranges, select
from ndstream.errors import Corrupt, Replaced, TooLarge, UnsupportedDType
from ndstream.stores.hdf5.decode import Pipeline
from ndstream.stores.hdf5.descriptors import OpenFile
from ndstream.stores.hdf5.layout import Chunked, Library
from ndstream.stores.hdf5.messages import Located
from ndstream.stores.hdf5.pages import lend
from ndstream.stores.hdf5.reader import Reader
from ndstream.testing.strategies import grids, selections, shapes

T = TypeVar("T")
Locate = Callable[..., Located]

_TINY = Limits(piece=48, request_memory=160, buffers=400, inline_data=8, spool=500, chunk_cache=200)
_DTYPES = ("u1", ">i4", "<f8", "S3", "c16", "?", [("a", "<i2"), ("b", ">f8", (2,))])
_FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"compression": "gzip"},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"compression": "lzf", "shuffle": True},
    {"fletcher32": True},
    dict(hdf5plugin.Bitshuffle()),
    dict(hdf5plugin.Zstd()),
)


async def _no_fetch(*_: Any) -> bytes:
    raise AssertionError("the library is not needed for this")


def _run(limits: Limits, work: Callable[[Reader], Awaitable[T]]) -> T:
    async def main() -> T:
        reader = Reader(limits, threads=2)
        try:
            result = await work(reader)
            # What was abandoned while threads worked on it counts until they are through.
            while reader.budget.used:
                await asyncio.to_thread(lambda: None)
            return result
        finally:
            await reader.aclose()

    return asyncio.run(main())


async def _read(reader: Reader, located: Located, selection: Selection, fetch: Any = _no_fetch) -> bytes:
    reading = await reader.open(located, selection, fetch)
    assert reading.shape == selection.shape
    buffers = [bytes(buffer) async for buffer in reading.buffers()]
    data = b"".join(buffers)
    assert reading.nbytes == len(data)
    if reading.ready is not None:
        assert bytes(reading.ready) == data
    await reading.aclose()
    return data


def _values(dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    itemsize = np.dtype(dtype).itemsize
    data = np.arange(int(np.prod(shape)) * itemsize, dtype=np.uint32).astype(np.uint8)
    values: NDArray[Any] = (data % 2 if np.dtype(dtype) == bool else data).view(dtype).reshape(shape)
    return values


def _box(values: NDArray[Any], start: Any, count: Any, step: Any) -> NDArray[Any]:
    box: NDArray[Any] = values[tuple(slice(b, b + n * s, s) for b, n, s in zip(start, count, step, strict=True))]
    return box


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_selection_of_every_storage_is_as_h5py_reads_it(data: st.DataObject, locate: Locate) -> None:
    shape = data.draw(shapes(max_rank=3, max_side=9))
    values = _values(data.draw(st.sampled_from(_DTYPES)), shape)
    options: dict[str, Any] = {}
    chunked: bool = data.draw(st.booleans())
    if shape and chunked:
        options = {
            "chunks": data.draw(grids(shape)),
            "maxshape": [None] * len(shape),
            **data.draw(st.sampled_from(_FILTERS)),
        }
    if data.draw(st.booleans()) and values.dtype.kind in "uif":
        options["fillvalue"] = 7
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        with h5py.File(path, "w", libver=data.draw(st.sampled_from(("earliest", "latest")))) as file:
            dataset = file.create_dataset("x", shape, values.dtype, **options)
            written = data.draw(st.tuples(*[st.slices(side) for side in shape]))
            if values.size and all(part.step is None or part.step > 0 for part in written):
                dataset[written] = values[written]
            expected = np.asarray(dataset[()], values.dtype).reshape(shape)
        located = locate(path, "x")
        chosen = [data.draw(selections(shape)) for _ in range(3)] + [everything(shape)]
        limits = data.draw(st.sampled_from((Limits(), _TINY)))

        async def fetch(start: Any, count: Any, step: Any, most: int) -> bytes:
            return _box(expected, start, count, step).tobytes()

        async def work(reader: Reader) -> None:
            for selection in chosen:
                got = await _read(reader, located, selection, fetch)
                assert got == np.ascontiguousarray(selection.apply(expected)).tobytes()

        _run(limits, work)


@pytest.fixture
def gzipped(tmp_path: Path) -> tuple[Path, NDArray[np.float32]]:
    path = tmp_path / "gzipped.h5"
    values = np.arange(400 * 400, dtype="<f4").reshape(400, 400)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(40, 40), compression="gzip", shuffle=True)
        file.create_dataset("y", data=values)
    return path, values


@pytest.mark.parametrize("spool", [1 << 30, 0, 150_000])
def test_a_band_larger_than_memory_comes_in_order(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate, spool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, values = gzipped
    decoded = 0
    original = Pipeline.decode

    def counting(self: Pipeline, *arguments: Any) -> None:
        nonlocal decoded
        decoded += 1
        original(self, *arguments)

    monkeypatch.setattr(Pipeline, "decode", counting)
    limits = Limits(piece=8_000, request_memory=40_000, spool=spool, chunk_cache=0)
    located = locate(path, "x")
    got = _run(limits, lambda reader: _read(reader, located, everything(values.shape)))
    assert got == values.tobytes()
    if spool == 1 << 30:
        assert decoded == 100


def test_steps_backwards_go_through_the_spool_too(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    limits = Limits(piece=8_000, request_memory=40_000, chunk_cache=0)
    selection = select((slice(None, None, -3), slice(390, 1, -1)), values.shape)
    located = locate(path, "x")
    assert _run(limits, lambda reader: _read(reader, located, selection)) == values[::-3, 390:1:-1].tobytes()


def _without_suspension(awaitable: Any) -> Any:
    with pytest.raises(StopIteration) as ended:
        awaitable.send(None)
    return ended.value.value


def test_a_small_read_does_not_leave_the_event_loop(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    located = locate(path, "y")
    path.read_bytes()  # into the page cache

    async def work(reader: Reader) -> None:
        reading = _without_suspension(reader.open(located, select((3, slice(5, 9)), values.shape), _no_fetch))
        assert bytes(reading.ready) == values[3, 5:9].tobytes()

    _run(Limits(), work)


def test_a_chunk_that_was_decoded_before_is_at_hand(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    located = locate(path, "x")

    async def work(reader: Reader) -> None:
        await _read(reader, located, select((3, 5), values.shape))
        reading = _without_suspension(reader.open(located, select((4, slice(5, 9)), values.shape), _no_fetch))
        assert bytes(reading.ready) == values[4, 5:9].tobytes()

    _run(Limits(), work)


def test_small_results_are_complete_when_opened(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    located = locate(path, "x")

    async def work(reader: Reader) -> None:
        reading = await reader.open(located, select((slice(None), 7), values.shape), _no_fetch)
        assert reading.ready is not None
        assert bytes(reading.ready) == values[:, 7].tobytes()

    _run(Limits(), work)


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_file_that_was_written_to_is_noticed_before_the_last_byte(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate, name: str
) -> None:
    path, values = gzipped
    located = locate(path, name)

    async def work(reader: Reader) -> int:
        reading = await reader.open(located, everything(values.shape), _no_fetch)
        got = 0
        with pytest.raises(Replaced):
            async for buffer in reading.buffers():
                got += len(buffer)
                os.utime(path, ns=(1, 1))
        return got

    assert _run(Limits(piece=64_000, request_memory=300_000), work) < values.nbytes


def test_another_file_at_the_same_path_is_noticed(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    located = locate(path, "y")
    path.rename(path.with_suffix(".old"))

    async def work(reader: Reader) -> None:
        with pytest.raises(Replaced):
            await reader.open(located, everything(values.shape), _no_fetch)
        path.write_bytes(path.with_suffix(".old").read_bytes())
        with pytest.raises(Replaced):
            await reader.open(located, everything(values.shape), _no_fetch)

    _run(Limits(), work)


def test_a_file_opened_before_it_was_replaced_is_read_to_the_end(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate
) -> None:
    path, values = gzipped
    located = locate(path, "y")

    async def work(reader: Reader) -> None:
        reading = await reader.open(located, everything(values.shape), _no_fetch)
        path.unlink()
        path.write_bytes(b"something else")
        assert b"".join([bytes(buffer) async for buffer in reading.buffers()]) == values.tobytes()

    _run(Limits(piece=64_000), work)


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_file_that_is_cut_short_never_looks_complete(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate, name: str
) -> None:
    path, values = gzipped
    located = locate(path, name)

    async def work(reader: Reader) -> None:
        reading = await reader.open(located, everything(values.shape), _no_fetch)
        os.truncate(path, 3000)
        with pytest.raises((Replaced, Corrupt)):
            async for _ in reading.buffers():
                pass

    _run(Limits(piece=64_000, request_memory=300_000), work)


@pytest.fixture
def bulk(tmp_path: Path) -> tuple[Path, NDArray[np.uint8]]:
    """A file of which a reading lends something."""
    path, values = tmp_path / "bulk.h5", np.random.default_rng(2).integers(0, 256, 7 * MiB, np.uint8)
    with h5py.File(path, "w") as file:
        file["x"] = values
    with path.open("rb") as file:
        if lend(file.fileno(), 0, MiB) is None:
            pytest.skip("this kernel does not say what is in memory")
    return path, values


def test_bulk_data_is_lent_but_for_its_end(bulk: tuple[Path, NDArray[np.uint8]], locate: Locate) -> None:
    path, values = bulk

    async def work(reader: Reader) -> None:
        reading = await reader.open(locate(path, "x"), everything(values.shape), _no_fetch)
        assert isinstance(reading, Lending)
        pieces = [piece async for piece in reading.lend()]
        assert [isinstance(piece, Lent) for piece in pieces] == [True, True, False]
        found = [bytes(piece.for_kernel if isinstance(piece, Lent) else piece) for piece in pieces]
        assert b"".join(found) == values.tobytes()

    _run(Limits(), work)


@pytest.mark.parametrize("sent", [1, 2])
def test_what_is_written_to_while_it_is_lent_never_looks_complete(
    bulk: tuple[Path, NDArray[np.uint8]], locate: Locate, sent: int
) -> None:
    path, values = bulk

    async def work(reader: Reader) -> None:
        reading = await reader.open(locate(path, "x"), everything(values.shape), _no_fetch)
        assert isinstance(reading, Lending)
        came = 0
        with pytest.raises(Replaced):
            async for piece in reading.lend():
                came += 1
                assert isinstance(piece, Lent)
                if came == sent:
                    os.utime(path, ns=(1, 1))
        assert came == sent

    _run(Limits(), work)


def test_a_disk_that_fails_leaves_the_budget_as_it_was(
    tmp_path: Path, locate: Locate, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, values = tmp_path / "bulk.h5", np.arange(MiB, dtype="f4")
    with h5py.File(path, "w") as file:
        file["x"] = values

    def fails(self: OpenFile, offset: int, out: memoryview) -> bool:
        raise Corrupt("the file cannot be read (Input/output error)")

    async def work(reader: Reader) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(OpenFile, "read_now", fails)
            with pytest.raises(Corrupt):
                await _read(reader, locate(path, "x"), everything(values.shape))
        assert reader.budget.used == 0
        assert await _read(reader, locate(path, "x"), everything(values.shape)) == values.tobytes()

    _run(Limits(), work)


def test_damaged_chunks_are_reported(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    layout = locate(path, "x").layout
    assert isinstance(layout, Chunked)
    offset = int(np.frombuffer(layout.offsets, "<u8")[55])
    data = bytearray(path.read_bytes())
    data[offset + 20 : offset + 30] = bytes(10)
    path.write_bytes(data)
    located = locate(path, "x")

    async def work(reader: Reader) -> None:
        with pytest.raises(Corrupt):
            await _read(reader, located, everything(values.shape))
        with pytest.raises(Corrupt):
            await reader.open(located, select((220, 220), values.shape), _no_fetch)
        assert await _read(reader, located, select((0,), values.shape)) == values[0].tobytes()

    _run(Limits(), work)


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_reading_can_be_given_up_at_any_moment(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate, name: str
) -> None:
    path, values = gzipped
    located = locate(path, name)

    async def work(reader: Reader) -> None:
        for count in range(6):
            reading = await reader.open(located, everything(values.shape), _no_fetch)
            buffers = reading.buffers()
            for _ in range(count):
                await anext(buffers)
            await reading.aclose()
            await reading.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(buffers)
        assert await _read(reader, located, everything(values.shape)) == values.tobytes()

    _run(Limits(piece=64_000, request_memory=300_000), work)


def test_cancelled_readers_leave_the_budget_as_it_was(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate
) -> None:
    path, values = gzipped
    located = locate(path, "x")

    async def work(reader: Reader) -> None:
        tasks = [asyncio.create_task(_read(reader, located, everything(values.shape))) for _ in range(6)]
        for task in tasks[::2]:
            await asyncio.to_thread(lambda: None)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result == values.tobytes() for result in results[1::2])

    _run(Limits(piece=64_000, request_memory=100_000, buffers=200_000), work)


def test_many_readings_at_once_take_turns_within_the_budget(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate
) -> None:
    path, values = gzipped
    located = locate(path, "x")
    limits = Limits(piece=64_000, request_memory=100_000, buffers=250_000)

    async def watched(reader: Reader) -> None:
        reading = await reader.open(located, everything(values.shape), _no_fetch)
        got = []
        async for buffer in reading.buffers():
            got.append(bytes(buffer))
            assert reader.budget.used <= limits.buffers
            await asyncio.to_thread(lambda: None)
        assert b"".join(got) == values.tobytes()

    async def work(reader: Reader) -> None:
        await asyncio.gather(*[watched(reader) for _ in range(20)])

    _run(limits, work)


def test_a_stalled_reader_does_not_stop_others(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    located = locate(path, "y")

    async def work(reader: Reader) -> None:
        stalled = await reader.open(located, everything(values.shape), _no_fetch)
        await anext(stalled.buffers())
        for _ in range(3):
            assert await _read(reader, located, everything(values.shape)) == values.tobytes()
        await stalled.aclose()

    _run(Limits(piece=64_000, request_memory=300_000, buffers=400_000), work)


@pytest.mark.parametrize("name", ["x", "y"])
def test_however_many_readers_stall_others_go_on(
    gzipped: tuple[Path, NDArray[np.float32]], locate: Locate, name: str
) -> None:
    path, values = gzipped
    located = locate(path, name)
    limits = Limits(piece=64_000, request_memory=300_000, buffers=400_000)

    async def work(reader: Reader) -> None:
        stalled = [await reader.open(located, everything(values.shape), _no_fetch) for _ in range(20)]
        async with asyncio.timeout(60):
            for one in stalled:
                await anext(one.buffers())
            assert reader.budget.used <= limits.buffers // 2
            assert await _read(reader, located, everything(values.shape)) == values.tobytes()
        for one in stalled:
            await one.aclose()

    _run(limits, work)


def _library(dtype: Any, shape: tuple[int, ...], chunks: tuple[int, ...] | None = None) -> Located:
    dataset = Dataset(dtype=dtype, shape=shape, maxshape=shape, attributes={})
    return Located(dataset=dataset, layout=Library(reason="test", chunks=chunks), file="", generation="")


@given(data=st.data())
def test_boxes_from_a_worker_make_every_selection(data: st.DataObject) -> None:
    shape = data.draw(shapes(max_rank=3))
    values = np.arange(int(np.prod(shape)), dtype="<i4").reshape(shape)
    chunks = data.draw(st.none() | grids(shape)) if shape else None
    selection = data.draw(selections(shape))

    async def fixed(start: Any, count: Any, step: Any, most: int) -> bytes:
        return _box(values, start, count, step).tobytes()

    async def elements(start: Any, count: Any, step: Any, most: int) -> list[Any]:
        found = [[number, number] for number in _box(values, start, count, step).reshape(-1).tolist()]
        if len(found) > 5:
            raise TooLarge("at most five at a time")
        return found

    async def work(reader: Reader) -> None:
        expected = np.ascontiguousarray(selection.apply(values))
        assert await _read(reader, _library(Integer(size=4), shape, chunks), selection, fixed) == expected.tobytes()
        small = chunks if chunks and np.prod(chunks) <= 5 else (1,) * len(shape)
        reading = await reader.open(_library(String(), shape, small), selection, elements)
        assert reading.nbytes is None
        got = [element async for some in reading.elements() for element in some]
        assert got == [[number, number] for number in expected.reshape(-1).tolist()]

    _run(data.draw(st.sampled_from((Limits(), _TINY))), work)


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ((3, slice(4, 8)), [((3, 4), (1, 4), (1, 1))]),
        ((slice(4, 6), slice(None)), [((4, 0), (2, 10), (1, 1))]),
        ((slice(3, 5), 2), [((3, 2), (1, 1), (1, 1)), ((4, 2), (1, 1), (1, 1))]),
        ((3, slice(4, 8, 2)), [((3, 4), (1, 3), (1, 1))]),
    ],
)
def test_of_each_cell_one_box_is_asked_for(key: Any, asked: list[Any]) -> None:
    values = np.arange(80, dtype="<i4").reshape(8, 10)
    found: list[Any] = []

    async def fetch(start: Any, count: Any, step: Any, most: int) -> bytes:
        found.append((start, count, step))
        return _box(values, start, count, step).tobytes()

    async def work(reader: Reader) -> None:
        selection = select(key, values.shape)
        expected = np.ascontiguousarray(values[key]).tobytes()
        assert await _read(reader, _library(Integer(size=4), values.shape, (4, 10)), selection, fetch) == expected
        assert found == asked

    _run(Limits(), work)


def test_an_answer_of_the_wrong_size_is_not_believed() -> None:
    async def short(*_: Any) -> bytes:
        return b"123"

    async def work(reader: Reader) -> None:
        with pytest.raises(Corrupt):
            await reader.open(_library(Integer(size=4), (3,)), everything((3,)), short)

    _run(Limits(), work)


def test_types_that_nobody_can_read_are_refused() -> None:
    async def work(reader: Reader) -> None:
        with pytest.raises(UnsupportedDType):
            await reader.open(_library(Foreign(name="time", size=4), (3,)), everything((3,)), _no_fetch)

    _run(Limits(), work)


def test_a_chunk_beyond_the_limit_is_refused(gzipped: tuple[Path, NDArray[np.float32]], locate: Locate) -> None:
    path, values = gzipped
    located = locate(path, "x")

    async def work(reader: Reader) -> None:
        with pytest.raises(TooLarge, match="chunk"):
            await reader.open(located, everything(values.shape), _no_fetch)

    _run(Limits(chunk=1000), work)


_LARGE = (600, 40, 60)  # of two-byte numbers: rows of 4800 bytes


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint16]]:
    path = tmp_path_factory.mktemp("large") / "large.h5"
    values = np.random.default_rng(3).integers(0, 1 << 16, _LARGE, np.uint16)
    with h5py.File(path, "w") as file:
        file["contiguous"] = values
        file.create_dataset("plain chunks", data=values, chunks=(100, 40, 16))
        file.create_dataset("shuffled", data=values, chunks=(7, 40, 60), shuffle=True, fletcher32=True)
    return path, values


def _some(count: int, side: int) -> NDArray[np.int64]:
    return np.random.default_rng(count).integers(0, side, count)


def _multi_slice(longest: int) -> Selection:
    starts = _some(3000, _LARGE[0] - longest)
    counts = _some(3001, longest)[:3000] + 1
    return ranges(_LARGE, starts, counts, ((3, 30), (0, 60)))


_SELECTIONS: dict[str, Selection] = {
    "column": select((slice(None), 5, 7), _LARGE),
    "backwards": select((slice(None, None, -7), slice(None, None, -3), slice(None, None, 2)), _LARGE),
    "one plane": select((slice(None), slice(None), 59), _LARGE),
    "half rows": select((slice(None), slice(0, 20)), _LARGE),
    "rows in any order": select(_some(4000, 600), _LARGE),
    "short rows in any order": select((_some(4000, 600), slice(2, 3), slice(10, 20)), _LARGE),
    "indices of two axes": select((_some(40_000, 600), _some(40_000, 40), slice(4, 9)), _LARGE),
    "points": select((_some(50_000, 600), _some(50_000, 40), _some(50_000, 60)), _LARGE),
    "points in order": select((np.sort(_some(50_000, 600)), 3, 5), _LARGE),
    "mask": select(np.random.default_rng(4).random(_LARGE) < 0.1, _LARGE),
    "many ranges": _multi_slice(1),
    "many ranges of many lengths": _multi_slice(12),
}


@pytest.mark.parametrize("selection", _SELECTIONS.values(), ids=_SELECTIONS.keys())
def test_many_runs_come_to_their_places(
    large: tuple[Path, NDArray[np.uint16]], locate: Locate, selection: Selection
) -> None:
    path, values = large
    expected = np.ascontiguousarray(selection.apply(values)).tobytes()

    async def work(reader: Reader) -> None:
        for name in ("contiguous", "plain chunks", "shuffled"):
            assert await _read(reader, locate(path, name), selection) == expected, name

    _run(Limits(piece=256 << 10, request_memory=1 << 20, chunk_cache=1 << 20), work)
