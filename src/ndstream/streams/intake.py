"""From the parts of a message to what the caller gets: the rules of receiving, for all programs alike."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from ndstream.core.gaps import Irregularity
from ndstream.core.packets import Buffer, Codec, Decoding, Packet
from ndstream.errors import DecodeError, InvalidRequest, MessageError
from ndstream.streams.handlers import Receive, ReceiveHandler, receive_handlers
from ndstream.streams.messages import Message, Statistics, Totals
from ndstream.wire.multipart import Codecs, decode_header

OnError: TypeAlias = Literal["raise", "skip", "none"] | Callable[[MessageError], object]
"""What becomes of a message that cannot be decoded.

``"raise"``: `receive` raises. ``"skip"``: it waits for the next. ``"none"``: it returns None, as the original does. A
callable is told of the error, and then the message is skipped. It is counted in any case, and the stream goes on.
"""

OnGap: TypeAlias = Callable[[Irregularity], object]
"""Told of each message whose number is not the one that was to come; the message itself is received all the same."""

SKIPPED: Final = object()


class Intake:
    """Makes messages of parts, counting.

    Parameters
    ----------
    totals : Totals
    decoding : Decoding
    on_error : OnError
    on_gap : OnGap, optional

    Attributes
    ----------
    handlers : dict of str to callable
        Functions that decode, by htype; they go before those of the process, and these before codecs.

    Raises
    ------
    InvalidRequest
        There is no such `on_error`.
    """

    __slots__ = ("_decode", "_decoding", "_follow", "_on_error", "_on_gap", "_see", "_totals", "handlers")

    def __init__(
        self, totals: Totals, decoding: Decoding, on_error: OnError = "raise", on_gap: OnGap | None = None
    ) -> None:
        if not callable(on_error) and on_error not in ("raise", "skip", "none"):
            raise InvalidRequest(f"on_error is {on_error!r}; it can be 'raise', 'skip', 'none' or a callable")
        self.handlers: MutableMapping[str, Receive] = {}
        self._totals = totals
        self._decoding = decoding
        self._on_error = on_error
        self._on_gap = on_gap
        self._see = totals.sequence.see
        self._follow = totals.sequence.follow
        self._decode = Codecs(decoding).decode

    def accept(self, frames: list[Buffer], handler: Receive | None = None, block: bool = True) -> Any:
        """Make a message.

        Parameters
        ----------
        frames : list of buffers
            Its parts, at least one.
        handler : callable, optional
            Decodes it, whatever its htype.

        Returns
        -------
        Message or None
            `SKIPPED` when it cannot be decoded and the next one is to be waited for; None when the caller wants that.

        Raises
        ------
        MessageError
            It cannot be decoded, and the caller wants to know.
        """
        try:
            if handler is None and not self.handlers and not receive_handlers:
                packet = self._decode(frames)
                data = packet.data
            else:
                packet = self._handled(frames, handler, block)
                data = packet.data
                if not data and self._on_error == "none":
                    return None
        except MessageError as error:
            return self._failed(error, frames)
        nbytes = 0
        for part in frames:
            nbytes += len(part)
        codec = packet.codec
        if codec.counter is None:
            irregularity = self._see(codec.position(data))
        else:
            number = data["header"].get(codec.counter)
            irregularity = self._follow(codec.counter, number) if type(number) is int else None
        if irregularity is not None and self._on_gap is not None:
            self._on_gap(irregularity)
        totals = self._totals
        totals.total_bytes_received = total = totals.total_bytes_received + nbytes
        totals.messages_received = count = totals.messages_received + 1
        return Message(Statistics(nbytes, total, count), data, packet)

    def _handled(self, frames: list[Buffer], handler: Receive | None, block: bool) -> Packet:
        htype = ""
        if handler is None:
            htype = _htype(frames, self._decoding)
            handler = self.handlers.get(htype) or receive_handlers.get(htype)
            if handler is None:
                return self._decode(frames)
        totals = self._totals
        before = Statistics(0, totals.total_bytes_received, totals.messages_received)
        receiver = ReceiveHandler(frames, self._decoding.limits, before, block)
        try:
            data = handler(receiver)
        except MessageError as error:
            raise _complete(error, htype, frames) from error.__cause__
        except Exception as error:
            raise _complete(DecodeError(f"the handler failed: {error!r}"), htype, frames) from error
        return Packet(data, frames, _HANDLED)

    def _failed(self, error: MessageError, frames: Sequence[Buffer]) -> Any:
        self._totals.failed(error.code, sum(map(len, frames)))
        if self._on_error == "raise":
            raise error
        if self._on_error == "none":
            return None
        if callable(self._on_error):
            self._on_error(error)
        return SKIPPED


class _ByHandler(Codec):
    """Stands where a codec would, for messages that a function decoded."""

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> Any:
        raise DecodeError("this message was decoded by a function")

    def encode(self, data: Any) -> list[Buffer]:
        raise DecodeError("this message was decoded by a function")


_HANDLED = _ByHandler()


def _htype(frames: Sequence[Buffer], decoding: Decoding) -> str:
    """What a message says that it is; empty when it does not, which the codecs then explain."""
    try:
        htype = decode_header(frames[0], decoding.limits).get("htype")
    except MessageError:
        return ""
    return htype if isinstance(htype, str) else ""


def _complete(error: MessageError, htype: str, frames: Sequence[Buffer]) -> MessageError:
    error.htype = htype or None
    error.parts = tuple(frames)
    return error
