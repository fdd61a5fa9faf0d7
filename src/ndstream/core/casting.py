"""Elements on their way into an array of another type: read from what was sent, and cast as HDF5 does.

=============================  ========================================================================================
numbers to integers            truncated toward zero, and clipped to the range of the type; NaN becomes 0, the smallest
                               number of signed types of 4 and 8 bytes, 2**63 in unsigned ones of 8
numbers to floats              the nearest; what is too large becomes infinite
integers to booleans           true unless zero
numbers to complex             with an imaginary part of zero
complex to anything else       refused, as are floats to booleans, bit fields and enumerations
text                           cut to the bytes that there is room for
records                        member by member, by name; both have the same names
arrays, sequences              element by element
=============================  ========================================================================================

Infinite and very large halves, and floats that are just beyond the largest 64-bit integer, are clipped as well, which
HDF5 itself forgets to do.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import (
    Array,
    Bitfield,
    Boolean,
    Complex,
    Compound,
    DType,
    Enum,
    Float,
    Integer,
    Opaque,
    Reference,
    Sequence,
    String,
    is_fixed,
    item_size,
    memory_size,
    to_numpy,
)
from ndstream.core.elements import restore
from ndstream.core.operations import Payload
from ndstream.errors import InvalidRequest, ProtocolError, UnsupportedDType

NUMBERS = Integer | Float | Complex | Boolean | Bitfield | Enum
"""Types whose elements become one another."""
_WHOLE = Integer | Boolean | Bitfield | Enum
_NAN = {"i4": -(2**31), "i8": -(2**63), "u8": 2**63}


def check_payload(payload: Payload) -> None:
    """Make sure that the data has the length that type and shape say.

    Raises
    ------
    InvalidRequest
    """
    size = item_size(payload.dtype)
    if payload.shape is None:
        return
    if any(side < 0 for side in payload.shape):
        raise InvalidRequest(f"data of shape {payload.shape}")
    count = prod(payload.shape)
    if size is None:
        if not isinstance(payload.data, list) or len(payload.data) != count:
            raise InvalidRequest(f"data of shape {payload.shape} and of this type is a list of {count} elements")
        return
    try:
        nbytes = memoryview(payload.data).nbytes
    except TypeError:
        raise InvalidRequest("data of elements of fixed size is bytes") from None
    if nbytes != count * size:
        raise InvalidRequest(f"{nbytes} bytes do not make {count} elements of {size} bytes")


def array_of(payload: Payload) -> NDArray[Any]:
    """Make an array of a payload, a view where its type is fixed.

    Returns
    -------
    ndarray
        Of the shape of the payload, the axes of an array type last, in numpy's spelling of its type. References are
        what they were in the list.

    Raises
    ------
    InvalidRequest
        The data is not what type and shape say, or there is none.
    UnsupportedDType
    """
    check_payload(payload)
    if payload.shape is None:
        raise InvalidRequest("a null dataspace has no elements to be written")
    if not is_fixed(payload.dtype):
        try:
            return restore(payload.data, payload.dtype, payload.shape)
        except ProtocolError as error:
            raise InvalidRequest(str(error)) from None
    spelled = to_numpy(payload.dtype)
    view = memoryview(payload.data)
    flat: NDArray[Any] = np.frombuffer(view, spelled.base) if view.nbytes else np.empty(0, spelled.base)
    return flat.reshape(payload.shape + spelled.shape)


def broadcast(payload: Payload, shape: tuple[int, ...]) -> NDArray[Any]:
    """Make an array of a payload and give it a shape, as numpy does when it assigns: axes of one in front fall away.

    Returns
    -------
    ndarray of `shape`
        As of `array_of`; read-only.

    Raises
    ------
    InvalidRequest
        As `array_of`, or it has another shape.
    UnsupportedDType
    """
    array = array_of(payload)
    given = payload.shape or ()
    # Axes that broadcasting puts in front belong before those of the element type.
    inner = array.shape[len(given) :]
    spare = max(0, len(given) - len(shape))
    try:
        if set(given[:spare]) <= {1}:
            return np.broadcast_to(array.reshape(array.shape[spare:]), shape + inner)
    except ValueError:
        pass
    raise InvalidRequest(f"data of shape {given} for a selection of shape {shape}")


def bytes_of(payload: Payload) -> NDArray[np.uint8]:
    """Make an array of a payload of bytes; a view.

    Raises
    ------
    InvalidRequest
        It is not uint8 with one axis.
    """
    if payload.dtype != Integer(size=1, signed=False) or payload.shape is None or len(payload.shape) != 1:
        raise InvalidRequest("what is stored as it is comes as uint8 with one axis")
    return array_of(payload)


def check_cast(source: DType, target: DType) -> None:
    """Make sure that elements of type `source` can be stored as `target`, but for their values.

    Raises
    ------
    UnsupportedDType
    """
    if source == target or _fits(source, target):
        return
    raise UnsupportedDType(f"{_name(source)} does not fit into {_name(target)}")


def _fits(source: DType, target: DType) -> bool:
    if isinstance(source, NUMBERS) and isinstance(target, NUMBERS):
        if isinstance(target, Boolean | Bitfield | Enum):
            return isinstance(source, _WHOLE)
        return isinstance(target, Complex) or not isinstance(source, Complex)
    match source, target:
        case String(), String():
            return True
        case Opaque(size=size), Opaque(size=other_size):
            return size == other_size
        case Reference(to=to), Reference(to=other_to):
            return to == other_to
        case Array(base=base, shape=shape), Array(base=other_base, shape=other_shape):
            return shape == other_shape and (base == other_base or _fits(base, other_base))
        case Sequence(base=base), Sequence(base=other_base):
            return base == other_base or _fits(base, other_base)
        case Compound(fields=fields), Compound(fields=others):
            mine, theirs = ({field.name: field.dtype for field in some} for some in (fields, others))
            return mine.keys() == theirs.keys() and all(
                mine[name] == theirs[name] or _fits(mine[name], theirs[name]) for name in mine
            )
    return False


def _name(dtype: DType) -> str:
    size = memory_size(dtype)
    return f"{type(dtype).__name__.lower()} of {size} byte{'' if size == 1 else 's'}"


def cast(array: NDArray[Any], source: DType, target: DType) -> NDArray[Any]:
    """Cast elements; `check_cast` must have been content.

    Parameters
    ----------
    array : ndarray
        In numpy's spelling of `source`, the axes of an array type last.

    Returns
    -------
    ndarray
        In numpy's spelling of `target`. The same object when the types are equal, else a copy.

    Raises
    ------
    InvalidRequest
        A text with a NUL in it would become one of variable length, which ends there.
    """
    if source == target:
        return array
    made: NDArray[Any] = np.zeros(_outer(array, source), to_numpy(target))
    _assign(made, array, source, target)
    return made


def _outer(array: NDArray[Any], dtype: DType) -> tuple[int, ...]:
    """Shape of an array without the axes of its type."""
    return array.shape[: array.ndim - len(to_numpy(dtype).shape)]


def _assign(made: NDArray[Any], array: NDArray[Any], source: DType, target: DType) -> None:
    match source, target:
        case Compound(fields=fields), Compound(fields=others):
            theirs = {field.name: field.dtype for field in others}
            for field in fields:
                _assign(made[field.name], array[field.name], field.dtype, theirs[field.name])
        case Array(base=base), Array(base=other):
            _assign(made, array, base, other)
        case String(), String(size=size):
            _assign_text(made, array, size)
        case Sequence(base=base), Sequence(base=other):
            for index in np.ndindex(array.shape):
                made[index] = cast(np.asarray(array[index]), base, other)
        case _:
            _assign_numbers(made, array)


def in_range(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether all numbers, truncated, are in the range of an integer type; NaN is in none."""
    if not array.size or np.can_cast(array.dtype, dtype):
        return True
    limits = np.iinfo(dtype)
    low, high = array.min().item(), array.max().item()
    return bool(limits.min - 1 < low and high < limits.max + 1)


def _assign_numbers(made: NDArray[Any], array: NDArray[Any]) -> None:
    # What does not fit is taken care of, or becomes infinite: nobody need be warned.
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if made.dtype.kind not in "iu" or array.dtype.kind not in "iuf" or in_range(array, made.dtype):
            np.copyto(made, array, casting="unsafe")
            return
        limits = np.iinfo(made.dtype)
        if array.dtype.kind in "iu":
            own = np.iinfo(array.dtype)
            clipped = np.clip(array, max(own.min, limits.min), min(own.max, limits.max))
            np.copyto(made, clipped, casting="unsafe")
            return
        np.copyto(made, array, casting="unsafe")
        np.copyto(made, limits.min, where=array <= float(limits.min))
        np.copyto(made, limits.max, where=array >= float(limits.max + 1))
        np.copyto(made, _NAN.get(made.dtype.str[1:], 0), where=np.isnan(array))


def _assign_text(made: NDArray[Any], array: NDArray[Any], size: int | None) -> None:
    for index in np.ndindex(array.shape):
        item: Any = array[index]
        text = item if isinstance(item, bytes) else str(item or "").encode()
        made[index] = text[:size] if size is not None else without_nul(text)


def without_nul(text: bytes) -> bytes:
    """Text of variable length, as it is, when it can be stored.

    Raises
    ------
    InvalidRequest
        There is a NUL in it.
    """
    if b"\0" in text:
        raise InvalidRequest("a text with a NUL in it cannot be stored as one of variable length, which ends there")
    return text
