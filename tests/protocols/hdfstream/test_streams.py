"""Arrays on their way out, above all those whose element type has axes of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import prod
from typing import Any

import anyio
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core import dtypes
from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.core.model import File, Group, SoftLink
from ndstream.core.ports import ANYBODY, Lent, Reading, Service
from ndstream.errors import DataError, InvalidSelection, OutOfBounds, UnsupportedDType
from ndstream.protocols.hdfstream import codec
from ndstream.protocols.hdfstream.cache import DocumentCache
from ndstream.protocols.hdfstream.messages import Request
from ndstream.protocols.hdfstream.service import HDFStream
from ndstream.protocols.hdfstream.streams import encoded_at_once, open_stream
from ndstream.stores.memory import MemoryStore
from ndstream.wire.buffers import BufferPool

PAIRS = dtypes.Array(base=dtypes.Integer(size=2, order=">"), shape=(2, 3))


class Fixed:
    """Elements of any fixed type, given as bytes, as a reading that yields so many of them at a time."""

    elsewhere = False

    def __init__(self, dtype: dtypes.DType, shape: tuple[int, ...], data: bytes, step: int, ready: bool) -> None:
        self.dtype = dtype
        self.shape = shape
        self.nbytes: int | None = len(data)
        self.ready = memoryview(data) if ready else None
        self._data = memoryview(data)
        self._step = step
        self.closed = False

    async def buffers(self) -> AsyncIterator[memoryview]:
        for start in range(0, len(self._data), self._step):
            yield self._data[start : start + self._step]

    async def elements(self) -> AsyncIterator[list[Any]]:
        for element in self._data:
            yield [bytes([element])]

    async def aclose(self) -> None:
        self.closed = True


class OneDataset(MemoryStore):
    """Has one dataset, of a type that numpy arrays cannot have by themselves."""

    def __init__(self, dtype: dtypes.DType, values: np.ndarray[Any, Any], rank: int, step: int, ready: bool) -> None:
        super().__init__()
        self._dtype, self._values, self._rank, self._step, self._ready = dtype, values, rank, step, ready
        self.readings: list[Fixed] = []

    async def read(self, path: str, name: str, access: Any, selection: Any) -> Reading:
        shape = self._values.shape[: self._rank]
        index = np.arange(prod(shape)).reshape(shape)
        chosen = selection(shape).apply(index)
        flat = self._values.reshape(prod(shape), -1)[chosen.ravel()]
        size = dtypes.item_size(self._dtype)
        assert size is not None
        self.readings.append(Fixed(self._dtype, chosen.shape, flat.tobytes(), self._step * size, self._ready))
        return self.readings[-1]


def ask(store: Any, slices: Any, *, extended: bool = False) -> Any:
    async def run() -> bytes:
        request = codec.parse_body(msgpack.packb({"object": "x", "slice": slices}), DEFAULT_LIMITS)
        answer = await HDFStream(Service(store=store)).answer("f.h5", request, ANYBODY, extended=extended)
        body = b""
        for part in answer.parts:
            if isinstance(part, bytes | memoryview):
                body += part
            else:
                async for piece in part.pieces():
                    assert not isinstance(piece, Lent)
                    body += piece
        assert answer.length in (None, len(body))
        await answer.aclose()
        return body

    return msgpack.unpackb(anyio.run(run))


@given(st.integers(0, 3), st.data(), st.integers(1, 4), st.booleans())
def test_stock_clients_may_slice_the_axes_of_an_array_type(
    rank: int, data: st.DataObject, step: int, ready: bool
) -> None:
    shape = tuple(data.draw(st.integers(1, 3)) for _ in range(rank)) + PAIRS.shape
    values = np.arange(prod(shape), dtype=">i2").reshape(shape)
    extents = []
    for size in shape:
        start = data.draw(st.integers(0, size))
        extents.append([start, data.draw(st.integers(0, size - start))])
    store = OneDataset(PAIRS, values, rank, step, ready)
    document = ask(store, extents)
    wanted = values[tuple(slice(start, start + count) for start, count in extents)]
    assert (document["type"], tuple(document["shape"])) == ("<i2", wanted.shape)
    assert b"".join(document["data"]) == wanted.astype("<i2").tobytes()
    assert store.readings[0].closed


@pytest.mark.parametrize("ready", [True, False])
def test_many_slices_of_a_scalar_that_is_an_array(ready: bool) -> None:
    store = OneDataset(PAIRS, np.arange(6, dtype=">i2").reshape(2, 3), 0, 1, ready)
    assert ask(store, "0,1:3;1,1:3")["data"] == [np.array([1, 2, 4, 5], "<i2").tobytes()]


def test_our_client_slices_the_axes_of_the_dataset_only() -> None:
    store = OneDataset(PAIRS, np.arange(24, dtype=">i2").reshape(4, 2, 3), 1, 1, False)
    document = ask(store, [[1, 2]], extended=True)
    assert (document["type"], document["shape"]) == (["<i2", [2, 3]], [2])
    assert document["data"] == [np.arange(6, 18, dtype="<i2").tobytes()]
    with pytest.raises(InvalidSelection):
        ask(store, [[1, 2], [0, 2], [0, 3]], extended=True)


@pytest.mark.parametrize(
    ("slices", "error"),
    [
        ([[0, 4]], InvalidSelection),
        ([[0, 4], [0, 2]], InvalidSelection),
        ([[0, 4], [0, 2], [0, 3], [0, 1]], InvalidSelection),
        ([[0, 4], [0, 2], [1, 3]], OutOfBounds),
    ],
)
def test_wrong_slices_of_such_axes_are_refused_and_nothing_stays_open(slices: Any, error: type[Exception]) -> None:
    store = OneDataset(PAIRS, np.arange(24, dtype=">i2").reshape(4, 2, 3), 1, 1, False)
    with pytest.raises(error):
        ask(store, slices)
    assert all(reading.closed for reading in store.readings)


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("kind", ["<i4", ">f8", "|S3", "<c8", "|b1", [("a", "<i2"), ("b", "<f4")], "<u1"])
def test_what_is_at_hand_is_encoded_as_any_stream_is(kind: Any, extended: bool) -> None:
    values = np.zeros((2, 300), kind)
    values.view("u1")[:] = np.arange(values.nbytes // 2, dtype="u4").astype("u1")
    reading = Fixed(dtypes.from_numpy(values.dtype), values.shape, values.tobytes(), 1, True)
    stream = open_stream(reading, BufferPool(0), extended=extended)
    whole = encoded_at_once(reading, extended=extended)
    assert whole is None if kind == ">f8" else whole == stream.ready


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("much", [3, 5])
def test_a_reading_that_gives_another_number_of_bytes_is_never_sent_as_a_whole(ready: bool, much: int) -> None:
    class Lying(OneDataset):
        async def read(self, path: str, name: str, access: Any, selection: Any) -> Reading:
            return Fixed(dtypes.Integer(size=1), (4,), bytes(much), 1, ready)

    with pytest.raises(DataError):
        ask(Lying(PAIRS, np.zeros(4), 1, 1, ready), "0:4")


def test_a_reading_that_gives_too_few_elements_is_never_sent_as_a_whole() -> None:
    class Lying(OneDataset):
        async def read(self, path: str, name: str, access: Any, selection: Any) -> Reading:
            return Fixed(dtypes.String(), (4,), b"abc", 1, False)

    with pytest.raises(DataError, match="1 are missing"):
        ask(Lying(PAIRS, np.zeros(4), 1, 1, False), "0:4")


def test_elements_that_cannot_be_read_are_refused() -> None:
    store = OneDataset(dtypes.Foreign(name="time", size=4), np.zeros((3, 4), "u1"), 1, 1, False)
    with pytest.raises(UnsupportedDType):
        ask(store, "0:3")
    assert store.readings[0].closed


# -- documents that are kept --


def test_a_document_is_kept_for_this_very_description() -> None:
    cache = DocumentCache(1000)
    one, same = (Group(attributes={}, members={"x": SoftLink(target="y")}) for _ in range(2))
    cache.put(one, "form", b"document")
    assert cache.get(one, "form") == b"document"
    assert cache.get(same, "form") is None
    assert cache.get(one, "other form") is None


def test_what_was_used_least_recently_goes_first() -> None:
    cache = DocumentCache(4 * 20)
    nodes = [SoftLink(target=str(n)) for n in range(3)]
    cache.put(nodes[0], 0, bytes(10))
    cache.put(nodes[1], 0, bytes(10))
    assert cache.get(nodes[0], 0)
    cache.put(nodes[2], 0, bytes(10))
    assert [cache.get(node, 0) is not None for node in nodes] == [True, False, True]
    cache.put(nodes[1], 0, bytes(21))
    assert cache.get(nodes[1], 0) is None
    assert cache.get(nodes[2], 0)


def test_the_same_description_is_encoded_once_and_a_new_one_again() -> None:
    class Keeping(MemoryStore):
        node = Group(attributes={}, members={f"m{n}": SoftLink(target="x") for n in range(1000)})

        async def describe(self, *_: Any) -> Any:
            return self.node

        async def lookup(self, *_: Any, **__: Any) -> Any:
            return File(path="f.h5", size=0, modified=0, media_type="", generation="1")

    async def run() -> list[Any]:
        store = Keeping()
        served = HDFStream(Service(store=store))
        found = [await served.answer("f.h5", Request("/"), ANYBODY, extended=False) for _ in range(2)]
        store.node = Group(attributes={}, members={})
        found.append(await served.answer("f.h5", Request("/"), ANYBODY, extended=False))
        return [answer.parts[0] for answer in found]

    first, second, third = anyio.run(run)
    assert first is second
    assert len(msgpack.unpackb(first)["members"]) == 1000
    assert msgpack.unpackb(third)["members"] == {}
