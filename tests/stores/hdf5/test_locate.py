"""Where the bytes are said to be, they are; what cannot be said for sure is left to the library."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from ndstream.core.dtypes import Integer
from ndstream.errors import Corrupt
from ndstream.stores.hdf5.layout import Chunked, Contiguous, Inline, Layout, Library
from ndstream.stores.hdf5.locate import layout_of

Locate = Callable[..., Any]

_VALUES = np.arange(120, dtype="<i4").reshape(10, 12)


def _layout(path: Path, name: str = "x", *, file_size: int | None = None, chunk_index: int = 1000) -> Layout:
    with h5py.File(path) as file:
        size = path.stat().st_size if file_size is None else file_size
        return layout_of(file[name].id, Integer(size=4), file_size=size, chunk_index=chunk_index)


def _low_level(file: h5py.File, name: str, prepare: Callable[[h5py.h5p.PropDCID], None]) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    prepare(properties)
    space = h5py.h5s.create_simple(_VALUES.shape)
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_I32LE, space, properties)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, _VALUES)


def _implicit(properties: h5py.h5p.PropDCID) -> None:
    properties.set_chunk((3, 5))
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)


_INDEXES: dict[str, dict[str, Any]] = {
    "fixed array": {"chunks": (3, 5)},
    "filtered fixed array": {"chunks": (3, 5), "compression": "gzip"},
    "extensible array": {"chunks": (3, 5), "maxshape": (None, 12)},
    "filtered extensible array": {"chunks": (3, 5), "maxshape": (None, 12), "compression": "gzip"},
    "b-tree": {"chunks": (3, 5), "maxshape": (None, None), "compression": "lzf"},
    "single chunk": {"chunks": (10, 12)},
    "filtered single chunk": {"chunks": (10, 12), "compression": "gzip"},
}


@pytest.mark.parametrize("block", [0, 512])
@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_every_kind_of_chunk_index_is_read(tmp_path: Path, version: str, block: int) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=(version, "latest"), userblock_size=block) as file:
        for name, options in _INDEXES.items():
            file.create_dataset(name, data=_VALUES, **options)
        _low_level(file, "implicit", _implicit)
        many = file.create_dataset("many pages", (5000, 4), "<i4", chunks=(1, 4), compression="gzip")
        many[...] = np.arange(20000).reshape(5000, 4)
    data = path.read_bytes()
    with h5py.File(path) as file:
        for name, dataset in file.items():
            layout = layout_of(dataset.id, Integer(size=4), file_size=len(data), chunk_index=10_000)
            assert isinstance(layout, Chunked), name
            assert layout.chunks == dataset.chunks
            numbers = np.frombuffer(layout.numbers, "<u8")
            counts = [-(-extent // length) for extent, length in zip(dataset.shape, dataset.chunks, strict=True)]
            assert numbers.tolist() == list(range(int(np.prod(counts))))
            for number, offset, size in zip(
                numbers, np.frombuffer(layout.offsets, "<u8"), np.frombuffer(layout.sizes, "<u4"), strict=True
            ):
                corner = np.array(np.unravel_index(int(number), counts)) * dataset.chunks
                _, stored = dataset.id.read_direct_chunk(tuple(corner.tolist()))
                assert data[offset : offset + size] == stored


@pytest.mark.parametrize("block", [0, 512])
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_contiguous_and_compact_data_is_found(tmp_path: Path, version: str, block: int) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version, userblock_size=block) as file:
        file["x"] = _VALUES
        file.create_dataset("never written", (7,), "<i4")
        file.create_dataset("empty", (0, 3), "<i4")
        file.create_dataset("scalar", data=np.int32(5))
        _low_level(file, "compact", lambda properties: properties.set_layout(h5py.h5d.COMPACT))
    layout = _layout(path)
    assert isinstance(layout, Contiguous)
    assert layout.offset is not None
    assert path.read_bytes()[layout.offset :][: layout.size] == _VALUES.tobytes()
    assert _layout(path, "never written") == Contiguous(offset=None, size=28)
    assert _layout(path, "empty") == Contiguous(offset=None, size=0)
    assert _layout(path, "compact") == Inline(data=_VALUES.tobytes())
    scalar = _layout(path, "scalar")
    assert isinstance(scalar, Contiguous)
    assert scalar.size == 4


def test_chunks_that_were_never_written_are_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (100, 100), "<i4", chunks=(10, 10), maxshape=(None, None))
        dataset[55, 33] = 1
        dataset[95, 95] = 1
        dataset.resize((90, 90))
    layout = _layout(path)
    assert isinstance(layout, Chunked)
    assert np.frombuffer(layout.numbers, "<u8").tolist() == [5 * 9 + 3]
    assert layout.masks == b""


def test_skipped_filters_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (8,), "<i4", chunks=(4,), compression="gzip", shuffle=True)
        dataset[4:] = 1
        dataset.id.write_direct_chunk((0,), np.arange(4, dtype="<i4").tobytes(), 0b11)
    layout = _layout(path)
    assert isinstance(layout, Chunked)
    assert np.frombuffer(layout.masks, "<u4").tolist() == [3, 0]
    assert [(stage.id, stage.name) for stage in layout.filters] == [(2, "shuffle"), (1, "deflate")]


def _scaled(file: h5py.File) -> None:
    file.create_dataset("x", data=_VALUES, chunks=(3, 5), scaleoffset=0)


def _packed(file: h5py.File) -> None:
    file.create_dataset("x", data=_VALUES.astype("<f4"), chunks=(3, 5), **hdf5plugin.Zfp())


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10, 12), "<i4")
    layout[...] = h5py.VirtualSource("other.h5", "y", (10, 12))
    file.create_virtual_dataset("x", layout)


def _external(file: h5py.File) -> None:
    file.create_dataset("x", (10, 12), "<i4", external=[("raw", 0, h5py.h5f.UNLIMITED)])


def _big_endian_pairs(file: h5py.File) -> None:
    file.create_dataset("x", (3,), [("a", "<i4"), ("b", "<i4")], chunks=(2,))


@pytest.mark.parametrize("write", [_scaled, _packed, _virtual, _external, _big_endian_pairs])
def test_what_only_the_library_can_read_is_left_to_it(tmp_path: Path, write: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        write(file)
    assert isinstance(_layout(path), Library)


def test_types_without_a_fixed_size_are_left_to_the_library(tmp_path: Path, locate: Locate) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = ["one", "two"]
    assert isinstance(locate(path, "x").layout, Library)


def test_too_many_chunks_are_left_to_the_library(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=_VALUES, chunks=(1, 1))
    assert isinstance(_layout(path, chunk_index=119), Library)
    assert isinstance(_layout(path, chunk_index=120), Chunked)


def test_edges_that_were_left_unfiltered_are_left_to_the_library(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    library = _hdf5_library()
    dont_filter_partial_chunks = 0x0002
    with h5py.File(path, "w", libver="latest") as file:

        def prepare(properties: h5py.h5p.PropDCID) -> None:
            properties.set_chunk((3, 5))
            properties.set_deflate(4)
            # h5py has no function for this option of HDF5 1.10.
            assert library.H5Pset_chunk_opts(ctypes.c_int64(properties.id), dont_filter_partial_chunks) >= 0

        _low_level(file, "x", prepare)
    layout = _layout(path)
    assert isinstance(layout, Library)
    assert "edge" in layout.reason


def test_chunks_stored_in_far_too_many_bytes_are_left_to_the_library(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (8,), "<i4", chunks=(4,), compression="gzip")
        dataset.id.write_direct_chunk((0,), bytes(100_000), 0)
    assert isinstance(_layout(path), Library)


def _hdf5_library() -> ctypes.CDLL:
    mapped = Path("/proc/self/maps").read_text().split()
    return ctypes.CDLL(next(name for name in mapped if "/libhdf5-" in name))


@pytest.mark.parametrize("options", [{}, {"chunks": (3, 5)}, {"chunks": (3, 5), "compression": "gzip"}])
def test_data_beyond_the_end_of_the_file_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=_VALUES, **options)
    with pytest.raises(Corrupt):
        _layout(path, file_size=path.stat().st_size // 4)


def test_an_address_that_wraps_around_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=_VALUES, chunks=(10, 12))
    layout = _layout(path)
    assert isinstance(layout, Chunked)
    offset = np.frombuffer(layout.offsets, "<u8")[0]
    data = path.read_bytes()
    assert data.count(offset.tobytes()) == 1
    path.write_bytes(data.replace(offset.tobytes(), np.uint64(2**64 - 200).tobytes()))
    with pytest.raises((Corrupt, OSError)):
        _layout(path)


def test_thousands_of_chunks_take_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (8192, 16), "<i4", chunks=(1, 16), fillvalue=1)[...] = 2
    start = os.times().user
    assert isinstance(_layout(path, chunk_index=8192), Chunked)
    # Far from what it takes (10 ms), to hold on a busy machine; asking chunk by chunk takes a second.
    assert os.times().user - start < 0.5
