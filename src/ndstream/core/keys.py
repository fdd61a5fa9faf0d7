"""Which keys of rows are equal: those of the same bytes, where 0.0 and -0.0 are one number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def keys_of(column: NDArray[Any]) -> list[bytes]:
    """Make a key of each element along the first axis: equal elements have equal keys.

    Parameters
    ----------
    column : ndarray, shape (n, ...)
        Of a type of fixed size; the axes of an array type come last.
    """
    made = column.copy()
    _settle(made)
    data = made.tobytes()
    size = len(data) // max(1, len(made))
    return [data[at : at + size] for at in range(0, len(data), size or 1)]


def _settle(array: NDArray[Any]) -> None:
    """Make zeros positive, in place."""
    for name in array.dtype.names or ():
        _settle(array[name])
    if array.dtype.kind in "fc":
        with np.errstate(invalid="ignore"):
            array += 0
