"""Client and server joined in memory: what a flow brings is what numpy takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.client.reading import decode_here
from ndstream.core.selection import select
from ndstream.errors import Corrupt, NotFound, OutOfBounds, ProtocolError, UnsupportedDType
from ndstream.protocols.native.flows import NativeFlows, Wanted
from ndstream.stores.hdf5.decode import pipeline
from ndstream.stores.memory import Array, Group, MemoryStore

from .conftest import Peer
from .driver import ChunkReading, ChunkStore, drive

FLOWS = NativeFlows("memory")
TYPES = [
    np.arange(60, dtype=">i2").reshape(5, 12),
    np.arange(60, dtype="<f8").reshape(5, 12),
    np.array([[b"a", b"bc", b""]] * 4, "S2"),
    np.array([["x", "yü"], ["", "z"]], h5py.string_dtype()),
    np.zeros((3, 2), np.dtype([("n", "<i2"), ("x", "<f8")], align=True)),
    np.zeros((3, 0), "<f4"),
]


def read(peer: Peer, name: str, key: Any, array: NDArray[Any]) -> NDArray[Any]:
    selection = select(key, array.shape)
    destination = np.empty(selection.shape, array.dtype)
    drive(FLOWS.read("f.h5", [Wanted(name, selection, destination)]), peer)
    return destination


@pytest.mark.parametrize("array", TYPES, ids=lambda array: str(array.dtype))
def test_elements_arrive_as_they_are_stored(array: NDArray[Any]) -> None:
    if array.dtype.hasobject:
        texts = np.array([text.encode() for text in array.flat], array.dtype).reshape(array.shape)
        array = texts
    peer = Peer(MemoryStore({"f.h5": Group({"x": Array(array)})}))
    for key in (..., np.s_[::-1], np.s_[1:2], np.s_[[0, 2, 0]] if len(array) > 2 else 0):
        np.testing.assert_array_equal(read(peer, "/x", key, array), array[key])


def test_many_datasets_come_in_one_answer() -> None:
    peer = Peer(MemoryStore({"f.h5": Group({str(n): Array(array) for n, array in enumerate(TYPES[:3])})}))
    wanted = [Wanted(f"/{n}", select(..., a.shape), np.empty_like(a)) for n, a in enumerate(TYPES[:3])]
    drive(FLOWS.read("f.h5", wanted), peer)
    for each, array in zip(wanted, TYPES, strict=False):
        np.testing.assert_array_equal(each.destination, array)


def test_errors_come_back_as_themselves() -> None:
    peer = Peer(MemoryStore({"f.h5": Group({"x": Array(TYPES[0])})}))
    with pytest.raises(NotFound, match=r"memory: /f\.h5::/y"):
        drive(FLOWS.describe("f.h5", "/y", depth=0, data=0), peer)
    with pytest.raises(OutOfBounds):
        drive(FLOWS.read("f.h5", [Wanted("/x", select(8, (9, 12)), np.empty(12, ">i2"))]), peer)
    with pytest.raises(ProtocolError, match="shape"):
        drive(FLOWS.read("f.h5", [Wanted("/x", select(..., (5, 12)), np.empty((5, 11), ">i2"))]), peer)


@pytest.fixture(scope="module")
def chunked() -> Iterator[h5py.File]:
    rng = np.random.default_rng(3)
    with h5py.File("stored", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("x", (50, 40), "<i4", chunks=(8, 16), compression="gzip", shuffle=True, fillvalue=-1)
        data[:30] = rng.integers(0, 50, (30, 40))
        file["plain"] = np.arange(10)
        yield file


def stored(peer: Peer, source: h5py.Dataset, key: Any) -> NDArray[Any]:
    selection = select(key, source.shape)
    destination = np.zeros(selection.shape, source.dtype)
    described = ChunkReading(source, selection).dataset
    decode = pipeline(described.filters, 8 * 16 * 4).decode
    wanted = Wanted("/x", selection, destination)
    drive(FLOWS.read_stored("f.h5", wanted, described, decode), peer)
    return destination


INDEX = st.integers(-40, 39)
PLAIN = st.one_of(st.slices(40), INDEX)
INDICES = st.lists(INDEX, max_size=20)
PAIRS = st.lists(st.tuples(INDEX, INDEX), max_size=20)
POINTS = PAIRS.map(lambda pairs: tuple(np.array(pairs, int).reshape(-1, 2).T))
KEYS = st.one_of(st.tuples(PLAIN, PLAIN), st.tuples(INDICES, PLAIN), st.tuples(PLAIN, INDICES), POINTS)


@settings(max_examples=60, deadline=None)
@given(key=KEYS)
def test_stored_chunks_decode_to_what_was_selected(chunked: h5py.File, key: Any) -> None:
    peer = Peer(ChunkStore(chunked))
    whole = chunked["x"][()]
    selection = select(key, whole.shape)
    np.testing.assert_array_equal(stored(peer, chunked["x"], key), selection.apply(whole))


def test_a_damaged_chunk_is_an_error_of_its_own(chunked: h5py.File, monkeypatch: pytest.MonkeyPatch) -> None:
    async def buffers(self: ChunkReading) -> Any:
        yield memoryview(bytes(self.nbytes))

    monkeypatch.setattr(ChunkReading, "buffers", buffers)
    with pytest.raises(Corrupt):
        stored(Peer(ChunkStore(chunked)), chunked["x"], ...)


def test_a_store_without_stored_chunks_says_so(chunked: h5py.File) -> None:
    peer = Peer(MemoryStore({"f.h5": Group({"x": Array(chunked["x"][()])})}))
    with pytest.raises(UnsupportedDType):
        stored(peer, chunked["x"], ...)


def test_chunks_are_decoded_here_only_where_it_pays() -> None:
    with h5py.File("pays", "w", driver="core", backing_store=False) as file:
        source = file.create_dataset("x", (1024, 1024), "<f4", chunks=(64, 1024), compression="gzip")
        described = ChunkReading(source, select(..., source.shape)).dataset

        def pays(key: Any) -> bool:
            return decode_here(described, select(key, source.shape)) is not None

        assert pays(...)
        assert not pays(np.s_[:, 3])
        assert not pays(np.s_[:10])
        assert not pays(np.s_[::64])
