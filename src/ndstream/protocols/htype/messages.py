"""Everything that travels in the htype family: the names of the messages, and the values that are not plain dicts.

What the original tools make of a message is a dict with the key ``header``, and so is it here, key by key (SPEC.md,
"What a message becomes"); only bsread's messages are objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import field

from ndstream.core.packets import Buffer
from ndstream.errors import BadHeader

RAW = "raw-1.0"
DHEADER = "dheader-1.0"
DIMAGE = "dimage-1.0"
DSERIES_END = "dseries_end-1.0"
BSREAD = "bsr_m-1.1"


class Value(msgspec.Struct, eq=False):
    """Value of one channel of bsread.

    Attributes
    ----------
    value : scalar of numpy, array, str, or None
        None when it is missing or cannot be decoded; an `Image` when it is asked to stay compressed.
    timestamp, timestamp_offset : int or None, s and ns
    """

    value: Any = None
    timestamp: int | None = None
    timestamp_offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """What a data header of bsread says about one channel; see SPEC.md, "bsread".

    Attributes
    ----------
    shape : tuple of int
        Slowest axis first, while it is the other way round on the wire.
    problem : str
        Why its values cannot be decoded; empty when they can.
    """

    name: str
    type: str = "float64"
    shape: tuple[int, ...] = (1,)
    encoding: str = "little"
    compression: str = "none"
    modulo: int = 1
    offset: int = 0
    problem: str = ""


class BsreadMessage(msgspec.Struct, kw_only=True, eq=False):
    """Message of bsread: values of many channels that belong to one pulse.

    The first six are what the original has. To send one made anew, leave out `hash`, `frames` and, of what the values
    do not say themselves, `channels`.

    Attributes
    ----------
    data : dict of str to Value
        By the name of the channel.
    pulse_id : int
    global_timestamp, global_timestamp_offset : int, s and ns
    hash : str or None
        MD5 of the data header, in hexadecimal.
    format_changed : bool
        Whether the data header is another than that of the message before.
    header : dict
        Part 0.
    channels : sequence of Channel
        In the order on the wire.
    frames : sequence of buffers
        The message as it came. While it has them these are what is sent, whatever became of the rest.
    """

    data: dict[str, Value]
    pulse_id: int
    global_timestamp: int
    global_timestamp_offset: int
    hash: str | None = None
    format_changed: bool = False
    header: dict[str, Any] = field(default_factory=lambda: {"htype": BSREAD})
    channels: Sequence[Channel] = ()
    frames: Sequence[Buffer] = ()


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
