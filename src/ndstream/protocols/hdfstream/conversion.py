"""From elements as they travel to elements as the caller wants them.

The wire has little-endian numbers, packed compounds and integers in place of enumerations and booleans (specification
section 3.8); the file, and h5py, have more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def same_bytes(wire: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether bytes of one type can be taken for the other's as they are.

    Types without structure of their own (opaque ones) take any bytes of their size.
    """
    if wire.itemsize != wanted.itemsize:
        return False
    if wire == wanted or _is_opaque(wire) or _is_opaque(wanted):
        return True
    if wire.subdtype is not None or wanted.subdtype is not None:
        return same_bytes(wire.base, wanted.base)
    return wanted.kind == "b" and wire.kind in "iu"


def same_but_order(wire: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether plain numbers of the two types differ in nothing but the order of their bytes."""
    return wire.kind == wanted.kind and wire.kind in "iufc" and wire.newbyteorder("S") == wanted


def convert(array: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any]:
    """Make the elements of `array` elements of type `wanted`, by value; a view when the bytes are the same."""
    if array.dtype == wanted:
        return array
    if same_bytes(array.dtype, wanted) and array.flags.c_contiguous and not array.dtype.hasobject:
        return array.view(wanted) if array.ndim else array.reshape(1).view(wanted).reshape(())
    return array.astype(wanted)


def _is_opaque(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "V" and dtype.names is None and dtype.subdtype is None
