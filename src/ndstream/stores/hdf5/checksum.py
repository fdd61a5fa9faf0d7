"""The checksum of HDF5's fletcher32 filter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 14


def fletcher32(data: NDArray[np.uint8]) -> int:
    """Fletcher's checksum as HDF5 computes it: over big-endian 16-bit words, sums folded to 1…65535.

    Parameters
    ----------
    data : ndarray, shape (n,), uint8
        An odd last byte counts as the high half of a word.

    Returns
    -------
    int
        The file stores it in four bytes, little-endian.
    """
    native = _native()
    return native(data) if native is not None else _portable(data)


@cache
def _native() -> Callable[[NDArray[np.uint8]], int] | None:
    try:
        import imagecodecs  # optional, and only worth its import when there is something to check
    except ImportError:
        return None
    call: Callable[[NDArray[np.uint8]], int] | None = getattr(imagecodecs, "h5checksum_fletcher32", None)
    return call


def _portable(data: NDArray[np.uint8]) -> int:
    first = second = 0
    if data.size % 2:
        data = np.append(data, np.uint8(0))
    words = data.view(">u2")
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK].astype(np.uint64)
        # The second sum adds up the running values of the first: each word counts once for itself and every later one.
        second += first * block.size + int(np.dot(block, np.arange(block.size, 0, -1, dtype=np.uint64)))
        first += int(block.sum())
    return _fold(second) << 16 | _fold(first)


def _fold(total: int) -> int:
    # Folding the carry back in never turns a sum that is not zero into zero.
    return (total - 1) % 0xFFFF + 1 if total else 0
