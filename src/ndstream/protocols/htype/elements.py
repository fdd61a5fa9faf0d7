"""Element types as headers spell them, and arrays in the memory of a part.

Source: SPEC.md, "array-1.0".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.packets import Buffer
from ndstream.errors import BadHeader, DecodeError

_NAMES = frozenset(
    {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    | {"bool", "float16", "float32", "float64", "complex64", "complex128", "float", "double", "int", "single", "half"}
)
_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|S\d{1,9}|U\d{1,8})")
#: Largest number of axes: that of numpy, of every version.
_RANK = 32


@lru_cache(maxsize=512)
def element_type(name: str, order: str = "little") -> np.dtype[Any]:
    """Element type that a header names.

    Parameters
    ----------
    name : str
        ``"uint16"``, or numpy's code with or without a byte order: ``">u2"``.
    order : str
        ``"little"`` or ``"big"``, for a name without one of its own.

    Raises
    ------
    BadHeader
        Either is unknown. Types of objects, records and dates are.
    """
    if order not in ("little", "big"):
        raise BadHeader(f"the byte order is {order!r}; it can be 'little' or 'big'")
    if name not in _NAMES and not _CODE.fullmatch(name):
        raise BadHeader(f"the element type {name[:80]!r} is unknown")
    dtype = np.dtype(name)
    if name[0] in "<>=|" or order == "little":
        # A name without an order is little-endian, whatever the machine.
        return dtype if name[0] in "<>=|" else dtype.newbyteorder("<")
    return dtype.newbyteorder(">")


def type_name(dtype: np.dtype[Any]) -> str:
    """Name of an element type without its byte order, as the original tools write it.

    Raises
    ------
    BadHeader
        It cannot be named in a header.
    """
    name = dtype.name if dtype.kind in "biufc" else dtype.str.lstrip("<>|=")
    if name not in _NAMES and not _CODE.fullmatch(name):
        raise BadHeader(f"elements of type {dtype} cannot be sent")
    return name


def checked_shape(shape: Any, *, itemsize: int, most: int) -> tuple[int, ...]:
    """Make a shape of what a header holds, before any memory is taken for it.

    Parameters
    ----------
    shape : object
        Should be a list of integers, none negative.
    itemsize : int, bytes
    most : int, bytes
        An array of more is refused.

    Raises
    ------
    BadHeader
        It is no shape.
    DecodeError
        The array would be too large.
    """
    if not isinstance(shape, list | tuple) or len(shape) > _RANK or not all(type(side) is int for side in shape):
        raise BadHeader(f"the shape is no list of up to {_RANK} integers: {repr(shape)[:80]}")
    if any(side < 0 for side in shape):
        raise BadHeader(f"a side of the shape is negative: {shape}")
    # Zeros left out, so that what is left is what strides have to hold.
    if prod(side for side in shape if side) * itemsize > most:
        raise DecodeError(f"an array of shape {repr(shape)[:80]} is larger than message_array, {most} bytes")
    return tuple(shape)


def view(part: Buffer, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Array in the memory of a part, writable when that is.

    Raises
    ------
    DecodeError
        The part does not have the size that such an array has.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes != len(part):
        raise DecodeError(f"a part of {len(part)} bytes, where {dtype.name}{list(shape)} takes {nbytes}")
    array: NDArray[Any] = np.ndarray(tuple(shape), dtype, part)
    return array
