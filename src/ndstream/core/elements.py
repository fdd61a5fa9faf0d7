"""Elements of variable length as plain values that any message format can carry.

An array of a type that is not fixed (`ndstream.core.dtypes.is_fixed`) travels as one flat list of its elements, in C
order. What an element is depends on its type:

=======================================  ===============================================================
`String` of variable length              bytes, in the character set of the type, without the final NUL
`Sequence` of a fixed base               bytes: its elements one behind the other, as the base describes them
`Sequence` of any other base             list of elements
`Reference` to an object                 absolute path of the object as str, or None
`Reference` to a region                  None, or a map: ``name``, the path of the dataset, and either ``blocks``, a
                                         list of (start, stop) corners, or ``points``, a list of indices
`Array`                                  list of its elements, C order
`Compound`                               list with one entry per member, in the order of declaration
any fixed type inside of these           bytes, as the type describes them
=======================================  ===============================================================

A reference is None when it is null, or when the object is gone or has no path. `Foreign` types are replaced by what
they are read as (`ndstream.core.dtypes.readable`) before any of this.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import Array, Compound, DType, Reference, Sequence, String, is_fixed, item_size, to_numpy
from ndstream.errors import ProtocolError

NameOf: TypeAlias = Callable[[Any], Any]


def flatten(array: NDArray[Any], dtype: DType, *, name_of: NameOf | None = None) -> list[Any]:
    """List the elements of an array as h5py reads it.

    Parameters
    ----------
    array : ndarray, any shape
        Objects or records, as `to_numpy` spells `dtype`. Fixed members of records and elements of sequences may be
        spelled in any way that has the same bytes: h5py itself mislabels sequences of big-endian numbers.
    dtype : DType, not fixed
        What the elements are.
    name_of : callable, optional
        Turns a reference of h5py into the value that stands for it; without it references are kept as they are.

    Returns
    -------
    list
        Copies, except bytes and str, which are shared.
    """
    return _flat(array.reshape(-1, *to_numpy(dtype).shape), dtype, name_of)


def _flat(array: NDArray[Any], dtype: DType, name_of: NameOf | None) -> list[Any]:
    """`flatten` over the first axis; an `Array` has those of its elements behind it."""
    match dtype:
        case Reference() if name_of:
            return [name_of(item) for item in array]
        case String(size=None) | Reference():
            return list(array)
        case Sequence(base=base):
            return [_payload(item, base, name_of) for item in array]
        case Array(base=base, shape=shape):
            return [_flat(_in_line(item, shape), base, name_of) for item in array]
        case Compound(fields=fields):
            columns = [_column(array[field.name], field.dtype, name_of) for field in fields]
            return [list(row) for row in zip(*columns, strict=True)]
        case _:
            raise TypeError(f"elements of the fixed type {dtype} travel as bytes")


def _in_line(item: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Make one axis of the first ones, which are those of `shape`."""
    return item.reshape(prod(shape), *item.shape[len(shape) :])


def _column(array: NDArray[Any], dtype: DType, name_of: NameOf | None) -> list[Any]:
    size = item_size(dtype)
    if size is None:
        return _flat(array, dtype, name_of)
    data = array.tobytes()
    return [data[at : at + size] for at in range(0, len(data), size)]


def _payload(item: Any, base: DType, name_of: NameOf | None) -> Any:
    if not isinstance(item, np.ndarray):
        if item is not None and item not in (0, b""):
            raise TypeError(f"a sequence is an array, not {type(item).__name__}")
        return b"" if is_fixed(base) else []  # an element that was never written
    return item.tobytes() if is_fixed(base) else _flat(item, base, name_of)


def restore(elements: list[Any], dtype: DType, shape: tuple[int, ...]) -> NDArray[Any]:
    """Make the array that h5py would have read.

    Parameters
    ----------
    elements : list
        As `flatten` made it.
    dtype : DType, not fixed
        What the elements are.
    shape : tuple of int
        Of the array.

    Returns
    -------
    ndarray of `shape`
        Of the dtype that `to_numpy` gives: strings are bytes, sequences arrays, records have fields. References are
        paths or maps, since what h5py gives means nothing away from the file.

    Raises
    ------
    ProtocolError
        The list is not what `dtype` and `shape` say.
    """
    if prod(shape) != len(elements):
        raise ProtocolError(f"{len(elements)} elements do not make an array of shape {shape}")
    result: NDArray[Any] = np.empty(len(elements), to_numpy(dtype))
    try:
        _fill(result, elements, dtype)
    except (TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the elements are not of their type: {error}") from None
    return result.reshape(shape + result.shape[1:])


def _fill(target: NDArray[Any], elements: list[Any], dtype: DType) -> None:
    """Put `elements` into `target` along its first axis; an `Array` has those of its elements behind it."""
    if is_fixed(dtype):
        target[...] = np.frombuffer(b"".join(elements), to_numpy(dtype).base).reshape(target.shape)
        return
    match dtype:
        case Compound(fields=fields):
            columns = list(zip(*elements, strict=True)) or [()] * len(fields)
            for field, column in zip(fields, columns, strict=True):
                _fill(target[field.name], list(column), field.dtype)
        case Array(base=base, shape=shape):
            for item, element in zip(target, elements, strict=True):
                if len(element) != prod(shape):
                    raise ValueError(f"{len(element)} elements do not make an array of shape {shape}")
                _fill(_in_line(item, shape), element, base)  # a view: `target` is C-contiguous
        case Sequence(base=base):
            for index, element in enumerate(elements):
                target[index] = _sequence(element, base)
        case String():
            for index, element in enumerate(elements):
                if not isinstance(element, bytes):
                    raise TypeError(f"text is bytes, not {type(element).__name__}")
                if b"\0" in element:
                    raise ValueError("there is a NUL in a text of variable length, which ends there")
                target[index] = element
        case _:
            for index, element in enumerate(elements):
                target[index] = element


def _sequence(element: Any, base: DType) -> NDArray[Any]:
    size = item_size(base)
    if size is None:
        return restore(element, base, (len(element),))
    if not isinstance(element, bytes):
        raise TypeError(f"a sequence of numbers is bytes, not {type(element).__name__}")
    spelled = to_numpy(base)
    return np.frombuffer(element, spelled.base).reshape(-1, *spelled.shape).copy()
