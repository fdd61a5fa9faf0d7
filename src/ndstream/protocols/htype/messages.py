"""Everything that travels in the htype family: the names of the messages, and the values that are not plain dicts.

What the original tools make of a message is a dict with the key ``header``, and so is it here, key by key (SPEC.md,
"What a message becomes"); only bsread's messages are objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ndstream.core.packets import Buffer
from ndstream.errors import BadHeader

ARRAY = "array-1.0"
RAW = "raw-1.0"
CHUNK = "chunk-1.0"
PILATUS = "pilatus-1.0"
DHEADER = "dheader-1.0"
DIMAGE = "dimage-1.0"
DSERIES_END = "dseries_end-1.0"


def whole_number(value: Any) -> int | None:
    """Make a counter of what a header holds; None when it is no integer."""
    return value if type(value) is int else None


def part_of(data: Any, key: str, kind: type[Any] | tuple[type[Any], ...] = Mapping) -> Any:
    """Value of a key of the data of a message.

    Raises
    ------
    BadHeader
        It is missing or not of that kind.
    """
    value = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(value, kind):
        raise BadHeader(f"the data of the message has no {key!r} of the right type")
    return value


def segments_of(data: Any) -> Sequence[Any]:
    """List under ``data`` of the data of a message.

    Raises
    ------
    BadHeader
        There is none.
    """
    segments: list[Any] | tuple[Any, ...] = part_of(data, "data", (list, tuple))
    return segments


def as_bytes(segment: Any) -> Buffer:
    """Make a part of what is bytes already; None is an empty one.

    Raises
    ------
    BadHeader
        It is neither.
    """
    if segment is None:
        return b""
    if isinstance(segment, memoryview):
        if not segment.contiguous:
            return segment.tobytes()
        return segment if segment.format == "B" and segment.ndim == 1 else memoryview(bytes(segment))
    if isinstance(segment, bytes | bytearray):
        return segment
    raise BadHeader(f"a segment is {type(segment).__name__}; it can be an array, bytes or None")
