"""Chunks that skipped filters and chunks that did not, one in place of the other: the elements stay what they are."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.model import Filter
from ndstream.core.operations import Append, Insert, Operation, Resize, Write, WriteChunk
from ndstream.core.selection import select, to_plain
from ndstream.stores.hdf5.masks import put, unmask
from ndstream.stores.hdf5.messages import Fetch, Fetched
from ndstream.testing.payloads import payload, table

from .conftest import Owning

Elements = NDArray[np.uint16]

CHUNK = (4, 24)
COLUMNS = 40
GZIP, SHUFFLE = Filter(id=1, name="deflate", options=(1,)), Filter(id=2, name="shuffle", options=(2,))
CHECKED, LZF = Filter(id=3, name="fletcher32"), Filter(id=32000, name="lzf", optional=True)
PIPELINES = {
    "gzip": (GZIP,),
    "lzf": (LZF,),
    "shuffle": (SHUFFLE,),
    "shuffle-gzip": (SHUFFLE, GZIP),
    "shuffle-lzf": (SHUFFLE, LZF),
    "fletcher32": (CHECKED,),
    "gzip-fletcher32": (GZIP, CHECKED),
    "bslz4": (Filter(id=32008, name="bitshuffle", options=(0, 2)),),
    "bitshuffle": (Filter(id=32008, name="bitshuffle", options=(0, 0)),),
    "zstd": (Filter(id=32015, name="zstd", options=(3,), optional=True),),
}


class One:
    """A file with one dataset, its owner in this process, and what numpy says that is in it."""

    def __init__(self, place: Path, filters: tuple[Filter, ...]) -> None:
        self.path = place / "a.h5"
        self.filters = filters
        self.model: Elements = np.zeros((0, COLUMNS), "<u2")
        self.owning = Owning(self.path)
        self.apply(table("/x", "<u2", (COLUMNS,), chunks=CHUNK, filters=filters))

    def apply(self, operation: Operation) -> None:
        self.owning.apply(operation)

    def read(self) -> Elements:
        shape = self.model.shape
        request = Fetch(target=self.owning.target("/x"), start=(0, 0), count=shape, step=(1, 1), most=1 << 20)
        fetched: Fetched = self.owning.answer(request)
        assert isinstance(fetched.data, bytes)
        return np.frombuffer(fetched.data, "<u2").reshape(shape)

    def elements(self, seed: int, shape: tuple[int, ...]) -> Elements:
        """Noise, few values, or one: what packs badly, well, and to next to nothing.

        Not well by LZF: where it makes as many bytes of a chunk as it has, and skipped it before, the library itself
        keeps the wrong mask.
        """
        most = (1 << 16, 1 << 16, 1 if LZF in self.filters else 3, 1)[seed % 4]
        return np.random.default_rng(seed).integers(0, most, shape).astype("<u2") + np.uint16(seed % 7)

    def write(self, choice: Any, values: Elements) -> None:
        selection = to_plain(select(choice, self.model.shape))
        self.apply(Write(name="/x", data=payload(values), selection=selection))
        self.model = self.model.copy()
        self.model[choice] = values

    def append(self, values: Elements) -> None:
        self.apply(Append(name="/x", data=payload(values)))
        self.model = np.concatenate((self.model, values))

    def insert(self, index: int, values: Elements) -> None:
        self.apply(Insert(name="/x", index=index, data=payload(values)))
        self.model = np.concatenate((self.model[:index], values, self.model[index:]))

    def resize(self, rows: int) -> None:
        self.apply(Resize(name="/x", shape=(rows, COLUMNS)))
        more = np.zeros((max(0, rows - len(self.model)), COLUMNS), "<u2")
        self.model = np.concatenate((self.model[:rows], more))

    def put(self, corner: tuple[int, int], chunk: Elements, mask: int) -> None:
        """Store a chunk of which the filters in `mask` were not applied."""
        stored = stored_by_library(chunk, self.filters, mask)
        self.apply(WriteChunk(name="/x", start=corner, data=payload(stored), mask=mask))
        rows = max(len(self.model), corner[0] + CHUNK[0])
        self.model = np.concatenate((self.model, np.zeros((rows - len(self.model), COLUMNS), "<u2")))
        part = self.model[corner[0] : corner[0] + CHUNK[0], corner[1] : corner[1] + CHUNK[1]]
        part[...] = chunk[: part.shape[0], : part.shape[1]]

    def close(self) -> None:
        self.owning.close()


def stored_by_library(chunk: Elements, filters: tuple[Filter, ...], mask: int) -> NDArray[np.uint8]:
    """What the library makes of a chunk with the filters that are not in `mask`."""
    left = [stage for position, stage in enumerate(filters) if not mask >> position & 1]
    with h5py.File(BytesIO(), "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(CHUNK)
        for stage in left:
            properties.set_filter(stage.id, 0, () if stage.id == SHUFFLE.id else stage.options)
        made = h5py.h5d.create(
            file.id, b"x", h5py.h5t.STD_U16LE, h5py.h5s.create_simple(CHUNK), properties
        )  # fmt: skip
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, chunk)
        file.flush()
        skipped, stored = made.read_direct_chunk((0, 0))
        assert not skipped
        return np.frombuffer(stored, "u1")


@contextlib.contextmanager
def one(filters: tuple[Filter, ...]) -> Iterator[One]:
    for stage in filters:
        if not h5py.h5z.filter_avail(stage.id):
            pytest.skip(f"there is no filter {stage.name}")
    with tempfile.TemporaryDirectory() as place:
        made = One(Path(place), filters)
        try:
            yield made
        finally:
            made.close()
        with h5py.File(made.path) as file:
            assert np.array_equal(file["x"][...], made.model)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["chunk", "rows", "part", "step", "append", "insert", "resize", "put", "put", "read"]),
        st.integers(0, 1 << 16),
        st.integers(0, 8),
    ),
    max_size=12,
)


@pytest.mark.parametrize("name", PIPELINES)
@settings(deadline=None, max_examples=20)
@given(steps=STEPS)
def test_elements_are_what_they_are_whatever_chunks_skipped(name: str, steps: list[tuple[str, int, int]]) -> None:
    filters = PIPELINES[name]
    with one(filters) as file:
        for kind, seed, number in steps:
            rows = len(file.model)
            match kind:
                case "chunk" if rows >= CHUNK[0]:
                    start = number % (rows // CHUNK[0]) * CHUNK[0]
                    file.write((slice(start, start + 4), slice(0, CHUNK[1])), file.elements(seed, CHUNK))
                case "rows" if rows:
                    file.write((slice(number % rows, None),), file.elements(seed, (rows - number % rows, COLUMNS)))
                case "part" if rows:
                    file.write((slice(number % rows, number % rows + 1), slice(1, 2)), file.elements(seed, (1, 1)))
                case "step" if rows:
                    file.write((slice(None, None, 2),), file.elements(seed, (len(range(0, rows, 2)), COLUMNS)))
                case "append":
                    file.append(file.elements(seed, (number, COLUMNS)))
                case "insert":
                    file.insert(number % (rows + 1), file.elements(seed, (1 + seed % 3, COLUMNS)))
                case "resize":
                    file.resize(number)
                case "put":
                    corner = number % 2 * CHUNK[0], number // 2 % 2 * CHUNK[1]
                    mask = seed % (1 << len(filters))
                    packed = LZF in filters and not mask >> filters.index(LZF) & 1
                    file.put(corner, file.elements(3 if packed else seed, CHUNK), mask)  # LZF makes nothing of noise
                case _:
                    assert np.array_equal(file.read(), file.model)
        assert np.array_equal(file.read(), file.model)


@pytest.mark.parametrize("mask", [0, 1])
def test_a_chunk_of_the_same_size_gets_its_mask(tmp_path: Path, mask: int) -> None:
    first, second = np.arange(8, dtype="<u4"), np.arange(8, 16, dtype="<u4")
    shuffled = [each.view("u1").reshape(8, 4).T.reshape(-1) for each in (first, second)]
    plain = [each.view("u1") for each in (first, second)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (8,), "<u4", chunks=(8,), shuffle=True).id
        file["again"] = file["x"]
        dataset = put(dataset, (0,), plain[0] if mask else shuffled[0], mask)
        dataset = put(dataset, (0,), shuffled[1] if mask else plain[1], 1 - mask)
        assert np.array_equal(file["again"][...], second)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].id.read_direct_chunk((0,))[0] == 1 - mask
        assert np.array_equal(file["x"][...], second)


def test_the_library_writes_to_a_chunk_that_others_stored_without_filters(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (8,), "<u4", chunks=(8,), shuffle=True).id
        dataset = put(dataset, (0,), np.arange(8, dtype="<u4").view("u1"), 1)
        dataset = unmask(dataset, (0,))
        file["x"][3] = 300
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][...].tolist() == [0, 1, 2, 300, 4, 5, 6, 7]
        assert file["x"].id.read_direct_chunk((0,))[0] == 0
