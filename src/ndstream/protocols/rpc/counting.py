"""How many values a message has, told before memory is taken for them.

An empty map is one byte on the wire and a hundred in memory. Lengths stand before what is in them, so most of a message
that has too many values is never looked at.
"""

from __future__ import annotations

import re

from ndstream.core.limits import KiB
from ndstream.wire.framing import Buffer

_SINGLE = re.compile(rb"[\x00-\x7f\xa0\xc0-\xc3\xe0-\xff]*+")
"""Values of one byte."""
_STRETCH = 256 * KiB
"""Bytes of JSON that are looked at in one go: more would keep every other thread waiting."""
_JSON_MARKS = (b",", b":", b"[", b"{")

_FIXED = {
    0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
} | {0xA0 + length: 1 + length for length in range(1, 32)}  # fmt: skip
"""Bytes of a value whose first byte tells how many."""
_COUNTED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)} | {
    0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)
}  # fmt: skip
"""Bytes of the length of a value, and those behind it that the length does not count."""
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Bytes of the number of items, and values that each of them is."""


def msgpack_exceeds(payload: Buffer, most: int) -> bool:
    """Whether there are more than `most` values in messagepack, each key of a map being one; what is damaged may."""
    end = len(payload)
    if end <= most:
        return False
    count, at = 1, 0
    while at < end and count <= most:
        first = payload[at]
        if first in _FIXED:
            at += _FIXED[first]
        elif 0x80 <= first <= 0x9F:
            count += (first & 0x0F) * (2 if first < 0x90 else 1)
            at += 1
        elif first in _COUNTED:
            width, more = _COUNTED[first]
            at += 1 + width + more + int.from_bytes(payload[at + 1 : at + 1 + width], "big")
        elif first in _CONTAINERS:
            width, each = _CONTAINERS[first]
            count += each * int.from_bytes(payload[at + 1 : at + 1 + width], "big")
            at += 1 + width
        else:
            found = _SINGLE.match(payload, at)
            assert found is not None
            at = found.end()
    return count > most


def json_exceeds(text: bytes, most: int) -> bool:
    """Whether there are more than about `most` values in JSON, each key of an object being one."""
    if len(text) <= most or sum(map(text.count, _JSON_MARKS)) <= most:
        return False
    count = at = inside = 0
    while at < len(text) and count <= most:
        stretch = text[at : at + _STRETCH]
        if (len(stretch) - len(stretch.rstrip(b"\\"))) % 2:
            stretch = text[at : at + _STRETCH + 1]
        at += len(stretch)
        pieces = stretch.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        bare = b"".join(pieces[inside::2])
        count += sum(map(bare.count, _JSON_MARKS))
        inside ^= (len(pieces) - 1) % 2
    return count > most
