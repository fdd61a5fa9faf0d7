"""Frames with their length in front, taken out of a stream of bytes.

A frame is a length, 4 bytes big-endian, and that many bytes of payload. Small frames are cut out of a buffer that is
used again and again; a long one is received straight into memory of its own, which grows with what arrives and is
never as long as the peer only says that it will be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ndstream.core.limits import KiB, MiB

Buffer: TypeAlias = bytes | bytearray | memoryview

HEAD = 4
LONGEST = (1 << 8 * HEAD) - 1
"""Bytes of the longest payload that a length can tell."""
_SCRATCH = 64 * KiB
_STEP = 1 * MiB


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a stream cannot be read on: the next frame has this length, which is none, or too long."""

    kind: Literal["empty", "long"]
    length: int


class Frames:
    """Takes frames out of a stream of bytes, as `asyncio.BufferedProtocol` receives it.

    Parameters
    ----------
    most : int, bytes
        Longest payload that is accepted; may be changed at any time, and counts from the next frame on.

    Attributes
    ----------
    fault : Fault or None
        What made an end to it; whatever still comes is thrown away.
    total : int
        Bytes that were received so far.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.fault: Fault | None = None
        self.total = 0
        self._scratch = bytearray(_SCRATCH)
        self._view = memoryview(self._scratch)
        self._have = 0
        self._body: bytearray | None = None
        self._filled = 0
        self._length = 0

    @property
    def held(self) -> int:
        """Bytes of memory that a frame takes which has not come completely; 0 between frames and for small ones."""
        return 0 if self._body is None else len(self._body)

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._body is not None or self._have > 0

    def buffer(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._body is None:
            return self._view[self._have :]
        if self._filled == len(self._body):
            self._body += bytes(min(_STEP, self._length - self._filled))
        return memoryview(self._body)[self._filled :]

    def received(self, count: int) -> list[Buffer]:
        """Note that `count` bytes are in the buffer; returns the payloads that are complete now.

        Small ones are bytes, long ones views of memory that is theirs alone.
        """
        self.total += count
        if self._body is not None:
            self._filled += count
            if self._filled < self._length:
                return []
            whole = memoryview(self._body)
            self._body = None
            return [whole]
        if self.fault is not None:
            return []
        self._have += count
        return self._cut()

    def _cut(self) -> list[Buffer]:
        """Take frames out of the scratch buffer; what is left of one that is longer begins a body of its own."""
        found: list[Buffer] = []
        at, have, scratch = 0, self._have, self._scratch
        while have - at >= HEAD and self.fault is None:
            length = int.from_bytes(scratch[at : at + HEAD], "big")
            if not 0 < length <= self.most:
                self.fault = Fault("long" if length else "empty", length)
                at = have
                break
            end = at + HEAD + length
            if end > have:
                if HEAD + length > _SCRATCH:
                    self._begin(at + HEAD, length)
                    return found
                break
            found.append(bytes(self._view[at + HEAD : end]))
            at = end
        if at:
            scratch[: have - at] = scratch[at:have]
        self._have = have - at
        return found

    def _begin(self, start: int, length: int) -> None:
        there = self._have - start
        body = bytearray(min(length, max(_STEP, there)))
        body[:there] = self._view[start : self._have]
        self._body, self._filled, self._length = body, there, length
        self._have = 0


def frame_head(length: int) -> bytes:
    """What stands before a payload of `length` bytes.

    Raises
    ------
    OverflowError
        It is longer than a frame can be, or has no length.
    """
    if length < 1:
        raise OverflowError("a frame is not empty")
    return length.to_bytes(HEAD, "big")
