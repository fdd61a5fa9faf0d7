"""Elements of the data model as numpy arrays, as h5py would have read them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import DType, is_fixed, readable, to_numpy
from ndstream.core.elements import restore
from ndstream.core.selection import Selection
from ndstream.errors import ProtocolError, UnsupportedDType


def read_type(dtype: DType) -> DType:
    """Type in which elements stored as `dtype` are read.

    Raises
    ------
    UnsupportedDType
        There is no way to read them.
    """
    found = readable(dtype)
    if found is None:
        raise UnsupportedDType(f"elements of type {getattr(dtype, 'name', dtype)} cannot be read")
    return found


def array_of(dtype: DType, shape: tuple[int, ...], value: bytes | list[Any]) -> NDArray[Any]:
    """Make the array whose elements are `value` (see `ndstream.core.model.Attribute`).

    Returns
    -------
    ndarray
        Of the dtype that h5py gives; axes of an array type come last. Fixed types are a read-only view.

    Raises
    ------
    ProtocolError
        There are more or fewer elements than `shape` has.
    UnsupportedDType
    """
    present = read_type(dtype)
    if isinstance(value, list) or not is_fixed(present):
        return restore(value if isinstance(value, list) else [], present, shape)
    target = to_numpy(present)
    try:
        flat: NDArray[Any] = np.frombuffer(value, target)
        return flat.reshape(shape + target.shape)
    except ValueError as error:
        raise ProtocolError(f"{len(value)} bytes do not make an array of shape {shape} and type {target}") from error


def taken(selection: Selection, array: NDArray[Any]) -> NDArray[Any]:
    """Take a selection from an array that may have the axes of an array type behind those of the dataset."""
    extra = array.shape[len(selection.source) :]
    if not extra:
        return selection.apply(array)
    positions = selection.apply(np.arange(prod(selection.source)).reshape(selection.source))
    found: NDArray[Any] = array.reshape(-1, *extra)[positions]
    return found
