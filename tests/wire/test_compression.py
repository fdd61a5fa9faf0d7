"""Compressed arrays, with the HDF5 filters as oracle."""

from __future__ import annotations

import struct
import sys
from itertools import product
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndstream.core.packets import Buffer, Encoding, Image
from ndstream.errors import DecodeError, MissingExtra
from ndstream.wire.compression import default_block, pack, stored_chunk, unpack

FILTERS: dict[Encoding, Any] = {
    "lz4-hdf5": hdf5plugin.LZ4(),
    "bslz4": hdf5plugin.Bitshuffle(),
    "bszstd": hdf5plugin.Bitshuffle(cname="zstd"),
}
SIZES = [0, 5, 8, 8191, 8192, 8193, 3 * 8192 - 1, 3 * 8192, 3 * 8192 + 1]
ENCODINGS: list[Encoding] = ["none", "lz4", "lz4-hdf5", "bslz4", "bszstd"]


def elements(size: int, width: int) -> NDArray[Any]:
    """Opaque elements whose bytes compress, but not to nothing."""
    values = np.random.default_rng(size + width).integers(0, 7, size * width, np.uint8)
    return values.view(f"V{width}") if size else np.empty(0, f"V{width}")


def through_hdf5(image: Image, data: NDArray[Any]) -> NDArray[Any]:
    """Read what the HDF5 library makes of an image, stored as it came in an open dataset like `data`."""
    filters, parts = stored_chunk(image)
    with h5py.File.in_memory() as file:
        options = {"compression": filters[0].id, "compression_opts": filters[0].options[3:]} if filters else {}
        dataset = file.create_dataset("x", data=np.zeros_like(data), chunks=data.shape, **options)
        dataset.id.write_direct_chunk((0,) * data.ndim, b"".join(parts))
        found: NDArray[Any] = dataset[()]
        return found


@pytest.mark.parametrize("encoding", FILTERS)
@pytest.mark.parametrize("width", range(1, 9))
def test_sizes_around_blocks_are_what_the_hdf5_filters_make_and_read(encoding: Encoding, width: int) -> None:
    for size in SIZES:
        data = elements(size, width)
        ours = pack(data, encoding)
        assert unpack(ours).tobytes() == data.tobytes()
        if size:  # HDF5 has no chunks without elements
            with h5py.File.in_memory() as file:
                dataset = file.create_dataset("x", data=data, chunks=data.shape, **FILTERS[encoding])
                theirs = dataset.id.read_direct_chunk((0,))[1]
            image = Image(payload=theirs, encoding=encoding, shape=data.shape, dtype=data.dtype)
            assert unpack(image).tobytes() == data.tobytes()
            assert through_hdf5(ours, data).tobytes() == data.tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("code", ["<u2", ">u2", "<f8", "?", "c16"])
def test_every_encoding_can_be_stored_as_it_came(encoding: Encoding, code: str) -> None:
    data = (np.arange(3 * 50) % 11).reshape(3, 50).astype(code)
    image = pack(data[:, ::-1], encoding)
    np.testing.assert_array_equal(unpack(image), data[:, ::-1])
    np.testing.assert_array_equal(through_hdf5(image, data), data[:, ::-1])
    assert unpack(image).dtype == data.dtype


def test_one_block_of_lz4_as_long_as_its_data_is_stored_right() -> None:
    # The HDF5 filter takes a block of full length for one that is not compressed. Here is "abcd", again, and a rest.
    data, block = b"abcdabcd0123456789AB", b"\x40abcd\x04\0\xc00123456789AB"
    image = Image(payload=block, encoding="lz4", shape=(20,), dtype=np.dtype("u1"))
    assert unpack(image).tobytes() == through_hdf5(image, unpack(image)).tobytes() == data


def test_a_block_size_of_zero_stands_for_the_default() -> None:
    data = np.arange(20_000, dtype="<u4") % 1000
    packed = pack(data, "bslz4")
    assert struct.unpack(">QI", bytes(packed.payload[:12])) == (80_000, default_block(4) * 4)
    image = Image(
        payload=struct.pack(">QI", 80_000, 0) + bytes(packed.payload[12:]), encoding="bslz4", shape=(20_000,),
        dtype=data.dtype,
    )  # fmt: skip
    np.testing.assert_array_equal(unpack(image), data)
    assert b"".join(stored_chunk(image)[1]) == bytes(packed.payload)


def test_fewer_than_eight_elements_are_stored_as_they_are() -> None:
    packed = pack(np.arange(5, dtype=np.uint8), "bslz4")
    assert bytes(packed.payload) == bytes.fromhex("0000000000000005 00002000 0001020304")


def test_blocks_that_did_not_get_shorter_are_stored_as_they_are() -> None:
    noise = np.random.default_rng(1).integers(0, 256, 1000, np.uint8)
    packed = pack(noise, "lz4-hdf5")
    assert len(packed.payload) == 12 + 4 + 1000
    np.testing.assert_array_equal(unpack(packed), noise)
    np.testing.assert_array_equal(through_hdf5(packed, noise), noise)


def test_frames_of_lz4_may_have_many_blocks() -> None:
    data = np.arange(1000, dtype="<u2") % 9
    with h5py.File.in_memory() as file:
        dataset = file.create_dataset("x", data=data, chunks=(1000,), **hdf5plugin.LZ4(nbytes=300))
        chunk = dataset.id.read_direct_chunk((0,))[1]
    np.testing.assert_array_equal(
        unpack(Image(payload=chunk, encoding="lz4-hdf5", shape=(1000,), dtype=data.dtype)), data
    )


def test_bits_may_be_shuffled_in_other_elements_than_those_of_the_type() -> None:
    data = np.arange(4096, dtype="<u4")
    packed = pack(data, "bslz4", element=2)
    assert packed.payload != pack(data, "bslz4").payload
    np.testing.assert_array_equal(unpack(packed), data)
    np.testing.assert_array_equal(through_hdf5(packed, data.view("<u2")).view("<u4"), data)


def test_what_is_not_compressed_is_a_view() -> None:
    memory = bytearray(8)
    array = unpack(Image(payload=memory, encoding="none", shape=(2, 2), dtype=np.dtype("<u2")))
    array[1, 1] = 1
    assert memory == b"\0\0\0\0\0\0\1\0"
    source = np.zeros((2, 2))
    assert np.shares_memory(np.frombuffer(pack(source, "none").payload), source)


@pytest.mark.parametrize(
    ("encoding", "payload", "shape"),
    [
        ("none", b"abc", (4,)),
        ("lz4", b"", (4,)),
        ("lz4", b"\xf0", (4,)),
        ("lz4", b"\x10a", (4,)),
        ("lz4", b"\x50abcde", (4,)),
        ("lz4", b"\x10a", (4 << 30,)),
        ("lz4-hdf5", b"", (4,)),
        ("lz4-hdf5", struct.pack(">QI", 4, 0), (4,)),
        ("lz4-hdf5", struct.pack(">QI", 4, 4), (4,)),
        ("lz4-hdf5", struct.pack(">QII", 4, 4, 9) + b"abcd", (4,)),
        ("lz4-hdf5", struct.pack(">QII", 4 << 30, 4 << 30 - 1, 4) + b"abcd", (4 << 30,)),
        ("lz4-hdf5", struct.pack(">QII", 8, 8, 4) + b"abcd", (4,)),
        ("bslz4", b"", (4,)),
        ("bslz4", struct.pack(">QI", 4, 8192), (4,)),
        ("bslz4", struct.pack(">QI", 8, 8192), (8,)),
        ("bslz4", struct.pack(">QII", 8, 8192, 9) + b"abcdefgh", (8,)),
        ("bslz4", struct.pack(">QII", 8, 8192, 8) + b"abcdefgh", (8,)),
        ("bslz4", struct.pack(">QI", 8, 7) + b"abcdefgh", (8,)),
        ("bslz4", struct.pack(">QI", 1 << 40, 8192) + b"abcdefgh", (1 << 40,)),
        ("bszstd", struct.pack(">QII", 8, 8192, 8) + b"abcdefgh", (8,)),
        ("bszstd", struct.pack(">QI", 1 << 40, 8192) + b"abcdefgh", (1 << 40,)),
    ],
    ids=range(21),
)
def test_what_does_not_become_the_array_is_an_error(encoding: Encoding, payload: bytes, shape: tuple[int, ...]) -> None:
    with pytest.raises(DecodeError):
        unpack(Image(payload=payload, encoding=encoding, shape=shape, dtype=np.dtype("u1")))


@given(st.sampled_from(ENCODINGS[1:]), st.data())
def test_damaged_data_is_an_error_or_an_array(encoding: Encoding, data: st.DataObject) -> None:
    good = pack(np.arange(600, dtype="<u2") % 5, encoding)
    payload = bytearray(good.payload)
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] = data.draw(st.integers(0, 255))
    cut: Buffer = payload[: data.draw(st.sampled_from([len(payload), at]))]
    try:
        found = unpack(Image(payload=cut, encoding=encoding, shape=good.shape, dtype=good.dtype))
    except DecodeError:
        return
    assert (found.shape, found.dtype) == (good.shape, good.dtype)


def test_all_combinations_of_shapes_without_elements() -> None:
    for encoding, shape in product(ENCODINGS, [(0,), (3, 0), (0, 2)]):
        assert unpack(pack(np.zeros(shape, "<u2"), encoding)).shape == shape


@pytest.mark.parametrize(("encoding", "module"), [("lz4", "lz4"), ("lz4-hdf5", "lz4"), ("bslz4", "bitshuffle")])
def test_the_error_says_what_to_install(encoding: Encoding, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pack(np.zeros(100), encoding)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"ndstream\[stream\]"):
        unpack(image)
    with pytest.raises(MissingExtra, match=r"ndstream\[stream\]"):
        pack(np.zeros(100), encoding)
