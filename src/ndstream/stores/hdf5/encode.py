"""Applying a dataset's filter pipeline to whole chunks, outside the HDF5 library and in several threads at once.

Every encoder makes what the filter of that number would have made: HDF5 reads it back without knowing the difference.
None is skipped, since a mask that changes is costly (`ndstream.stores.hdf5.masks`): what does not become shorter is
stored longer, which HDF5 does too, but for LZF.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import MiB
from ndstream.core.model import Filter
from ndstream.stores.hdf5.checksum import fletcher32
from ndstream.stores.hdf5.decoders import DEFLATE, FLETCHER32, LZF, SHUFFLE, ZSTD
from ndstream.stores.hdf5.plugins import library
from ndstream.wire.buffers import BufferPool

T = TypeVar("T")
R = TypeVar("R")

Bytes: TypeAlias = NDArray[np.uint8]
#: (data, options of the filter) to filtered data, which may be longer.
Encoder: TypeAlias = Callable[[Bytes, tuple[int, ...]], Bytes]
#: (data, level from 0 to 9) to a zlib stream.
Deflate: TypeAlias = Callable[[Bytes, int], bytes | bytearray]

_QUICK = 4
#: For what stands between two filters: fresh memory would cost a third of the time.
_scratch = BufferPool(64 * MiB)


class Encoding:
    """The filters of a dataset, ready to be applied; immutable, for any number of threads.

    Parameters
    ----------
    stages
        Filters in their order, with the functions for them.
    """

    __slots__ = ("_stages",)

    def __init__(self, stages: list[tuple[Filter, Encoder]]) -> None:
        self._stages = stages

    def encode(self, data: Bytes) -> Bytes:
        """Encode one chunk.

        Parameters
        ----------
        data : ndarray, shape (n,), uint8, contiguous
            A whole chunk.

        Returns
        -------
        ndarray, shape (m,), uint8
            What all filters make of it; a view of `data` when that is the same.
        """
        for stage, apply in self._stages:
            data = apply(data, stage.options)
        return data


def encoding(filters: tuple[Filter, ...]) -> Encoding | None:
    """Make the `Encoding` of a pipeline; None when one of its filters is for the HDF5 library only."""
    stages = []
    for stage in filters:
        apply = encoder(stage.id)
        if apply is None:
            return None
        stages.append((stage, apply))
    return Encoding(stages)


def ahead(threads: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], most: int) -> Iterator[R]:
    """Yield the results of `work` in the order of `items`, of which at most `most` are being made or wait."""
    source = iter(items)
    futures = [threads.submit(work, item) for item in islice(source, most)]
    try:
        while futures:
            yield futures.pop(0).result()
            futures += [threads.submit(work, item) for item in islice(source, 1)]
    finally:
        for future in futures:
            future.cancel()


@cache
def encoder(number: int) -> Encoder | None:
    """What applies the filter of this registered number; None when nothing here can."""
    if number == SHUFFLE:
        return _shuffle
    if number == FLETCHER32:
        return _checked
    if number == DEFLATE:
        return _fast_deflate()
    if number == LZF:
        return _codec("lzf")
    return _codec("zstd", level=3) if number == ZSTD else None


def _codec(name: str, **fixed: int) -> Encoder | None:
    try:
        import imagecodecs  # optional, and slow to import when nothing is compressed
    except ImportError:
        return None
    kind = getattr(imagecodecs, name.upper(), None)
    if kind is None or not kind.available:
        return None
    function: Callable[..., Any] = getattr(imagecodecs, f"{name}_encode")

    def encode(data: Bytes, options: tuple[int, ...]) -> Bytes:
        level = {key: options[0] if options else value for key, value in fixed.items()}
        return np.frombuffer(function(data, **level), np.uint8)

    return encode


def _fast_deflate() -> Encoder:
    """Deflate: up to level 4 by ISA-L, which packs as well in a sixth of the time; above that by libdeflate."""
    quick, thorough = _isal(), _libdeflate()

    def encode(data: Bytes, options: tuple[int, ...]) -> Bytes:
        level = options[0] if options else 6
        return np.frombuffer((quick if 0 < level <= _QUICK else thorough)(data, level), np.uint8)

    return encode


def _isal() -> Deflate:
    try:
        from isal import isal_zlib  # optional, and slow to import when nothing is compressed
    except ImportError:
        return _libdeflate()
    compress: Callable[..., bytes] = isal_zlib.compress
    return lambda data, level: compress(data.data, 1)


def _libdeflate() -> Deflate:
    try:
        import imagecodecs  # optional, as above
    except ImportError:
        return _zlib
    if not imagecodecs.DEFLATE.available:
        return _zlib
    compress: Callable[..., bytes | bytearray] = imagecodecs.deflate_encode
    # Its first level packs as well as the fourth of zlib.
    return lambda data, level: compress(data, level=1 if 0 < level <= _QUICK else level, raw=False)


def _zlib(data: Bytes, level: int) -> bytes:
    return zlib.compress(data.data, level)


def _checked(data: Bytes, _: tuple[int, ...]) -> Bytes:
    return np.concatenate((data, np.frombuffer(fletcher32(data).to_bytes(4, "little"), np.uint8)))


def _shuffle(data: Bytes, options: tuple[int, ...]) -> Bytes:
    width = max(options[0], 1) if options else 1
    count = data.size // width
    if width == 1 or count <= 1:
        return data
    whole = count * width
    out = _scratch.take(data.size)
    native = _native()
    if native is not None and width <= 255:
        native(width, whole, data.ctypes.data, out.ctypes.data)
    else:
        np.copyto(out[:whole].reshape(width, count), data[:whole].reshape(count, width).T)
    out[whole:] = data[whole:]
    return out


@cache
def _native() -> Callable[[int, int, int, int], int] | None:
    blosc2 = library("h5blosc2")
    if blosc2 is None or not hasattr(blosc2, "blosc2_shuffle"):
        return None
    function = blosc2.blosc2_shuffle
    function.argtypes = (ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
    function.restype = ctypes.c_int32
    call: Callable[[int, int, int, int], int] = function
    return call
