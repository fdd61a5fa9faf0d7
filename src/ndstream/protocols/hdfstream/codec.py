"""Requests from bytes, documents to bytes.

Source: SPEC.md, "Requests" and "Documents".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Raw

from ndstream.core.limits import Limits
from ndstream.errors import InvalidRequest, NDStreamError, TooLarge
from ndstream.protocols.hdfstream.messages import INT32_MAX, Body, BoxBody, Request, Slices
from ndstream.protocols.hdfstream.slices import parse_arrays, parse_text
from ndstream.wire.ndmsgpack import Buffer, array_header

DESCRIBE = Request()

_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(Body).decode
_decode_box = msgspec.msgpack.Decoder(BoxBody).decode
_TWO_KEYS = 0x82  # a map of two entries: those of a box, each once
_SHORT = 4096  # bytes of a body that may ask for one box
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}", re.ASCII)
_EMPTY_MAP = b"\x80"
_LONG_MAPS = {0xDE: 2, 0xDF: 4}  # tags of msgpack maps to the bytes of their lengths


# -- requests --


def parse_query(query: bytes, limits: Limits) -> Request:
    """Read the query string of a GET; parameters it does not know are ignored, of repeated ones the first counts.

    Raises
    ------
    InvalidRequest, TooLarge, OutOfBounds
    """
    if not query:
        return DESCRIBE
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict")
    except ValueError as error:
        raise InvalidRequest(f"the query cannot be decoded: {error}") from error
    found = dict(reversed(pairs))
    name = found.get("object")
    if name is not None:
        _check_name(name, len(name), limits)
    slices = found.get("slice")
    return _request(
        name,
        _integer("max_depth", found.get("max_depth"), 0),
        _integer("data_size_limit", found.get("data_size_limit"), INT32_MAX),
        None if slices is None else parse_text(slices, limits),
    )


def parse_body(body: bytes | bytearray, limits: Limits) -> Request:
    """Read the body of a POST: one msgpack map of at most the four known keys, each at most once.

    Raises
    ------
    InvalidRequest, TooLarge, OutOfBounds
        The message of the first two begins with "Unable to decode request: ".
    """
    if body == _EMPTY_MAP:
        return DESCRIBE
    box = _parse_box(body, limits)
    if box is not None:
        return box
    try:
        return _parse_body(body, limits)
    except InvalidRequest as error:
        raise type(error)(f"Unable to decode request: {error}") from error


def _parse_box(body: bytes | bytearray, limits: Limits) -> Request | None:
    """Read a body that asks for one box; None when it is another, or anything is wrong with it."""
    if not body or body[0] != _TWO_KEYS or len(body) > _SHORT:
        return None
    try:
        box = _decode_box(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    name = box.object
    if not name.isascii() or len(name) > limits.path_length or "\0" in name:
        return None
    return Request(name, slices=Slices(box.slice))


def _parse_body(body: bytes | bytearray, limits: Limits) -> Request:
    try:
        decoded = _decode_body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(str(error)) from error
    given = (decoded.object, decoded.max_depth, decoded.data_size_limit, decoded.slice)
    if _count_keys(body) != len(given) - given.count(UNSET):
        raise InvalidRequest("a key comes twice")
    name = None if decoded.object is UNSET else decoded.object
    if name is not None:
        _check_name(name, len(name.encode()), limits)
    return _request(
        name,
        0 if decoded.max_depth is UNSET else decoded.max_depth,
        INT32_MAX if decoded.data_size_limit is UNSET else decoded.data_size_limit,
        None if decoded.slice is UNSET else parse_arrays(memoryview(decoded.slice), limits),
    )


def _count_keys(body: bytes | bytearray) -> int:
    """Number of entries that a msgpack map announces; the decoder itself says nothing of repeated keys."""
    size = _LONG_MAPS.get(body[0], 0)
    return int.from_bytes(body[1 : 1 + size], "big") if size else body[0] & 0x0F


def _request(name: str | None, depth: int, limit: int, slices: Slices | None) -> Request:
    if slices is not None and name is None:
        raise InvalidRequest("a slice without an object")
    return Request(name, depth, limit, slices)


def _check_name(name: str, length: int, limits: Limits) -> None:
    if length > limits.path_length:
        raise TooLarge(f"the name of an object may have {limits.path_length} characters, this one has {length}")
    if "\0" in name:
        raise InvalidRequest("the name of an object holds a NUL character")


def _integer(key: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not _INTEGER.fullmatch(text) or not 0 <= int(text) <= INT32_MAX:
        raise InvalidRequest(f"{key} is a number from 0 to {INT32_MAX}, not {text[:40]!r}")
    return int(text)


# -- documents --


def encode(document: Any) -> bytes:
    """Encode a document without holes."""
    return _encode(document)


def make_holes(names: Iterable[str]) -> dict[str, Raw]:
    """Make something to stand for the data of each named dataset until the document is cut at these places.

    Nobody can write into a file what cannot be told from a hole: they are random.
    """
    return {name: Raw(secrets.token_bytes(16)) for name in names}


def cut(encoded: bytes, holes: Iterable[Raw]) -> list[Buffer]:
    """Cut an encoded document at its holes, given in the order in which they come in it: one piece more than holes."""
    pieces: list[Buffer] = []
    view = memoryview(encoded)
    at = 0
    for hole in holes:
        token = bytes(hole)
        found = encoded.index(token, at)
        pieces.append(view[at:found])
        at = found + len(token)
    pieces.append(view[at:])
    return pieces


def encode_error(error: NDStreamError) -> bytes:
    """Encode the answer to a request that failed."""
    return _encode({"error": str(error)})


def begin_elements(shape: tuple[int, ...], count: int, *, extended: bool) -> bytes:
    """Encode the beginning of an array of variable length, up to its `count` elements.

    Raises
    ------
    TooLarge
        There are more than a msgpack array can count.
    """
    if count >> 32:
        raise TooLarge(f"{count} elements of variable length are too many for one answer")
    head = b"\x84" if extended else b"\x83"
    return b"".join((head, b"\xa4vlen\xc3\xa5shape", _encode(shape), b"\xa4data", array_header(count)))


def encode_elements(elements: list[Any]) -> bytes:
    """Encode some of the elements, as they stand in the middle of the array."""
    return _encode(elements)[len(array_header(len(elements))) :]


def end_elements(*, extended: bool) -> bytes:
    """Encode what comes behind the elements: that they are as in `ndstream.core.elements`, or nothing."""
    return b"\xa8elements\xc3" if extended else b""
