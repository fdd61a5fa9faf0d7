"""Values of requests as what a store takes, and what it gives as values of replies (SPEC.md, A3 and B5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import (
    Array,
    Compound,
    DType,
    Integer,
    Opaque,
    Reference,
    String,
    from_numpy,
    is_fixed,
    packed,
    readable,
    to_numpy,
)
from ndstream.core.elements import flatten, restore
from ndstream.core.model import Attribute
from ndstream.core.operations import Payload
from ndstream.errors import DataError, InvalidRequest, ProtocolError, RequestError, UnsupportedDType
from ndstream.protocols.rpc import arrays, codec
from ndstream.protocols.rpc.dtypes import storable
from ndstream.protocols.rpc.messages import Form
from ndstream.wire.recast import Recast

SERIALIZED = Integer(size=1, signed=False)
"""Type of the elements of a value that was serialized."""
_TEXT = String(size=None)
_PLAIN = frozenset({"|b1", "<i8", "<f8"})


@dataclass(frozen=True, slots=True)
class Stored:
    """A value as it goes into a file; `serialized` when HDF5 has no place for it as it is."""

    payload: Payload
    serialized: bool = False


def to_stored(value: Any) -> Stored:
    """Make what is stored of a value.

    Arrays, numbers, text and lists of these are stored as such. Maps, nil, bytes, and lists that make no array are
    serialized.

    Raises
    ------
    InvalidRequest, UnsupportedDType
        It cannot be stored in any way.
    """
    array = _as_array(value)
    if array is not None:
        return Stored(payload_of(array))
    try:
        data = b"".join(codec.pack({"value": value}, Form.MSGPACK))
    except UnsupportedDType as error:
        raise InvalidRequest(f"a value that cannot be stored: {error}") from error
    return Stored(Payload(dtype=SERIALIZED, shape=(len(data),), data=data), serialized=True)


def from_serialized(data: NDArray[Any]) -> Any:
    """Value that was serialized.

    Raises
    ------
    DataError
        It was not, or was changed.
    """
    try:
        return codec.restore(codec.unpack(data.tobytes(), extended=False), codec.Agreed(most=data.nbytes))["value"]
    except (ProtocolError, RequestError, KeyError, IndexError) as error:
        raise DataError("a serialized value cannot be read") from error


def to_array(value: Any) -> NDArray[Any]:
    """Array of a value that must be one.

    Raises
    ------
    InvalidRequest
    """
    array = _as_array(value)
    if array is None:
        raise InvalidRequest("data that is neither numbers nor text, nor an array of these")
    return array


def _as_array(value: Any) -> NDArray[Any] | None:
    """Array of numbers or text; None for what is none. A list of numbers and text becomes text."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, dict | bytes | None):
        return None
    if isinstance(value, list):
        if _holds_bytes(value):
            return None
        arrays.check_padded(value)
    try:
        found: NDArray[Any] = np.array(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if found.dtype.kind == "U":
        return None if _has_others(value) else found
    return found if found.dtype.kind in "biufcV" else None


def _holds_bytes(value: list[Any]) -> bool:
    return any(isinstance(item, bytes) or (type(item) is list and _holds_bytes(item)) for item in value)


def _has_others(value: Any) -> bool:
    """Whether there is something in nested lists that would be text only because numpy makes it so."""
    if isinstance(value, list):
        return any(_has_others(item) for item in value if type(item) is not str)
    return not isinstance(value, str | int | float | complex | np.generic)


def payload_of(array: NDArray[Any]) -> Payload:
    """Elements of an array on their way into a file; a view of it where it is as it is stored.

    Raises
    ------
    InvalidRequest
        Text cannot be stored: it holds NUL or half of a surrogate.
    UnsupportedDType
    """
    if array.dtype.kind == "O" and array.dtype.metadata:
        kept = from_numpy(array.dtype)
        return Payload(dtype=kept, shape=array.shape, data=flatten(array, kept))
    if array.dtype.kind in "UO":
        if array.dtype.kind == "U":
            arrays.check_characters(array)
        texts = [_encoded(item) for item in array.reshape(-1).tolist()]
        return Payload(dtype=_TEXT, shape=array.shape, data=texts)
    dtype = storable(array.dtype)
    if array.dtype.names is not None:
        array = _encode_members(array, to_numpy(dtype))
    return Payload(dtype=dtype, shape=array.shape, data=arrays.bytes_of(arrays.little_endian(array)))


def _encode_members(array: NDArray[Any], target: np.dtype[Any]) -> NDArray[Any]:
    """Records whose text is UTF-8 of fixed size."""
    made: NDArray[Any] = np.zeros(array.shape, target)
    for name in array.dtype.names or ():
        column = array[name]
        if column.dtype.names is not None:
            made[name] = _encode_members(column, made[name].dtype)
        elif column.dtype.kind == "U":
            arrays.check_characters(column)
            try:
                made[name] = np.char.encode(column, "utf-8")
            except UnicodeEncodeError as error:
                raise InvalidRequest("text that is not Unicode") from error
        else:
            made[name] = column
    return made


def _encoded(text: str) -> bytes:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("text that is not Unicode") from error
    if b"\0" in encoded:
        raise InvalidRequest("text with a NUL character in it cannot be stored")
    return encoded


# -- out of a store --


@lru_cache(maxsize=256)
def presentation_of(dtype: DType) -> Presentation:
    """Make a `Presentation`, or find the one that was made before."""
    return Presentation(dtype)


class Presentation:
    """How elements of a type are shown in replies: little-endian, packed, text as text.

    Parameters
    ----------
    dtype : DType
        As a reading of the store has it.

    Raises
    ------
    UnsupportedDType
        They do not travel.

    Attributes
    ----------
    as_stored : bool
        Whether elements are shown as the bytes that are stored, and can be nothing else.
    """

    def __init__(self, dtype: DType) -> None:
        found = readable(dtype)
        if found is None or (not is_fixed(found) and isinstance(found, Compound)):
            raise UnsupportedDType("elements of this type do not travel over this protocol")
        self.dtype = found
        self.fixed = is_fixed(found)
        self.as_stored = False
        if self.fixed:
            self._spelled = arrays.packed_dtype(to_numpy(packed(found)))
            self._recast = Recast(found, self._spelled)
            self._texts = _holds_text(found)
            self.as_stored = self._recast.is_identity and not self._texts and found != SERIALIZED

    def of_bytes(self, data: memoryview, shape: tuple[int, ...]) -> NDArray[Any]:
        """Array of elements of a fixed type as they are stored; a view when they are shown as they are."""
        inner = self._spelled.shape
        if not data.nbytes:
            array: NDArray[Any] = np.zeros(shape + inner, self._spelled.base)
        else:
            array = np.frombuffer(self._recast(data), self._spelled.base).reshape(shape + inner)
        return _decode_text(array, self.dtype) if self._texts else array

    def of_elements(self, elements: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Array of elements of variable length."""
        match self.dtype:
            case String():
                return arrays.of_texts([item.decode("utf-8", "replace") for item in elements], shape)
            case Reference(to="object"):
                return arrays.of_texts([item or "" for item in elements], shape)
            case Reference():
                raise UnsupportedDType("references to regions do not travel over this protocol")
        return restore(elements, self.dtype, shape)


def _holds_text(dtype: DType) -> bool:
    match dtype:
        case String(charset=charset):
            return charset == "utf-8"
        case Array(base=base):
            return _holds_text(base)
        case Compound(fields=fields):
            return any(_holds_text(field.dtype) for field in fields)
    return False


def _decode_text(array: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Text in place of UTF-8 of fixed size, in records as well."""
    if isinstance(dtype, Array):
        return _decode_text(array, dtype.base)
    if not isinstance(dtype, Compound):
        return np.char.decode(array, "utf-8", "replace") if array.size else np.empty(array.shape, "U1")
    columns = {}
    for field in dtype.fields:
        column = array[field.name]
        columns[field.name] = _decode_text(column, field.dtype) if _holds_text(field.dtype) else column
    kinds = [(name, column.dtype, column.shape[array.ndim :]) for name, column in columns.items()]
    made: NDArray[Any] = np.empty(array.shape, np.dtype(kinds))
    for name, column in columns.items():
        made[name] = column
    return made


def shown(array: NDArray[Any], *, original: bool) -> Any:
    """Value that is sent for an array: a single element as itself, or, for peers of old, as an array of one."""
    if array.ndim:
        return array
    if original:
        return array.reshape(1)
    return array.item() if array.dtype.kind == "U" or array.dtype.str in _PLAIN else array


def attribute_payload(value: Any) -> Payload:
    """Attribute on its way into a file; nil is a null dataspace, bytes are opaque.

    Raises
    ------
    InvalidRequest, UnsupportedDType
    """
    if value is None:
        return Payload(dtype=from_numpy(np.dtype("<f8")), shape=None, data=b"")
    if isinstance(value, bytes):
        return Payload(dtype=Opaque(size=max(len(value), 1)), shape=(), data=value or b"\0")
    return payload_of(to_array(value))


def attribute_value(attribute: Attribute) -> Any:
    """Value that is sent for an attribute.

    Raises
    ------
    DataError, UnsupportedDType
        It cannot be read, or does not travel.
    """
    if attribute.problem is not None or attribute.dtype is None:
        raise DataError(attribute.problem or "its type cannot be read")
    if attribute.shape is None:
        return None
    presentation = presentation_of(attribute.dtype)
    if presentation.fixed and isinstance(attribute.value, bytes):
        array = presentation.of_bytes(memoryview(attribute.value), attribute.shape)
    else:
        array = presentation.of_elements(list(attribute.value or ()), attribute.shape)
    if isinstance(presentation.dtype, Opaque) and not array.ndim:
        return array.tobytes()
    return shown(array, original=False)
