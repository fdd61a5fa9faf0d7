"""CBOR (RFC 8949) for messages with large arrays: byte strings are read as views and never copied.

There is no code here for tags: what one stands for is decided by whoever reads, so that nothing in a message can make
the reader do more than read. Numbers, text, lists and maps together are limited like a header, arrays in byte strings
are not.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ndstream.core.packets import Buffer
from ndstream.errors import BadHeader, DecodeError

_ARGUMENTS = {24: struct.Struct(">B"), 25: struct.Struct(">H"), 26: struct.Struct(">I"), 27: struct.Struct(">Q")}
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}
_BREAK = object()
_INDEFINITE = 31
#: Byte strings from this length on are written as a part of their own.
_LARGE = 4096


class Tag(msgspec.Struct, frozen=True):
    """A value with a tag that nothing here knows."""

    number: int
    value: Any


def decode(data: Buffer, *, items: int, depth: int, untag: Callable[[int, Any], Any] = Tag) -> Any:
    """Decode one item, which has to be all there is.

    Parameters
    ----------
    items : int
        Most items, and characters of text, that there may be.
    depth : int
        Most lists, maps and tags within each other.
    untag : function
        Gets number and value of each tag, inner ones first, and returns what it stands for.

    Returns
    -------
    object
        Byte strings are memoryviews of `data`; those that came in pieces are bytes. Undefined is None.

    Raises
    ------
    DecodeError
        It is not CBOR, or goes beyond a limit; and whatever `untag` raises.
    """
    reader = _Reader(data, items, depth, untag)
    value = reader.item(0)
    if value is _BREAK or reader.at != len(data):
        raise DecodeError(f"the CBOR ends at byte {reader.at} of {len(data)}")
    return value


class _Reader:
    __slots__ = ("_depth", "_left", "_untag", "_view", "at")

    def __init__(self, data: Buffer, items: int, depth: int, untag: Callable[[int, Any], Any]) -> None:
        self._view = memoryview(data)
        self._left = items
        self._depth = depth
        self._untag = untag
        self.at = 0

    def item(self, depth: int) -> Any:
        """Read the next item, which may be the end of those without a length."""
        if depth > self._depth:
            raise DecodeError(f"CBOR with more than {self._depth} lists, maps and tags within each other")
        self._spend(1)
        major, info = divmod(self._take(1)[0], 32)
        if major == 7:
            return self._simple(info)
        size = self._argument(info, major)
        match major:
            case 0:
                return size
            case 1:
                return -1 - size
            case 2:
                return self._take(size) if size >= 0 else b"".join(self._pieces(2))
            case 3:
                return self._text(size) if size >= 0 else "".join(map(str, self._pieces(3)))
            case 4:
                return self._list(size, depth + 1)
            case 5:
                return self._map(size, depth + 1)
        value = self.item(depth + 1)
        if value is _BREAK:
            raise DecodeError("a tag in CBOR without a value")
        return self._untag(size, value)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise DecodeError("more items and text in CBOR than the limit of headers allows")

    def _take(self, size: int) -> memoryview:
        end = self.at + size
        if end > len(self._view):
            raise DecodeError(f"the CBOR ends before byte {end}")
        taken = self._view[self.at : end]
        self.at = end
        return taken

    def _argument(self, info: int, major: int) -> int:
        """Number that comes with an item; -1 for one that says no length."""
        if info < 24:
            return info
        if info in _ARGUMENTS:
            form = _ARGUMENTS[info]
            return int(form.unpack(self._take(form.size))[0])
        if info == _INDEFINITE and 2 <= major <= 5:
            return -1
        raise DecodeError(f"no item in CBOR begins with {major * 32 + info:#x}")

    def _simple(self, info: int) -> Any:
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info in _FLOATS:
            form = _FLOATS[info]
            return form.unpack(self._take(form.size))[0]
        if info == _INDEFINITE:
            return _BREAK
        if info == 24:
            info = self._take(1)[0]
        raise DecodeError(f"the simple value {info} of CBOR has no meaning")

    def _text(self, size: int) -> str:
        self._spend(size)
        try:
            return str(self._take(size), "utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"text in CBOR that is no UTF-8: {error}") from error

    def _pieces(self, major: int) -> list[Any]:
        pieces: list[Any] = []
        while (initial := self._take(1)[0]) != 0xFF:
            self._spend(1)
            if initial >> 5 != major or initial & 31 == _INDEFINITE:
                raise DecodeError("a string in CBOR has pieces of another kind")
            size = self._argument(initial & 31, major)
            pieces.append(self._take(size) if major == 2 else self._text(size))
        return pieces

    def _list(self, size: int, depth: int) -> list[Any]:
        if size > self._left:
            self._spend(size)
        values: list[Any] = []
        while len(values) != size:
            value = self.item(depth)
            if value is _BREAK:
                if size < 0:
                    break
                raise DecodeError("a list in CBOR ends early")
            values.append(value)
        return values

    def _map(self, size: int, depth: int) -> dict[Any, Any]:
        values = self._list(2 * size if size >= 0 else size, depth)
        if len(values) % 2:
            raise DecodeError("a map in CBOR has a key without a value")
        keys = [bytes(key) if isinstance(key, memoryview) else key for key in values[::2]]
        if not all(isinstance(key, str | int | bytes) for key in keys):
            raise DecodeError("a key in CBOR is neither text, bytes nor a whole number")
        return dict(zip(keys, values[1::2], strict=True))


def encode(value: Any, convert: Callable[[Any], Any] | None = None) -> list[Buffer]:
    """Encode one item.

    Parameters
    ----------
    value : object
        None, bool, int, float, text, bytes, lists, tuples, mappings, `Tag`.
    convert : function, optional
        Makes one of these of anything else.

    Returns
    -------
    list of buffers
        What the item consists of, one after the other; long byte strings are views.

    Raises
    ------
    BadHeader
        A value cannot be written.
    """
    parts: list[Buffer] = [bytearray()]
    try:
        _write(value, parts, convert)
    except RecursionError as error:
        raise BadHeader("lists and maps too deep for CBOR, or without end") from error
    return parts


def _write(value: Any, parts: list[Buffer], convert: Callable[[Any], Any] | None) -> None:
    out = parts[-1]
    assert isinstance(out, bytearray)
    match value:
        case None:
            out += b"\xf6"
        case bool():
            out += b"\xf5" if value else b"\xf4"
        case int() if -(1 << 64) <= value < 1 << 64:
            out += _head(0, value) if value >= 0 else _head(1, -1 - value)
        case float():
            out += b"\xfb" + struct.pack(">d", value if not math.isnan(value) else math.nan)
        case str():
            text = value.encode()
            out += _head(3, len(text)) + text
        case bytes() | bytearray() | memoryview():
            out += _head(2, len(value))
            if len(value) < _LARGE:
                out += value
            else:
                parts += [value, bytearray()]
        case list() | tuple():
            out += _head(4, len(value))
            for item in value:
                _write(item, parts, convert)
        case Tag(number, inner):
            out += _head(6, number)
            _write(inner, parts, convert)
        case Mapping():
            out += _head(5, len(value))
            for key, item in value.items():
                _write(key, parts, convert)
                _write(item, parts, convert)
        case _ if convert is not None:
            _write(convert(value), parts, convert)
        case _:
            raise BadHeader(f"CBOR has no form for {repr(value)[:80]}")


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major * 32 + argument])
    info = 24 if argument < 1 << 8 else 25 if argument < 1 << 16 else 26 if argument < 1 << 32 else 27
    return bytes([major * 32 + info]) + _ARGUMENTS[info].pack(argument)
