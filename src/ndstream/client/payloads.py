"""What a caller assigns, as elements of the type of what it is assigned to.

Arrays are converted as HDF5 does (`ndstream.core.casting`). Numbers of Python and lists of these are made elements by
numpy, as with h5py: what does not fit is refused. Strings of records, and sequences, may be given as str and as lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ndstream.client.empty import Empty
from ndstream.core.casting import cast, check_cast, in_range, without_nul
from ndstream.core.dtypes import (
    Array,
    Compound,
    DType,
    Opaque,
    Reference,
    Sequence,
    String,
    from_numpy,
    is_fixed,
    to_numpy,
)
from ndstream.core.elements import flatten
from ndstream.core.operations import Payload
from ndstream.errors import InvalidRequest, NDStreamError, UnsupportedDType


def element_type(dtype: DTypeLike | None, data: Any) -> np.dtype[Any]:
    """Element type of new data: what is asked for, else that of the data.

    Text is of variable length, as in h5py: str in UTF-8, bytes in ASCII. Of fixed size are ``numpy.bytes_`` and arrays
    of these.

    Raises
    ------
    UnsupportedDType
        Neither says.
    """
    if dtype is not None:
        wanted = np.dtype(dtype)
        return to_numpy(String()) if wanted.kind == "U" else wanted
    try:
        found: np.dtype[Any] = data.dtype if is_empty(data) else np.asarray(data).dtype
    except ValueError as error:
        raise UnsupportedDType(f"the value makes no array: give dtype= ({error})") from None
    if found.kind == "U":
        return to_numpy(String())
    if found.metadata is None and (found.kind == "O" or (found.kind == "S" and not isinstance(data, np.ndarray))):
        kinds = {type(item) for item in np.asarray(data, object).flat}
        if kinds == {bytes}:
            return to_numpy(String(charset="ascii"))
        if found.kind == "O":
            if not all(issubclass(kind, str | bytes) for kind in kinds):
                raise UnsupportedDType("objects have no type of their own: give dtype=")
            return to_numpy(String())
    return found


def is_empty(value: Any) -> bool:
    """Whether a value is a null dataspace: an `Empty`, of ours or of h5py."""
    return isinstance(value, Empty) or (type(value).__name__ == "Empty" and getattr(value, "shape", ()) is None)


def in_memory(value: Any) -> Any:
    """Make an array of what can be one, such as another dataset: it is read once, and its type is told."""
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    return value


def payload_of(value: Any, dtype: np.dtype[Any]) -> Payload:
    """Make the payload of a value as elements of `dtype`.

    Returns
    -------
    Payload
        Its bytes are a view of the value when that is C-contiguous and of the type.

    Raises
    ------
    UnsupportedDType
        The value cannot be converted.
    InvalidRequest
        A number of Python is out of range, a text holds a NUL, or elements have another shape.
    """
    described = from_numpy(dtype)
    if is_empty(value):
        return Payload(dtype=described, shape=None, data=b"")
    try:
        array = _elements(in_memory(value), described)
    except NDStreamError:
        raise
    except OverflowError as error:
        raise InvalidRequest(f"a number does not fit into {dtype}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UnsupportedDType(f"the value is not of type {dtype}: {error}") from error
    shape = array.shape[: array.ndim - len(dtype.shape)]
    if not is_fixed(described):
        return Payload(dtype=described, shape=shape, data=flatten(array, described, name_of=_path))
    whole = np.ascontiguousarray(array)
    data = whole.reshape(-1).view(np.uint8).data if whole.size else b""
    return Payload(dtype=described, shape=shape, data=data)


def _path(reference: Any) -> Any:
    """What stands for a reference; those of h5py mean nothing outside of their file."""
    if reference is None or isinstance(reference, str | dict):
        return reference
    raise UnsupportedDType("references are written as the path of what they refer to")


def _elements(value: Any, dtype: DType) -> NDArray[Any]:
    """Array in numpy's spelling of `dtype`; the axes of an array type come last."""
    match dtype:
        case Array(base=base, shape=shape):
            array = _elements(value, base)
            inner = shape + to_numpy(base).shape
            if array.shape[max(0, array.ndim - len(inner)) :] != inner:
                raise InvalidRequest(f"elements of shape {inner} do not come as an array of shape {array.shape}")
            return array
        case Compound():
            return _records(value, dtype)
        case String(size=size):
            if size is not None and isinstance(value, np.ndarray) and value.dtype.kind == "S":
                return value.astype(to_numpy(dtype), copy=False)
            texts = _texts(value, variable=size is None)
            return texts if size is None else texts.astype(to_numpy(dtype))
        case Sequence(base=base):
            return _sequences(value, base)
        case Reference():
            return np.asarray(value, object)
        case Opaque():
            return _opaque(value, to_numpy(dtype))
        case _:
            return _numbers(value, dtype)


def _numbers(value: Any, dtype: DType) -> NDArray[Any]:
    given = np.asarray(value)
    if given.dtype.kind != "O" and not _is_literal(value):
        source = from_numpy(given.dtype)
        check_cast(source, dtype)
        return cast(given, source, dtype)
    target = to_numpy(dtype)
    if given.dtype.kind in "mM" or (given.dtype.kind == "c" and target.kind != "c"):
        raise UnsupportedDType(f"{given.dtype} is not taken for {target}")
    if target.kind in "iu" and given.dtype.kind in "iuf" and not in_range(given, target):
        # Numpy sees to numbers of Python itself, but not to its own in a list.
        raise InvalidRequest(f"there are numbers that do not fit into {target}")
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(value, target)


def _is_literal(value: Any) -> bool:
    """Whether numpy, not HDF5, is to say what becomes of it, as with h5py."""
    return isinstance(value, list | tuple) or (
        isinstance(value, int | float | complex | str | bytes) and not isinstance(value, np.generic)
    )


def _texts(value: Any, *, variable: bool) -> NDArray[Any]:
    """Array of bytes objects; the encoding is UTF-8."""
    given = value.astype(object) if isinstance(value, np.ndarray) else np.asarray(value, object)
    encoded: NDArray[Any] = np.empty(given.shape, object)
    for index, item in np.ndenumerate(given):
        if not isinstance(item, str | bytes):
            raise TypeError(f"text is str or bytes, not {type(item).__name__}")
        text = item.encode("utf-8", "surrogateescape") if isinstance(item, str) else bytes(item)
        encoded[index] = without_nul(text) if variable else text
    return encoded


def _opaque(value: Any, target: np.dtype[Any]) -> NDArray[Any]:
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        same = value.dtype.kind == target.kind and (target.kind != "V" or value.dtype.itemsize == target.itemsize)
        if not same:
            raise UnsupportedDType(f"{value.dtype} is not taken for {target}")
    return np.asarray(value, target)


def _records(value: Any, dtype: Compound) -> NDArray[Any]:
    """Records of records, by name, or of tuples, by position."""
    target = to_numpy(dtype)
    given = _named(value)
    if given is None:
        loose = np.dtype([(field.name, object) for field in dtype.fields])
        rows = np.asarray(value, loose)
        columns = {field.name: rows[field.name].tolist() for field in dtype.fields}
    elif is_fixed(dtype) and given.dtype == target:
        return given
    else:
        rows, names = given, {field.name for field in dtype.fields}
        if set(rows.dtype.names or ()) != names:
            raise UnsupportedDType(f"records with the members {rows.dtype.names} for those of {tuple(sorted(names))}")
        columns = {name: rows[name] for name in names}
    made: NDArray[Any] = np.zeros(rows.shape, target)
    if made.size:
        for field in dtype.fields:
            made[field.name] = _elements(columns[field.name], field.dtype)
    return made


def _named(value: Any) -> NDArray[Any] | None:
    """Records that have names; None when there are none."""
    try:
        given = np.asarray(value)
    except ValueError:
        return None
    return given if given.dtype.names else None


def _sequences(value: Any, base: DType) -> NDArray[Any]:
    """Objects, each an array of elements of `base`: a rectangle has a sequence in each of its last rows, as in h5py."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O" and _has_nested(value.flat):
        return _one_by_one(value, base)
    try:
        whole = _elements(value, base)
    except (TypeError, ValueError, OverflowError):
        if not isinstance(value, list | tuple) or not _has_nested(value):
            raise
        items: NDArray[Any] = np.empty(len(value), object)
        for number, item in enumerate(value):
            items[number] = item
        return _one_by_one(items, base)
    axis = whole.ndim - len(to_numpy(base).shape) - 1
    if axis < 0:
        raise UnsupportedDType(f"a sequence is a list or an array, not {type(value).__name__}")
    made: NDArray[Any] = np.empty(whole.shape[:axis], object)
    for index in np.ndindex(made.shape):
        made[index] = whole[index]
    return made


def _has_nested(items: Any) -> bool:
    return any(isinstance(item, list | tuple | np.ndarray) for item in items)


def _one_by_one(items: NDArray[Any], base: DType) -> NDArray[Any]:
    made: NDArray[Any] = np.empty(items.shape, object)
    axes = 1 + len(to_numpy(base).shape)
    for index, item in np.ndenumerate(items):
        elements = _elements([] if item is None else item, base)
        if elements.ndim != axes:
            raise UnsupportedDType(f"a sequence has one axis, not {elements.ndim}")
        made[index] = elements
    return made
