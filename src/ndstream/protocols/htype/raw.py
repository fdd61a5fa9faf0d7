"""raw-1.0: a header, then parts that nobody looks into. pilatus-1.0, deprecated, has CBF files for parts.

Source: SPEC.md, "raw-1.0".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndstream.core.packets import Buffer, Codec, Decoding, Position
from ndstream.protocols.htype.messages import as_bytes, part_of, segments_of, whole_number
from ndstream.wire.multipart import encode_header


class RawCodec(Codec):
    """Makes ``{"header": dict, "data": [buffer or None]}`` of a message, and back; remembers nothing."""

    counter = "frame"

    def __init__(self, options: Decoding) -> None:
        pass

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> dict[str, Any]:
        """Hand out the parts as they are, and None for an empty one."""
        return {"header": header, "data": [part if len(part) else None for part in frames[1:]]}

    def encode(self, data: Any) -> list[Buffer]:
        """Make the parts; those in ``data`` go as they are.

        Raises
        ------
        BadHeader
            One is no bytes.
        """
        return [encode_header(part_of(data, "header")), *[as_bytes(segment) for segment in segments_of(data)]]

    def position(self, data: Any) -> Position | None:
        """Say the number of the frame, if the header has one."""
        number = whole_number(data["header"].get("frame"))
        return None if number is None else Position(counter="frame", number=number)
