"""What undoes each HDF5 filter, one function a filter.

Every function has the form of `Decoder`: it fills its destination exactly or raises `Corrupt`. Sizes found in the
data are never trusted: the destination's is right, and lengths inside the data are checked against what is there before
a C function gets to see them. All of them release the GIL while they work.
"""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.errors import Corrupt
from ndstream.stores.hdf5.checksum import fletcher32
from ndstream.stores.hdf5.plugins import library
from ndstream.stores.hdf5.shuffle import unshuffle
from ndstream.wire.compression import BITSHUFFLE, LZ4, bitshuffle_block, default_block, lz4_block

Bytes: TypeAlias = NDArray[np.uint8]
#: (filtered data, options of the filter, destination of exactly the size it had before the filter)
Decoder: TypeAlias = Callable[[Bytes, tuple[int, ...], Bytes], None]

DEFLATE, SHUFFLE, FLETCHER32, SZIP = 1, 2, 3, 4
LZF, BLOSC, ZSTD = 32000, 32001, 32015


@cache
def decoder(number: int) -> Decoder | None:
    """What undoes the filter of this registered number; None when nothing here can."""
    if number == SHUFFLE:
        return _shuffle
    if number == FLETCHER32:
        return _fletcher32
    if number == BITSHUFFLE:
        return _bitshuffle if _bshuf() is not None else None
    for name, of, make in _FROM_IMAGECODECS:
        if of == number and (function := _imagecodec(name)) is not None:
            return make(function)
    return _zlib if number == DEFLATE else None


def _imagecodec(name: str) -> Callable[..., Any] | None:
    try:
        import imagecodecs  # optional, and slow to import when no file needs it
    except ImportError:
        return None
    kind = getattr(imagecodecs, name.upper(), None)
    function: Callable[..., Any] = getattr(imagecodecs, f"{name}_decode", lambda *_, **__: None)
    return function if kind is not None and kind.available else None


def _run(function: Callable[..., Any], data: Bytes, *arguments: Any, out: Bytes, **options: Any) -> None:
    try:
        size = len(function(data, *arguments, out=out, **options))
    except (RuntimeError, ValueError) as error:  # what all errors of imagecodecs derive from
        raise Corrupt(f"a chunk cannot be decompressed ({error})") from error
    if size != out.size:
        raise Corrupt(f"a chunk holds {size} bytes where {out.size} belong")


def _plain(function: Callable[..., Any]) -> Decoder:
    return lambda data, _, out: _run(function, data, out=out)


def _zlib(data: Bytes, _: tuple[int, ...], out: Bytes) -> None:
    stream = zlib.decompressobj()
    try:
        # One byte more than belongs there, so that too much is noticed and much too much never made.
        result = stream.decompress(data.data, out.size + 1)
    except zlib.error as error:
        raise Corrupt(f"a chunk cannot be decompressed ({error})") from error
    if len(result) != out.size or not stream.eof:
        raise Corrupt(f"a chunk does not hold the {out.size} bytes that belong there")
    np.copyto(out, np.frombuffer(result, np.uint8))


def _shuffle(data: Bytes, options: tuple[int, ...], out: Bytes) -> None:
    if data.size != out.size:
        raise Corrupt(f"a chunk holds {data.size} bytes where {out.size} belong")
    unshuffle(data, max(options[0], 1) if options else 1, out)


def _fletcher32(data: Bytes, _: tuple[int, ...], out: Bytes) -> None:
    body = verified(data)
    if body.size != out.size:
        raise Corrupt(f"a chunk holds {body.size} bytes where {out.size} belong")
    np.copyto(out, body)


def verified(data: Bytes) -> Bytes:
    """Data without the checksum at its end, a view, once that was found right; raises `Corrupt` if it is not."""
    if data.size < 4:
        raise Corrupt("a chunk is shorter than its checksum")
    body = data[:-4]
    expected = int.from_bytes(data[-4:].tobytes(), "little")
    found = fletcher32(body)
    # HDF5 before 1.6.3 stored the two bytes of each half in the other order; it still reads that, so do we.
    swapped = (found & 0x00FF00FF) << 8 | (found & 0xFF00FF00) >> 8
    if expected not in (found, swapped):
        raise Corrupt(f"a chunk fails its checksum ({found:08x} found, {expected:08x} stored)")
    return body


def _szip(function: Callable[..., Any]) -> Decoder:
    def decode(data: Bytes, options: tuple[int, ...], out: Bytes) -> None:
        # The size of the decoded data (4 bytes, little-endian) stands in front of szip's own stream.
        if len(options) < 4 or data.size < 4 or int.from_bytes(data[:4], "little") != out.size:
            raise Corrupt("a chunk does not begin as szip data of its size does")
        _run(function, data[4:], *options[:4], out=out)

    return decode


def _lz4(function: Callable[..., Any]) -> Decoder:
    def decode(data: Bytes, _: tuple[int, ...], out: Bytes) -> None:
        lz4_block(data.data, out.size)
        _run(function, data, out=out)

    return decode


def _blosc(function: Callable[..., Any]) -> Decoder:
    def decode(data: Bytes, _: tuple[int, ...], out: Bytes) -> None:
        # Bytes 4 to 15 of the header: size, block size and stored size, little-endian.
        size, _block, stored = struct.unpack_from("<III", data.data, 4) if data.size >= 16 else (0, 0, 0)
        if size != out.size or not 16 <= stored <= data.size:
            raise Corrupt("a chunk does not begin as blosc data of its size does")
        _run(function, data[:stored], out=out, numthreads=1)

    return decode


_FROM_IMAGECODECS: tuple[tuple[str, int, Callable[[Callable[..., Any]], Decoder]], ...] = (
    ("deflate", DEFLATE, _plain),
    ("szip", SZIP, _szip),
    ("lzf", LZF, _plain),
    ("blosc", BLOSC, _blosc),
    ("lz4h5", LZ4, _lz4),
    ("zstd", ZSTD, _plain),
)

#: By the number of the compression in the options of the filter.
_BITSHUFFLE_FUNCTIONS = {0: "bshuf_bitunshuffle", 2: "bshuf_decompress_lz4", 3: "bshuf_decompress_zstd"}


def _bitshuffle(data: Bytes, options: tuple[int, ...], out: Bytes) -> None:
    # Options: version (2 numbers), element size, elements in a block, compression.
    width = options[2] if len(options) > 2 else 0
    block, packing = (*options[3:5], 0, 0)[:2]
    if width < 1 or out.size % width:
        raise Corrupt(f"a chunk of {out.size} bytes cannot hold elements of {width} bytes")
    bshuf = _bshuf()
    assert bshuf is not None
    name = _BITSHUFFLE_FUNCTIONS.get(packing)
    if name is None:
        raise Corrupt(f"a chunk was bit-shuffled with an unknown compression ({packing})")
    start = 0
    if packing:
        block, start = bitshuffle_block(data.data, out.size, width), 12
    elif data.size != out.size:
        raise Corrupt(f"a chunk holds {data.size} bytes where {out.size} belong")
    block = block or default_block(width)
    if block % 8:
        raise Corrupt(f"a chunk was bit-shuffled in blocks of {block} elements")
    if getattr(bshuf, name)(data.ctypes.data + start, out.ctypes.data, out.size // width, width, block) < 0:
        raise Corrupt("a chunk cannot be decompressed (bitshuffle)")


@cache
def _bshuf() -> ctypes.CDLL | None:
    bshuf = library("h5bshuf")
    if bshuf is None:
        return None
    if not all(hasattr(bshuf, name) for name in _BITSHUFFLE_FUNCTIONS.values()):
        return None
    for name in _BITSHUFFLE_FUNCTIONS.values():
        function = getattr(bshuf, name)
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3)
        function.restype = ctypes.c_int64
    return bshuf
