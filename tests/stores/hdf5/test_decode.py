"""Chunks are decoded to what h5py reads from them, or refused; never to something else, never beyond their size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.model import Filter
from ndstream.errors import Corrupt, UnsupportedFilter
from ndstream.stores.hdf5 import checksum, decoders, plugins, shuffle
from ndstream.stores.hdf5.decode import Pipeline
from ndstream.wire.compression import BITSHUFFLE, LZ4

Bytes = NDArray[np.uint8]

_PLUGIN: dict[str, dict[str, Any]] = {
    "zstd": dict(hdf5plugin.Zstd()),
    "lz4": dict(hdf5plugin.LZ4()),
    "lz4-blocks": dict(hdf5plugin.LZ4(nbytes=512)),
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bitshuffle-lz4-blocks": dict(hdf5plugin.Bitshuffle(nelems=64, cname="lz4")),
    "bitshuffle-zstd": dict(hdf5plugin.Bitshuffle(nelems=128, cname="zstd")),
} | {
    f"blosc-{name}-{shuffled}": dict(hdf5plugin.Blosc(cname=name, shuffle=shuffled))
    for name in ("blosclz", "lz4", "zlib", "zstd")
    for shuffled in (0, 1, 2)
}
_BUILT_IN: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip"},
    "gzip-shuffle": {"compression": "gzip", "shuffle": True},
    "gzip-shuffle-fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "lzf-shuffle-fletcher32": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "fletcher32": {"fletcher32": True},
    "shuffle": {"shuffle": True},
    "shuffle-fletcher32": {"shuffle": True, "fletcher32": True},
    "szip-nn": {"compression": "szip", "compression_opts": ("nn", 16)},
    "szip-ec": {"compression": "szip", "compression_opts": ("ec", 8)},
}
_DTYPES = ("u1", "<u2", ">i4", "<f4", "<f8")


def _stored(values: NDArray[Any], options: dict[str, Any]) -> tuple[tuple[Filter, ...], int, Bytes]:
    """Filters, mask and bytes of the one chunk that h5py makes of some values."""
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("x", data=values, chunks=values.shape, **options)
        file.flush()
        properties = dataset.id.get_create_plist()
        stages = [properties.get_filter(position) for position in range(properties.get_nfilters())]
        filters = tuple(Filter(id=stage[0], name=stage[3].decode(), options=tuple(stage[2])) for stage in stages)
        mask, data = dataset.id.read_direct_chunk((0,) * values.ndim)
    return filters, mask, np.frombuffer(bytearray(data), np.uint8)


def _decoded(filters: tuple[Filter, ...], mask: int, stored: Bytes, nbytes: int) -> Bytes:
    # A border around the destination shows whether anything is written beyond it.
    frame = np.full(nbytes + 128, 0xA5, np.uint8)
    Pipeline(filters, nbytes).decode(stored, mask, frame[64 : 64 + nbytes], lambda size: np.empty(size, np.uint8))
    assert (frame[:64] == 0xA5).all()
    assert (frame[64 + nbytes :] == 0xA5).all()
    return frame[64 : 64 + nbytes]


def _smooth(dtype: str, count: int) -> NDArray[Any]:
    return (1000 * np.sin(np.arange(count) / 50)).astype("<i8").astype(dtype)


@pytest.mark.parametrize("options", (_BUILT_IN | _PLUGIN).values(), ids=(_BUILT_IN | _PLUGIN).keys())
def test_every_filter_is_undone(options: dict[str, Any]) -> None:
    # szip refuses chunks that are smaller than its blocks.
    for count in (1000, 4097) if options.get("compression") == "szip" else (1, 7, 1000, 4097):
        for dtype in _DTYPES:
            values = _smooth(dtype, count)
            filters, mask, stored = _stored(values, options)
            assert _decoded(filters, mask, stored, values.nbytes).tobytes() == values.tobytes()


@pytest.mark.parametrize("options", (_BUILT_IN | _PLUGIN).values(), ids=(_BUILT_IN | _PLUGIN).keys())
def test_noise_that_no_filter_makes_smaller_is_decoded_too(options: dict[str, Any]) -> None:
    values = np.random.default_rng(1).integers(0, 256, 3000, np.uint8)
    filters, mask, stored = _stored(values, options)
    assert _decoded(filters, mask, stored, values.nbytes).tobytes() == values.tobytes()


@pytest.mark.parametrize("options", (_BUILT_IN | _PLUGIN).values(), ids=(_BUILT_IN | _PLUGIN).keys())
def test_damaged_chunks_decode_within_their_bounds_or_not_at_all(options: dict[str, Any]) -> None:
    values = (np.arange(1500) % 97).astype("<i4")
    filters, mask, stored = _stored(values, options)
    random = np.random.default_rng(2)
    for _ in range(150):
        damaged = stored[: random.integers(0, stored.size + 1)] if random.integers(3) == 0 else stored
        damaged = damaged.copy()
        if damaged.size:
            where = random.integers(0, min(damaged.size, random.choice((24, damaged.size))), 3)
            damaged[where] = random.choice((0, 1, 127, 128, 255), 3)
        try:
            _decoded(filters, mask, damaged, values.nbytes)
        except Corrupt:
            continue


@pytest.mark.parametrize("options", (_BUILT_IN | _PLUGIN).values(), ids=(_BUILT_IN | _PLUGIN).keys())
@pytest.mark.parametrize("change", [-4, 4])
def test_a_chunk_of_another_size_is_refused(options: dict[str, Any], change: int) -> None:
    values = (np.arange(1500) % 97).astype("<i4")
    filters, mask, stored = _stored(values, options)
    with pytest.raises(Corrupt):
        _decoded(filters, mask, stored, values.nbytes + change)


def test_a_wrong_checksum_is_noticed() -> None:
    values = np.arange(1000, dtype="<i4")
    filters, mask, stored = _stored(values, {"fletcher32": True})
    stored[17] ^= 1
    with pytest.raises(Corrupt, match="checksum"):
        _decoded(filters, mask, stored, values.nbytes)


def test_the_checksum_of_old_files_is_accepted() -> None:
    values = np.arange(1000, dtype="<i4")
    filters, mask, stored = _stored(values, {"fletcher32": True})
    stored[-4:] = stored[[-3, -4, -1, -2]]  # as HDF5 before 1.6.3 wrote it
    assert _decoded(filters, mask, stored, values.nbytes).tobytes() == values.tobytes()


def test_skipped_filters_are_skipped() -> None:
    values = np.arange(1000, dtype="<i4")
    filters, _, _ = _stored(values, {"compression": "gzip", "shuffle": True})
    planes = values.view(np.uint8).reshape(-1, 4).T.copy().reshape(-1)
    assert _decoded(filters, 0b10, planes, values.nbytes).tobytes() == values.tobytes()
    assert _decoded(filters, 0b11, values.view(np.uint8), values.nbytes).tobytes() == values.tobytes()
    assert Pipeline(filters, 4).passes(0b11)
    assert not Pipeline(filters, 4).passes(0b10)


def test_filters_that_nothing_here_undoes_are_named() -> None:
    with pytest.raises(UnsupportedFilter, match="scaleoffset"):
        Pipeline((Filter(id=6, name="scaleoffset"),), 100)
    gzip = Filter(id=1, name="deflate", options=(4,))
    with pytest.raises(UnsupportedFilter, match="compressed data"):
        Pipeline((gzip, gzip), 100)


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if neither imagecodecs nor hdf5plugin were installed."""
    cached = (decoders.decoder, decoders._bshuf, checksum._native, shuffle._native, plugins.library)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize("name", ["gzip", "gzip-shuffle-fletcher32", "fletcher32", "shuffle"])
def test_what_needs_no_extras_works_without_them(name: str) -> None:
    values = _smooth("<f8", 4097)
    filters, mask, stored = _stored(values, _BUILT_IN[name])
    assert _decoded(filters, mask, stored, values.nbytes).tobytes() == values.tobytes()
    damaged = stored.copy()
    damaged[5:9] ^= 0xFF
    if name != "shuffle":
        with pytest.raises(Corrupt):
            _decoded(filters, mask, damaged, values.nbytes)
        with pytest.raises(Corrupt):
            _decoded(filters, mask, stored, values.nbytes - 8)


@pytest.mark.usefixtures("without_extras")
def test_what_needs_extras_is_left_to_the_library_without_them() -> None:
    for number in (decoders.LZF, decoders.BLOSC, decoders.ZSTD, BITSHUFFLE, LZ4, decoders.SZIP):
        assert decoders.decoder(number) is None


@given(st.binary(min_size=0, max_size=70_000))
def test_both_checksums_agree(data: bytes) -> None:
    array = np.frombuffer(data, np.uint8)
    assert checksum._portable(array) == checksum.fletcher32(array)


@given(st.integers(1, 300), st.integers(0, 40), st.integers(0, 400))
def test_both_ways_to_unshuffle_agree(width: int, count: int, rest: int) -> None:
    size = width * count + rest % width
    planes = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    out = np.zeros(size, np.uint8)
    shuffle.unshuffle(planes, width, out)
    whole = width * count
    expected = np.concatenate((planes[:whole].reshape(width, count).T.reshape(-1), planes[whole:]))
    assert (out == expected).all()


def test_libraries_that_are_not_there_are_no_error() -> None:
    assert plugins.library("no-such-library") is None
