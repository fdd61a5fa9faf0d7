"""Arrays inside msgpack, as hdfstream sends them: a small map that describes, then the bytes in long bins.

The map has six keys in a fixed order: ``nd``, ``type``, ``kind``, ``shape``, ``nbytes``, ``data``. A client that sees
its first five bytes (`MARK`) reads the rest as a stream, straight into the destination. The writer makes the bytes
before, between and after which payload goes; the reader is a flow that asks for exactly the bytes it needs.

Source: protocols/hdfstream/SPEC.md, "Arrays".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from ndstream.core.ports import Lent
from ndstream.errors import DataError, ProtocolError
from ndstream.wire.flow import Flow, read, read_into

Buffer: TypeAlias = bytes | memoryview

MARK = b"\x86\xa2nd\xc3"
LONGEST_BIN = (1 << 32) - 1
LONGEST_PREFIX = 1024  # everything before the payload of the first bin: stock clients look no further

_LONGEST_READ_PREFIX = 1 << 20
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def array_header(count: int) -> bytes:
    """First bytes of a msgpack array of `count` items.

    Raises
    ------
    ValueError
        There are more than 2³²-1 items.
    """
    if count < 0x10:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return struct.pack(">BH", 0xDC, count)
    if count < 1 << 32:
        return struct.pack(">BI", 0xDD, count)
    raise ValueError(f"{count} items are too many for one msgpack array")


def bin_header(nbytes: int) -> bytes:
    """First bytes of a msgpack bin of `nbytes` bytes, at most `LONGEST_BIN`.

    Raises
    ------
    ValueError
        It is longer.
    """
    if nbytes < 1 << 8:
        return bytes((0xC4, nbytes))
    if nbytes < 1 << 16:
        return struct.pack(">BH", 0xC5, nbytes)
    if nbytes <= LONGEST_BIN:
        return struct.pack(">BI", 0xC6, nbytes)
    raise ValueError(f"{nbytes} bytes are too many for one msgpack bin")


def count_bins(nbytes: int) -> int:
    """Number of bins that `nbytes` bytes are sent in: none for none, all full but the last."""
    return -(-nbytes // LONGEST_BIN)


def write_prefix(element: Any, kind: str, shape: Sequence[int], nbytes: int) -> bytes:
    """Encode what comes before the first bin.

    Parameters
    ----------
    element, kind
        Spelling of the element type: any value that msgpack carries, and "V" for structured ones, else "".
    shape : sequence of int, elements
    nbytes : int
        Of all elements together, as they will be sent.
    """
    described = _encode({"type": element, "kind": kind, "shape": tuple(shape), "nbytes": nbytes})
    return b"".join((MARK, described[1:], b"\xa4data", array_header(count_bins(nbytes))))


def encoded_length(prefix: bytes, nbytes: int) -> int:
    """Length of the whole array on the wire: prefix, bin headers and `nbytes` bytes."""
    if not nbytes:
        return len(prefix)
    full, rest = divmod(nbytes, LONGEST_BIN)
    return len(prefix) + nbytes + full * len(bin_header(LONGEST_BIN)) + (len(bin_header(rest)) if rest else 0)


class Bins:
    """Puts the headers of bins between buffers whose lengths add up to `nbytes`.

    Raises
    ------
    DataError
        From `cut` when more, from `finish` when fewer bytes came than were promised.
    """

    def __init__(self, nbytes: int, longest: int = LONGEST_BIN) -> None:
        self._promised = nbytes
        self._room = 0
        self._longest = longest

    def cut(self, buffer: memoryview | Lent) -> list[Buffer | Lent]:
        """Take the next buffer (of single bytes) and give back what to send for it: headers, and views of it."""
        pieces: list[Buffer | Lent] = []
        while len(buffer):
            if not self._room:
                if not self._promised:
                    raise DataError("more bytes came than the array has")
                self._room = min(self._promised, self._longest)
                self._promised -= self._room
                pieces.append(bin_header(self._room))
            piece = buffer[: self._room]
            pieces.append(piece)
            self._room -= len(piece)
            buffer = buffer[len(piece) :]
        return pieces

    def finish(self) -> None:
        """Check that everything promised has come."""
        if self._room or self._promised:
            raise DataError(f"{self._room + self._promised} bytes of the array are missing")


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the map says before its payload; `bins` is how many bins follow."""

    type: Any
    kind: str
    shape: tuple[int, ...]
    nbytes: int
    bins: int


def read_array(destination: Callable[[Prefix], memoryview]) -> Flow[Prefix]:
    """Read an array from the start of a body into memory of the caller's choice.

    Parameters
    ----------
    destination : callable
        Called once with the `Prefix`, before anything is allocated or read. Returns a writable buffer of single bytes
        with exactly ``prefix.nbytes``, or raises when this is not what was asked for.

    Raises
    ------
    ProtocolError
        The bytes are no such array, or its bins do not add up to what it promised.
    """
    if (mark := (yield from read(len(MARK)))) != MARK:
        raise ProtocolError(f"not an array: it begins with {mark.hex(' ')}")
    prefix = yield from _read_prefix()
    buffer = destination(prefix)
    done = 0
    for _ in range(prefix.bins):
        length = yield from _read_length(0xC4, "bin")
        if done + length > prefix.nbytes:
            raise ProtocolError(f"an array of {prefix.nbytes} bytes sends more")
        yield from read_into(buffer[done : done + length])
        done += length
    if done != prefix.nbytes:
        raise ProtocolError(f"an array of {prefix.nbytes} bytes sends {done}")
    return prefix


def _read_prefix() -> Flow[Prefix]:
    """Read the five entries after the mark, up to the first bin."""
    values: list[Any] = []
    for key in ("type", "kind", "shape", "nbytes"):
        yield from _expect(key)
        token = bytearray()
        yield from _read_value(token)
        try:
            values.append(_decode(token))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"the {key} of an array cannot be decoded: {error}") from error
    yield from _expect("data")
    element, kind, shape, nbytes = values
    if not (isinstance(kind, str) and isinstance(shape, list) and all(map(_is_size, [nbytes, *shape]))):
        raise ProtocolError("the description of an array has values of wrong types")
    bins = yield from _read_count()
    return Prefix(element, kind, tuple(shape), nbytes, bins)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _expect(key: str) -> Flow[None]:
    wanted = bytes((0xA0 | len(key),)) + key.encode()
    if (yield from read(len(wanted))) != wanted:
        raise ProtocolError(f"an array has another key where {key!r} belongs")


def _read_count() -> Flow[int]:
    """Read the header of a msgpack array."""
    first = (yield from read(1))[0]
    if first & 0xF0 == 0x90:
        return first & 0x0F
    if first not in (0xDC, 0xDD):
        raise ProtocolError("the data of an array is not a list of bins")
    return int.from_bytes((yield from read(2 if first == 0xDC else 4)), "big")


def _read_length(first_tag: int, what: str) -> Flow[int]:
    """Read a header whose tag is followed by a length in 1, 2 or 4 bytes."""
    width = (yield from read(1))[0] - first_tag
    if not 0 <= width <= 2:
        raise ProtocolError(f"something else where a {what} belongs")
    return int.from_bytes((yield from read(1 << width)), "big")


_FIXED_SIZES = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {
    tag: 1 << (tag & 3) for tag in (0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD3)
}
_LENGTH_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNT_SIZES = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _read_value(token: bytearray) -> Flow[None]:
    """Read one whole msgpack value of any kind, without recursion and within a fixed length."""
    missing = 1
    while missing:
        missing -= 1
        tag = yield from _take(token, 1)
        if tag in _COUNT_SIZES:
            size, each = _COUNT_SIZES[tag]
            missing += each * (yield from _take(token, size))
        elif tag & 0xF0 == 0x80:
            missing += 2 * (tag & 0x0F)
        elif tag & 0xF0 == 0x90:
            missing += tag & 0x0F
        elif tag & 0xE0 == 0xA0:
            yield from _take(token, tag & 0x1F)
        elif tag in _LENGTH_SIZES:
            length = yield from _take(token, _LENGTH_SIZES[tag])
            yield from _take(token, length)
        elif 0x80 <= tag < 0xE0:
            if tag not in _FIXED_SIZES:
                raise ProtocolError(f"the description of an array holds the unknown byte {tag:#x}")
            yield from _take(token, _FIXED_SIZES[tag])


def _take(token: bytearray, count: int) -> Flow[int]:
    """Read `count` bytes more of a value; they are returned as a number too."""
    if len(token) + count > _LONGEST_READ_PREFIX:
        raise ProtocolError(f"the description of an array is longer than {_LONGEST_READ_PREFIX} bytes")
    if not count:
        return 0
    data = yield from read(count)
    token += data
    return int.from_bytes(data, "big") if count <= 4 else 0
