"""Functions of users that decode or encode messages, in place of a codec or for an htype that has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from ndstream.core.limits import Limits
from ndstream.core.packets import Buffer
from ndstream.errors import InvalidRequest
from ndstream.streams.messages import Statistics
from ndstream.wire.multipart import decode_header, encode_header


class ReceiveHandler:
    """A message that is being decoded by a function: its parts, one after the other.

    Attributes
    ----------
    statistics : Statistics
        What the stream had received before this message.
    block : bool
        As `Stream.receive` was told; all parts are here in any case.
    """

    __slots__ = ("_frames", "_limits", "_next", "block", "statistics")

    def __init__(self, frames: Sequence[Buffer], limits: Limits, statistics: Statistics, block: bool) -> None:
        self._frames = frames
        self._limits = limits
        self._next = 0
        self.statistics = statistics
        self.block = block

    def header(self) -> dict[str, Any]:
        """Part 0, decoded; whatever was taken before.

        Raises
        ------
        BadHeader
        """
        return decode_header(self._frames[0], self._limits)

    def next(self, as_json: bool = False) -> Any:
        """Take the next part, the header first.

        Parameters
        ----------
        as_json : bool
            Decode it.

        Returns
        -------
        bytes or memoryview, dict when `as_json`
            None past the end. A view is one of the memory of ZeroMQ, and may be kept.

        Raises
        ------
        BadHeader
            It is no JSON object.
        """
        if self._next >= len(self._frames):
            return None
        part = self._frames[self._next]
        self._next += 1
        return decode_header(part, self._limits) if as_json else part

    def has_more(self) -> bool:
        """Whether parts are left."""
        return self._next < len(self._frames)


Receive: TypeAlias = Callable[[ReceiveHandler], Any]
"""Makes the data of a message."""


class Send(Protocol):
    """Makes the parts of a message: hands each to `send`, as to `Stream.send`, and returns nothing.

    All parts that it hands over make one message, which is sent when it has returned.
    """

    def __call__(self, data: Any, *, send: Callable[..., None], block: bool) -> object:
        """Encode `data`."""
        ...


receive_handlers: dict[str, Receive] = {}
"""Functions that decode, by htype, for all streams of this process; those of a stream itself go before."""

send_handlers: dict[str, Send] = {}
"""Functions that encode, by htype, for all streams of this process."""


class Parts:
    """Collects the parts of one message, as a `Send` hands them over."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []

    def __call__(self, message: Any, send_more: bool = False, block: bool = True, as_json: bool = False) -> None:
        """Take one part."""
        self.parts.append(part_of(message, as_json))


def part_of(message: Any, as_json: bool = False) -> Buffer:
    """Make one part of what a user sends.

    Parameters
    ----------
    message : bytes-like or str, anything that JSON knows when `as_json`
        Text goes as UTF-8, an array as its bytes in C order.

    Raises
    ------
    BadHeader
        It has no form in JSON.
    InvalidRequest
        It is no bytes.
    """
    if as_json:
        return encode_header(message)
    if isinstance(message, bytes | bytearray):
        return message
    if isinstance(message, str):
        return message.encode()
    try:
        view = memoryview(message)
        return view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"a part is bytes or text, not {type(message).__name__}") from error


def raw(receiver: ReceiveHandler) -> dict[str, Any]:
    """Decode a message of which only the header is looked into; a header that is no JSON stays bytes."""
    first = receiver.next()
    try:
        header: Any = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        header = bytes(first)
    parts = []
    while receiver.has_more():
        parts.append(receiver.next())
    return {"header": header, "data": parts}
