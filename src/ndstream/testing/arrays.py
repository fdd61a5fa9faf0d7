"""Arrays out of stores, and whether they are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import is_fixed, to_numpy
from ndstream.core.elements import restore
from ndstream.core.ports import Reading


async def collect(reading: Reading) -> NDArray[Any]:
    """Read to the end and make the array that h5py would have read; closes the reading."""
    try:
        if not is_fixed(reading.dtype):
            assert reading.nbytes is None
            elements = [element async for some in reading.elements() for element in some]
            return restore(elements, reading.dtype, reading.shape)
        spelled = to_numpy(reading.dtype)
        pieces = []
        async for piece in reading.buffers():
            assert piece.format == "B"
            assert piece.nbytes % spelled.itemsize == 0
            pieces.append(bytes(piece))
        whole = b"".join(pieces)
        assert reading.nbytes == len(whole)
        assert reading.ready is None or bytes(reading.ready) == whole
        return np.frombuffer(whole, spelled.base).reshape(reading.shape + spelled.shape)
    finally:
        await reading.aclose()


def same(left: Any, right: Any) -> bool:
    """Whether two arrays are equal in type, shape and every byte, references and objects included."""
    if not isinstance(left, np.ndarray):
        return bool(left == right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.names:
        return all(same(left[name], right[name]) for name in left.dtype.names)
    if left.dtype.kind == "O":
        return all(same(one, other) for one, other in zip(np.ravel(left), np.ravel(right), strict=True))
    return bool(left.tobytes() == right.tobytes())
