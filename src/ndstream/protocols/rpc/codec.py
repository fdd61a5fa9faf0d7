"""Bytes to messages and back, in the three forms that a payload may have (SPEC.md, A1, A2, B2, C2).

A payload is taken apart in two steps, so that what is wrong with an array can be answered under the id of its request:
`unpack` gives the bare map, `restore` puts arrays in it. `pack` does both the other way.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import KiB, MiB
from ndstream.errors import InvalidRequest, ProtocolError, TooLarge, UnsupportedDType
from ndstream.protocols.rpc import arrays
from ndstream.protocols.rpc.counting import json_exceeds, msgpack_exceeds
from ndstream.protocols.rpc.messages import (
    DEPTH,
    LARGEST_ID,
    LONGEST_ID,
    WIDTH,
    Failure,
    Form,
    Ident,
    PlainRead,
    Request,
)
from ndstream.wire.framing import LONGEST, Buffer

_EXTENDED = 0xC1
_HEAD = struct.Struct(">BBHI")
_LAYOUT = 1
_MORE = 1
_ALIGNED = 8
_JSON = frozenset(b"{ \t\n\r")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_WORTH_COMPRESSING = 4 * KiB
_OBJECT = 64
_STRETCH = 64 * KiB
_TOGETHER = 256
"""Items of a list that are put into JSON together, unless they have more than a stretch."""

_NOTHING: frozenset[str] = frozenset()
_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
_CONTAINERS = frozenset({dict, list, np.ndarray})
_decode = msgspec.msgpack.Decoder().decode
_UNREADABLE = (msgspec.DecodeError, RecursionError, MemoryError, TypeError, UnicodeDecodeError)
_decode_json = msgspec.json.Decoder().decode
_decode_read = msgspec.msgpack.Decoder(PlainRead).decode
_READ = b"\xa4read"
_SHORT = 8 * KiB
"""Bytes of a payload that may be a plain read."""


class _Identified(msgspec.Struct):
    """A message of which all but the id is passed over."""

    id: int | str | None = None


_decode_ident = msgspec.msgpack.Decoder(_Identified).decode
_decode_json_ident = msgspec.json.Decoder(_Identified).decode


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A payload whose arrays are still what stands for them."""

    form: Form
    fields: dict[str, Any]
    bodies: tuple[memoryview, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a connection agreed on: ways of compression, and the longest frame that is accepted.

    The arrays of a message may take as much together, or 64 MiB.
    """

    codecs: frozenset[str] = _NOTHING
    most: int = 256 * MiB


def unpack(payload: Buffer, *, extended: bool) -> Unpacked:
    """Take a payload apart.

    Parameters
    ----------
    extended : bool
        Whether extended frames are allowed, which is so after hello.

    Raises
    ------
    ProtocolError
        It is no message in any form.
    """
    first = payload[0]
    if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
        return Unpacked(Form.MSGPACK, _map(_read_msgpack(payload)))
    if first in _JSON:
        return Unpacked(Form.JSON, _map(_read_json(payload)))
    if first == _EXTENDED and extended:
        return _read_extended(payload)
    raise ProtocolError(f"no message begins with the byte {first:#04x}" + (" before hello" * (first == _EXTENDED)))


def check_values(payload: Buffer, most: int) -> None:
    """Look at how many values a payload has, before it is taken apart.

    Raises
    ------
    TooLarge
        More than `most`.
    """
    first = payload[0]
    if first in _JSON:
        exceeds = json_exceeds(bytes(payload), most)
    elif first == _EXTENDED:
        exceeds = msgpack_exceeds(_header(payload), most)
    else:
        exceeds = msgpack_exceeds(payload, most)
    if exceeds:
        raise TooLarge(f"a message of more than {most} values: send numbers as an array, or in parts (limit: values)")


def ident_alone(payload: Buffer) -> tuple[Form, Ident | None]:
    """Form and id of a message that is not taken apart; None when it has no id, or it cannot be told."""
    first = payload[0]
    try:
        if first in _JSON:
            return Form.JSON, ident_of(_decode_json_ident(payload).id)
        return Form.MSGPACK, ident_of(_decode_ident(_header(payload) if first == _EXTENDED else payload).id)
    except (*_UNREADABLE, InvalidRequest):
        return Form.JSON if first in _JSON else Form.MSGPACK, None


def _header(payload: Buffer) -> memoryview:
    """Map of an extended message, as it came."""
    view = memoryview(payload)
    return view[_HEAD.size : _HEAD.size + int.from_bytes(view[4 : _HEAD.size], "big")]


def is_extended(payload: Buffer) -> bool:
    """Whether a payload is an extended message."""
    return payload[0] == _EXTENDED


def _read_msgpack(payload: Buffer) -> Any:
    try:
        return _decode(payload)
    except _UNREADABLE as error:
        raise ProtocolError(f"not msgpack: {error}") from error


def _read_json(payload: Buffer) -> Any:
    text = bytes(payload)
    try:
        # Six times as fast, and no other thread runs meanwhile. Bare words such as NaN, and all errors, are for json.
        return _decode_json(text)
    except _UNREADABLE:
        pass
    try:
        found = json.loads(text)
        if _SURROGATE.search(text):
            # Halves of characters, which are no text: they could be neither stored nor sent back.
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    return found


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > WIDTH:
        raise ProtocolError("a message is a map, and not a huge one")
    if not all(type(key) is str for key in value):
        raise ProtocolError("the keys of a message are text")
    return value


def _read_extended(payload: Buffer) -> Unpacked:
    view = memoryview(payload)
    if len(view) < _HEAD.size:
        raise ProtocolError("an extended frame is too short")
    _, layout, flags, length = _HEAD.unpack_from(view)
    if layout != _LAYOUT or flags & ~_MORE or _HEAD.size + length > len(view):
        raise ProtocolError("an extended frame of another version, or cut short")
    end = _HEAD.size + length
    fields = _map(_read_msgpack(view[_HEAD.size : end]))
    lengths = fields.pop("bodies", [])
    if not isinstance(lengths, list) or not all(type(one) is int and one >= 0 for one in lengths):
        raise ProtocolError("the lengths of bodies are no list of integers")
    bodies = []
    for one in lengths:
        start = _aligned(end)
        if start + one > len(view) or any(view[end:start]):
            raise ProtocolError("the bodies do not fill their frame")
        end = start + one
        bodies.append(view[start:end])
    if end != len(view) and (bodies or _aligned(end) != len(view)):
        raise ProtocolError("the bodies do not fill their frame")
    return Unpacked(Form.EXTENDED, fields, tuple(bodies), bool(flags & _MORE))


def _aligned(at: int) -> int:
    return -(-at // _ALIGNED) * _ALIGNED


def plain_read(payload: bytes) -> PlainRead | None:
    """Take a payload apart that is a plain read in messagepack; None when it is not, or anything is wrong with it."""
    if len(payload) > _SHORT or _READ not in payload:
        return None
    try:
        read = _decode_read(payload)
        ident_of(read.id)
    except (*_UNREADABLE, InvalidRequest):
        return None
    return read


# -- arrays in their places --


def restore(unpacked: Unpacked, agreed: Agreed) -> dict[str, Any]:
    """Put arrays in the place of what stands for them.

    Raises
    ------
    ProtocolError
        Something is nested too deep, too wide, or does not fit together.
    InvalidRequest, UnsupportedDType, TooLarge
        An array is not what it says.
    """
    fields = unpacked.fields
    if all(type(value) in _PLAIN for value in fields.values()):
        return fields
    restorer = _Restorer(unpacked, agreed)
    return {key: restorer.value(value, 1) for key, value in fields.items()}


class _Restorer:
    """Walks through the values of one message."""

    def __init__(self, unpacked: Unpacked, agreed: Agreed) -> None:
        self._form = unpacked.form
        self._bodies = unpacked.bodies
        self._codecs = agreed.codecs
        self._most = agreed.most
        self._room = max(agreed.most, arrays.PADDED)

    def value(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return self._entries(value, depth)
        if isinstance(value, list):
            if depth >= DEPTH:
                raise ProtocolError(f"more than {DEPTH} containers within one another")
            if any(type(item) is dict or type(item) is list for item in value):
                return [self.value(item, depth + 1) for item in value]
            return value
        if isinstance(value, msgspec.msgpack.Ext):
            raise InvalidRequest("extension types of msgpack mean nothing here")
        return value

    def _entries(self, value: dict[Any, Any], depth: int) -> Any:
        if depth >= DEPTH or len(value) > WIDTH:
            raise ProtocolError(f"more than {DEPTH} containers within one another, or a map of more than {WIDTH}")
        if self._form is Form.MSGPACK and arrays.is_map(value):
            return self._counted(arrays.from_map(value))
        if self._form is Form.EXTENDED and "$nd" in value:
            return self._counted(arrays.from_reference(value, self._bodies, self._codecs, self._left))
        if not all(isinstance(key, str) for key in value):
            raise InvalidRequest("the keys of a map are text")
        doubled = self._form is Form.EXTENDED
        return {
            key[1:] if doubled and key.startswith("$$") else key: self.value(item, depth + 1)
            for key, item in value.items()
        }

    @property
    def _left(self) -> int:
        return min(self._room, self._most)

    def _counted(self, array: Any) -> Any:
        """Count what an array takes: bodies may be smaller, and be meant several times, and so may elements in lists.

        Raises
        ------
        TooLarge
        """
        self._room -= array.nbytes if isinstance(array, np.ndarray) else 0
        if self._room < 0:
            raise TooLarge("the arrays of a message take far more memory than a frame has (limit: frame)")
        return array


# -- out --


def pack(
    fields: Mapping[str, Any], form: Form, *, more: bool = False, compress: bool = False, most: int = LONGEST
) -> list[Buffer]:
    """Put a message into bytes.

    Parameters
    ----------
    fields : mapping
        Values with arrays and numpy scalars in them. In an extended message, arrays become bodies without a copy when
        they are little-endian, packed and in C order.
    more : bool
        Whether more frames of this reply follow; extended messages only.
    compress : bool
        Compress bodies that are worth it by zlib; extended messages only.
    most : int, bytes
        Length beyond which the rest is not made; JSON only, in which numbers are longer than they are.

    Returns
    -------
    list of buffers
        One behind the other they are the payload of a frame.

    Raises
    ------
    UnsupportedDType
        A value has no place in this form.
    TooLarge
        It would have more than `most` bytes, or far more lists than elements.
    """
    if form is Form.EXTENDED:
        return _pack_extended(fields, more, compress)
    try:
        if form is Form.MSGPACK:
            return [_encode(fields)]
        return [_encode_json(fields, most)]
    except TooLarge:
        raise
    except (OverflowError, ValueError, TypeError) as error:
        raise UnsupportedDType(f"a value that does not travel: {error}") from error


def _for_msgpack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return arrays.to_lists(value) if value.dtype.hasobject else arrays.to_map(value)
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        return _for_msgpack(np.asarray(value)) if isinstance(value, np.void) else _plain_number(value)
    if isinstance(value, complex):
        return {b"complex": True, b"data": repr(value)}
    raise UnsupportedDType(f"a value of type {type(value).__name__} does not travel")


def _plain_number(value: np.generic) -> Any:
    """Scalar as Python has it; of the longest floats, Python has none."""
    if isinstance(value, np.longdouble):
        return float(value)
    return complex(value) if isinstance(value, np.clongdouble) else value.item()


_encode = msgspec.msgpack.Encoder(enc_hook=_for_msgpack).encode
_ID = _encode("id")


def _for_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return arrays.to_lists(value)
    if isinstance(value, np.generic) and not isinstance(value, np.void | np.bytes_ | np.complexfloating):
        return _plain_number(value)
    raise UnsupportedDType(f"JSON has no place for a value of type {type(value).__name__}")


def _encode_json(fields: Mapping[str, Any], most: int) -> bytes:
    """Encode in pieces: a long one would keep every other thread waiting."""
    if not is_bulky(fields, _STRETCH):
        return json.dumps(fields, default=_for_json, ensure_ascii=False).encode()
    found = bytearray()
    for piece in _json_pieces(fields):
        found += piece.encode()
        if len(found) > most:
            raise TooLarge(f"a message of more than {most} bytes: ask for a part, or in messagepack")
    return bytes(found)


def _json_pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield f"{', ' * (number > 0)}{json.dumps(key, ensure_ascii=False)}: "
            yield from _json_pieces(item)
        yield "}"
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        yield "["
        for at in range(0, len(value), _TOGETHER):
            yield ", " * (at > 0)
            yield from _json_items(value[at : at + _TOGETHER])
        yield "]"
    else:
        yield json.dumps(value, default=_for_json, ensure_ascii=False)


def _json_items(items: Any) -> Iterator[str]:
    """Pieces of what stands between the brackets of a list, or of an array."""
    if getattr(items, "ndim", 2) == 1 or not is_bulky(items, _STRETCH):
        yield json.dumps(items, default=_for_json, ensure_ascii=False)[1:-1]
        return
    for number, item in enumerate(items):
        yield ", " * (number > 0)
        yield from _json_pieces(item)


def _pack_extended(fields: Mapping[str, Any], more: bool, compress: bool) -> list[Buffer]:
    bodies: list[Buffer] = []
    header = {key: _referring(value, bodies, compress) for key, value in fields.items()}
    if bodies:
        header["bodies"] = [len(body) for body in bodies]
    try:
        encoded = _encode(header)
    except (OverflowError, ValueError, TypeError) as error:
        raise UnsupportedDType(f"a value that does not travel: {error}") from error
    found: list[Buffer] = [_HEAD.pack(_EXTENDED, _LAYOUT, _MORE if more else 0, len(encoded)) + encoded]
    at = _HEAD.size + len(encoded)
    for body in bodies:
        gap = _aligned(at) - at
        if gap:
            found.append(bytes(gap))
        found.append(body)
        at += gap + len(body)
    return found


def _referring(value: Any, bodies: list[Buffer], compress: bool) -> Any:
    """Value in which maps refer to the bodies of arrays."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        reference = arrays.to_reference(value, bodies)
        return _compressed(reference, bodies) if compress else reference
    if isinstance(value, complex | np.complexfloating | np.void):
        return arrays.to_reference(np.asarray(value), bodies)
    if isinstance(value, Mapping):
        return {
            f"${key}" if str(key).startswith("$") else key: _referring(item, bodies, compress)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_referring(item, bodies, compress) for item in value]
    return value


def _compressed(reference: dict[str, Any], bodies: list[Buffer]) -> dict[str, Any]:
    place = reference["$nd"]
    if isinstance(place, list) or len(bodies[place]) < _WORTH_COMPRESSING:
        return reference
    nbytes = len(bodies[place])
    smaller = zlib.compress(bodies[place], 1)
    if len(smaller) >= nbytes:
        return reference
    bodies[place] = smaller
    return reference | {"codec": "zlib", "nbytes": nbytes}


class Mould:
    """A reply around an array, made once: elements and id are put into it each time.

    Parameters
    ----------
    fields : mapping
        As of `pack`, without an id; one of them is an array that is sent as it is. In messagepack it is the last.
    form : {Form.MSGPACK, Form.EXTENDED}
    nbytes : int
        Of that array; not 0.
    """

    __slots__ = ("_begin", "_extended", "_rest", "_unnamed")

    def __init__(self, fields: Mapping[str, Any], form: Form, nbytes: int) -> None:
        packed = bytes(pack(fields, form)[0])
        self._extended = form is Form.EXTENDED
        encoded = packed[_HEAD.size :] if self._extended else packed[:-nbytes]
        self._begin, self._rest = encoded[0], encoded[1:]
        self._unnamed = self._head(encoded)

    def filled(self, elements: memoryview, ident: Ident | None) -> list[Buffer]:
        """Put a message into bytes: the same as `pack` makes."""
        if ident is None:
            return [self._unnamed, elements]
        # One entry more in a map of a few, which the lower half of its first byte counts.
        encoded = b"%c%b%b%b" % (self._begin + 1, _ID, _encode(ident), self._rest)
        return [self._head(encoded), elements]

    def _head(self, encoded: bytes) -> bytes:
        if not self._extended:
            return encoded
        head = _HEAD.pack(_EXTENDED, _LAYOUT, 0, len(encoded)) + encoded
        return head + bytes(_aligned(len(head)) - len(head))


# -- requests and replies --


def ident_of(ident: Any) -> Ident | None:
    """Id of a request; None when it has none.

    Raises
    ------
    InvalidRequest
        It cannot be one.
    """
    if ident is None or (type(ident) is int and 0 <= ident <= LARGEST_ID):
        return ident
    if isinstance(ident, str) and len(ident.encode()) <= LONGEST_ID:
        return ident
    raise InvalidRequest(f"an id is an integer from 0 to {LARGEST_ID}, or text of at most {LONGEST_ID} bytes")


def request_of(fields: Mapping[str, Any], form: Form, ident: Ident | None) -> Request:
    """Make a request of a message.

    Raises
    ------
    InvalidRequest
        It names no command.
    """
    command = fields.get("command")
    if not isinstance(command, str):
        raise InvalidRequest("a request names its command")
    arguments = {key: value for key, value in fields.items() if key not in ("command", "id")}
    return Request(command=command, arguments=arguments, ident=ident, form=form)


def failure_fields(failure: Failure, *, typed: bool) -> dict[str, Any]:
    """Message of a refusal; typed after hello, in the words of the original before."""
    if failure.code == "not_found" and not typed:
        return {"status": "not_found"}
    if not typed:
        return {"status": "error", "message": failure.message}
    status = "not_found" if failure.code == "not_found" else "error"
    fields: dict[str, Any] = {"status": status, "code": failure.code, "message": failure.message}
    return fields | {"details": failure.details} if failure.details else fields


def is_bulky(value: Any, most: int) -> bool:
    """Whether putting a message together is as much work as copying more than `most` bytes of arrays.

    Items of lists and maps, and objects in arrays, count as so many bytes each.
    """
    weight = 0
    inside = [value]
    while inside and weight <= most:
        one = inside.pop()
        if isinstance(one, np.ndarray):
            weight += one.size * _OBJECT if one.dtype.hasobject else one.nbytes
        elif isinstance(one, Mapping | list | tuple):
            weight += len(one) * _OBJECT
            if weight <= most:
                inside += one.values() if isinstance(one, Mapping) else one
        elif isinstance(one, str | bytes):
            weight += len(one)
    return weight > most


def weight_of(value: Any) -> int:
    """Bytes that a value takes in memory, about."""
    weight = 0
    inside = [value]
    while inside:
        one = inside.pop()
        if isinstance(one, np.ndarray):
            weight += one.size * _OBJECT if one.dtype.hasobject else one.nbytes
            continue
        items = one.values() if isinstance(one, Mapping) else one
        weight += len(items) * _OBJECT
        inside += [item for item in items if type(item) in _CONTAINERS]
    return weight


def pack_failure(fields: Mapping[str, Any], form: Form) -> list[Buffer]:
    """Put the message of a refusal into bytes, in JSON or MessagePack; of what has no place there, what can be said."""
    form = Form.JSON if form is Form.JSON else Form.MSGPACK
    try:
        return pack(fields, form)
    except UnsupportedDType:
        # Numbers of more than 64 bits among the details, or a name in the file that is no Unicode.
        rest = {key: value for key, value in fields.items() if key != "details"}
        message = str(fields.get("message", "")).encode(errors="backslashreplace").decode()
        return pack(rest | {"message": message}, form)


def arrays_in(value: Any) -> Sequence[NDArray[Any]]:
    """Arrays among the values of a message, those inside of lists and maps too."""
    if isinstance(value, np.ndarray):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [array for item in inner for array in arrays_in(item)]
