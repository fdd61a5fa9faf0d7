"""Bytes to messages of the native protocol and back; pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from http import HTTPStatus
from io import BytesIO
from math import prod
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import (
    Array,
    Compound,
    DType,
    Reference,
    Sequence,
    String,
    is_fixed,
    item_size,
    to_numpy,
)
from ndstream.core.operations import Committed, Event, Operation, Payload, with_payloads
from ndstream.errors import InvalidRequest, NDStreamError, NotFound, ProtocolError, UnsupportedDType
from ndstream.protocols.native.messages import (
    Batch,
    Block,
    Capabilities,
    Described,
    Entry,
    Place,
    Problem,
    Reads,
    Stored,
)

T = TypeVar("T")

encode_msgpack = msgspec.msgpack.Encoder().encode
encode_json = msgspec.json.Encoder().encode

_MESSAGES = (Capabilities, Entry, Described, Reads, Batch, Block, Stored, Committed, Event)
_msgpack_decoders: dict[type, Any] = {kind: msgspec.msgpack.Decoder(kind) for kind in _MESSAGES}
_json_decoders: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (Reads, Batch, Event, Problem)}
_decode_list = msgspec.msgpack.Decoder(list[Any]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(body: bytes | bytearray | memoryview, kind: type[T]) -> T:
    """Decode a message in msgpack that a server sent.

    Raises
    ------
    ProtocolError
        It is no such message.
    """
    try:
        message: T = _msgpack_decoders[kind].decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"the answer is no {kind.__name__}: {error}") from error
    return message


def decode_request(body: bytes | bytearray | memoryview, kind: type[T], *, json: bool) -> T:
    """Decode a message that a client sent, in JSON or in msgpack.

    Raises
    ------
    InvalidRequest
        It is no such message.
    """
    try:
        message: T = (_json_decoders if json else _msgpack_decoders)[kind].decode(body)
    except _UNREADABLE as error:
        raise InvalidRequest(f"the body is no {kind.__name__}: {error}") from error
    return message


def decode_elements(body: bytes) -> list[Any]:
    """Elements of variable length out of one frame.

    Raises
    ------
    ProtocolError
    """
    try:
        return _decode_list(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"the elements of a frame cannot be decoded: {error}") from error


def encode_problem(error: NDStreamError, status: int) -> bytes:
    """Encode an error as a problem document (RFC 9457)."""
    title = HTTPStatus(status).phrase
    return encode_json(Problem(title=title, status=status, detail=str(error), code=error.code))


def decode_problem(body: bytes) -> str:
    """Text of a problem document; "" when it is none."""
    try:
        problem: Problem = _json_decoders[Problem].decode(body)
    except _UNREADABLE:
        return ""
    return problem.detail


def npy_header(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """First bytes of an ``.npy`` file of these elements.

    Raises
    ------
    UnsupportedDType
        They are of variable length.
    """
    if not is_fixed(dtype):
        raise UnsupportedDType("elements of variable length cannot be sent as .npy")
    spelled = to_numpy(dtype)
    stream = BytesIO()
    described = np.lib.format.dtype_to_descr(_without_metadata(spelled.base))
    header = {"descr": described, "fortran_order": False, "shape": shape + spelled.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _without_metadata(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Make the same type without what h5py notes in it, which .npy has no place for."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((_without_metadata(base), shape))
    if dtype.names is None:
        return np.dtype(dtype.str)
    fields: Any = dtype.fields
    return np.dtype(
        {
            "names": list(dtype.names),
            "formats": [_without_metadata(fields[name][0]) for name in dtype.names],
            "offsets": [fields[name][1] for name in dtype.names],
            "itemsize": dtype.itemsize,
        }
    )


def plain_values(dtype: DType, shape: tuple[int, ...], data: bytes | list[Any]) -> Any:
    """Elements as nested lists of what JSON has.

    Complex numbers become pairs, records lists of their members, strings text; other bytes are for base64.
    """
    if isinstance(data, list):
        flat: Any = [_text(item) for item in data] if isinstance(dtype, String) else data
        return _nested(flat, shape)
    spelled = to_numpy(dtype)
    array: NDArray[Any] = np.frombuffer(data, spelled.base).reshape(shape + spelled.shape)
    return _plain(array)


def _plain(array: NDArray[Any]) -> Any:
    if array.dtype.names is not None:
        members = [_plain(array[name]) for name in array.dtype.names]
        return _zipped(members, array.ndim)
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype("f8")
    found = array.tolist()
    return _map(found, _text) if array.dtype.kind == "S" else found


def _zipped(members: list[Any], depth: int) -> Any:
    if not depth:
        return members
    return [_zipped(list(row), depth - 1) for row in zip(*members, strict=True)]


def _map(values: Any, function: Callable[[Any], Any]) -> Any:
    return [_map(item, function) for item in values] if isinstance(values, list) else function(values)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    array: NDArray[Any] = np.empty(len(flat), object)
    for index, item in enumerate(flat):  # an item may be a list itself
        array[index] = item
    return array.reshape(shape).tolist()


# -- writing --


def detach(operations: tuple[Operation, ...], most: int) -> tuple[tuple[Operation, ...], list[memoryview]]:
    """Take the bytes out of payloads, to follow the header of the batch.

    Parameters
    ----------
    most : int, bytes
        Payloads up to this size stay where they are.

    Returns
    -------
    operations
        With a `Place` where bytes were taken out.
    list of memoryview
        These bytes, in order; views.
    """
    bodies: list[memoryview] = []
    at = 0

    def take(payload: Payload) -> Payload:
        nonlocal at
        if isinstance(payload.data, list):
            return payload
        body = memoryview(payload.data).cast("B")
        if len(body) <= most:
            return msgspec.structs.replace(payload, data=bytes(body))
        bodies.append(body)
        place = {"at": at, "nbytes": len(body)}
        at += len(body)
        return msgspec.structs.replace(payload, data=place)

    return tuple([with_payloads(operation, take) for operation in operations]), bodies


def attach(operations: tuple[Operation, ...], bodies: memoryview, *, json: bool = False) -> tuple[Operation, ...]:
    """Put what `detach` took out back into the payloads, as views, and check all payloads.

    Parameters
    ----------
    json : bool
        Whether they came in JSON, which has no bytes (SPEC.md, "Writing").

    Raises
    ------
    InvalidRequest
        A place leaves what follows the header, or the data do not make the shape.
    UnsupportedDType
    """

    def put(payload: Payload) -> Payload:
        data = payload.data
        if isinstance(data, dict):
            place = _place(data)
            if not 0 <= place.at <= place.at + place.nbytes <= len(bodies):
                raise InvalidRequest(f"bytes {place.at} to {place.at + place.nbytes} do not follow the header")
            data = bodies[place.at : place.at + place.nbytes]
        return _checked(payload, _from_json(payload.dtype, data) if json else data)

    return tuple([with_payloads(operation, put) for operation in operations])


def _place(data: dict[Any, Any]) -> Place:
    try:
        return msgspec.convert(data, Place)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the place of a payload: {error}") from error


def _from_json(dtype: DType, data: Any) -> Any:
    """Make what msgpack would have had of the data of a payload: text is bytes, as UTF-8 in strings, else as base64."""
    if not is_fixed(dtype):
        return [_element(item, dtype) for item in data] if isinstance(data, list) else data
    if isinstance(data, str):
        return _base64(data)
    return _map(data, _utf8) if isinstance(dtype, String) else data


def _element(value: Any, dtype: DType) -> Any:
    """Make an element of variable length, or a fixed type inside of one (`ndstream.core.elements`)."""
    match dtype, value:
        case String(size=None), str():
            return _utf8(value)
        case Sequence(base=base), list():
            return [_element(item, base) for item in value]
        case Array(base=base), list():
            return [_element(item, base) for item in value]
        case Compound(fields=fields), list() if len(fields) == len(value):
            return [_element(item, field.dtype) for item, field in zip(value, fields, strict=True)]
        case Reference(), _:
            return value
        case _, str():
            return _base64(value)
    return value


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"bytes are base64 text in JSON: {error}") from error


def _utf8(value: Any) -> Any:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _checked(payload: Payload, data: Any) -> Payload:
    """Make the payload that stores accept; lists, which JSON has, become bytes."""
    size = item_size(payload.dtype)
    shape = payload.shape
    if shape is None:
        return msgspec.structs.replace(payload, data=b"")
    if any(side < 0 for side in shape):
        raise InvalidRequest(f"a payload cannot have the shape {shape}")
    if size is None:
        if not isinstance(data, list) or len(data) != prod(shape):
            raise InvalidRequest(f"elements of variable length come as a list of {prod(shape)}")
        return msgspec.structs.replace(payload, data=data)
    if isinstance(data, list):
        data = _packed(payload.dtype, shape, data)
    if not isinstance(data, bytes | memoryview) or len(data) != size * prod(shape):
        raise InvalidRequest(f"a payload of shape {shape} needs {size * prod(shape)} bytes")
    return payload if data is payload.data else msgspec.structs.replace(payload, data=data)


def _packed(dtype: DType, shape: tuple[int, ...], values: list[Any]) -> bytes:
    spelled = to_numpy(dtype)
    try:
        array = np.asarray(values, spelled.base)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"these values are not of their type: {error}") from error
    if array.size != prod(shape) * prod(spelled.shape):
        raise InvalidRequest(f"{array.size} values do not make the shape {shape}")
    return array.tobytes()


# -- events --


def encode_event(event: Event) -> bytes:
    """Encode a server-sent event; its id is the tag of the state that the commit made."""
    return b"id: %b\nevent: commit\ndata: %b\n\n" % ((event.tag or str(event.number)).encode(), encode_json(event))


def decode_events(buffer: bytearray) -> Iterator[Event]:
    """Take the complete events out of what has come so far; comments are dropped.

    Raises
    ------
    NotFound
        The file is gone: no more events come.
    ProtocolError
        An event is none of ours.
    """
    while (end := buffer.find(b"\n\n")) >= 0:
        block = bytes(buffer[:end])
        del buffer[: end + 2]
        if block.startswith(b"event: end"):
            raise NotFound("the file is gone")
        data = b"".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
        if not data:
            continue
        try:
            event: Event = _json_decoders[Event].decode(data)
        except _UNREADABLE as error:
            raise ProtocolError(f"an event cannot be decoded: {error}") from error
        yield event
