"""Blocks: a small header in msgpack and then raw bytes, so that bulk data is neither copied nor limited in size.

The layout, which every ``application/x-ndstream…`` body is made of::

    block  = magic (4 bytes, 89 4E 44 42), length of the header (4 bytes, little-endian), header (msgpack), bytes
    frames = { length (4 bytes, little-endian, not 0), msgpack }, 0 (4 bytes)

How many bytes follow, or that frames do, is for the header to say. Blocks follow one another without a gap.
"""

from __future__ import annotations

import struct

from ndstream.errors import ProtocolError, TooLarge
from ndstream.wire.flow import Flow, read

MAGIC = b"\x89NDB"
HEAD = struct.Struct("<4sI")
_LENGTH = struct.Struct("<I")
END = _LENGTH.pack(0)
"""What stands behind the last frame."""
LONGEST_FRAME = (1 << 32) - 1


def begin_block(header: bytes) -> bytes:
    """First bytes of a block: all that comes before its raw bytes."""
    return HEAD.pack(MAGIC, len(header)) + header


def header_length(head: bytes, most: int) -> int:
    """Length of the header of a block that begins with `head`, of ``HEAD.size`` bytes.

    Raises
    ------
    ProtocolError
        These are not the first bytes of a block.
    TooLarge
        The header has more than `most` bytes.
    """
    magic, length = HEAD.unpack(head)
    if magic != MAGIC:
        raise ProtocolError(f"not a block: it begins with {magic.hex(' ')}")
    if length > most:
        raise TooLarge(f"the header of a block has {length} bytes, {most} are accepted (limit: document)")
    return int(length)


def read_header(most: int) -> Flow[bytes]:
    """Read the head of a block; its raw bytes are what comes next.

    Raises
    ------
    ProtocolError, TooLarge
        As `header_length`.
    """
    length = header_length((yield from read(HEAD.size)), most)
    return (yield from read(length)) if length else b""


def frame(payload: bytes) -> bytes:
    """Put the length in front of a frame.

    Raises
    ------
    TooLarge
        It is longer than `LONGEST_FRAME`.
    """
    if len(payload) > LONGEST_FRAME:
        raise TooLarge(f"{len(payload)} bytes are too many for one frame")
    return _LENGTH.pack(len(payload)) + payload


def read_frame(most: int) -> Flow[bytes | None]:
    """Read one frame; None behind the last one.

    Raises
    ------
    TooLarge
        It has more than `most` bytes.
    """
    (length,) = _LENGTH.unpack((yield from read(_LENGTH.size)))
    if length > most:
        raise TooLarge(f"a frame has {length} bytes, {most} are accepted (limit: document)")
    return (yield from read(length)) if length else None
