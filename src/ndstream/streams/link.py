"""What the synchronous and the asynchronous stream share: everything but waiting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Final

from ndstream.core.modes import Mode
from ndstream.core.packets import Buffer, Decoding
from ndstream.errors import ConnectionLost, NDStreamError, NotAuthenticated, TimedOut, UnknownHtype
from ndstream.streams.handlers import Parts, Receive, Send, send_handlers
from ndstream.streams.intake import SKIPPED, Intake
from ndstream.streams.messages import Message, Totals
from ndstream.streams.sending import Sending, Sent
from ndstream.streams.settings import Settings, seconds
from ndstream.transports.zmq.channel import BATCH, PATIENCE, Channel
from ndstream.wire.multipart import Codecs

_log = logging.getLogger(__name__)

NOTHING: Final = object()
"""No message is there now."""


@dataclass(slots=True)
class Deadline:
    """A point of time, if there is one."""

    timeout: float | None
    begin: float = field(default_factory=time.monotonic)

    def left(self) -> float | None:
        """Seconds until then, at least 0; None is without end."""
        return None if self.timeout is None else max(0.0, self.begin + self.timeout - time.monotonic())


class Link:
    """A stream that is connected; nothing here waits, but `close`.

    Raises
    ------
    EndpointFailed
    InvalidRequest
    """

    def __init__(self, settings: Settings, handlers: MutableMapping[str, Receive], totals: Totals) -> None:
        self.settings = settings
        self.sends = settings.mode.sends
        self.totals = totals
        self.lock = RLock()
        timeout = settings.receive_timeout
        #: Whether receiving may wait for a moment before it looks at the time.
        self.patient = timeout is None or timeout > PATIENCE
        self.closing = False
        decoding = Decoding(limits=settings.limits, compressed=settings.compressed)
        self.intake = Intake(totals, decoding, settings.on_error, settings.on_gap)
        self.intake.handlers = handlers
        self._encode = Codecs(decoding).encode
        self.channel = Channel(settings.options())
        self._receive, self._accept = self.channel.receive, self.intake.accept
        self.sending = Sending(
            self.channel,
            totals,
            settings.policy,
            copies=settings.copy,
            spreads=settings.mode is Mode.PUB,
            most_messages=settings.queue_size,
            most_bytes=settings.limits.stream_queue,
        )

    # -- receiving --

    def take(self, handler: Receive | None = None, block: bool = True, patient: bool = False) -> Any:
        """Take the next message; `NOTHING` when there is none now, or, if `patient`, for a moment.

        Raises
        ------
        MessageError, ConnectionLost
        """
        while (frames := self._receive(patient)) is not None:
            message = self._accept(frames, handler, block)
            if message is not SKIPPED:
                return message
            if self.closing:
                break
        return NOTHING

    def wait(self, handler: Receive | None, deadline: Deadline) -> Any:
        """Take the next message, waiting for it; `NOTHING` when the time is over or the stream is being closed.

        Raises
        ------
        MessageError, ConnectionLost, NotAuthenticated
        """
        # What waits in the receiving call of ZeroMQ itself gets each message sooner than what polls first.
        while (left := deadline.left()) is None or left > PATIENCE:
            message = self.take(handler, patient=True)
            if message is not NOTHING or self.closing:
                return message
            self.channel.check()
        while self.channel.wait(deadline.left()):
            message = self.take(handler)
            if message is not NOTHING:
                return message
        return NOTHING

    # -- sending --

    def offer(self, parts: list[Buffer], block: bool) -> Sent | None:
        """Send, or do what the policy says; None when it is to be offered again."""
        if self.settings.curve is not None and not self.channel.watch.handshakes.succeeded:
            self.channel.check()  # or a full queue would be lost before anybody learns that the key is wrong
        return self.sending.offer(parts, block)

    def too_slow(self) -> NDStreamError:
        """Error of a message for which there was no room in time; counts it."""
        self.totals.dropped("full")
        if self.closing:
            return not_connected()
        return TimedOut(f"{self.channel.address}: no peer had room for a message in time; it was not sent")

    def encode(self, message: Any, handler: Send | None, block: bool) -> list[Buffer]:
        """Make the parts of a message that is forwarded.

        Raises
        ------
        MessageError
        """
        if isinstance(message, Message):
            return list(message.frames)
        if handler is None:
            handler = send_handlers.get(_htype(message))
        if handler is None:
            return self._encode(message)
        collected = Parts()
        handler(message, send=collected, block=block)
        if not collected.parts:
            raise UnknownHtype("the handler made no part of the message")
        return collected.parts

    # -- the end --

    def close(self, linger: int, wait: Callable[[float | None], bool]) -> None:
        """Hand over what was accepted, count what was not, and close.

        Parameters
        ----------
        linger : int, milliseconds
        wait : callable
            Waits until the channel takes something, for some seconds at most; false when it does not.
        """
        if self.sends:
            self.sending.forget()
            deadline = Deadline(seconds(linger))
            self.channel.awake()
            try:
                while not self.sending.pump() and wait(deadline.left()):
                    pass
            except (NotAuthenticated, ConnectionLost) as error:
                _log.warning("%s", error)
            self.totals.undelivered += self.sending.give_up()
            unsettled = self.channel.settle(deadline.left())
            left = deadline.left()
            peers = max(1, self.channel.watch.peers.most)
            refused = self.channel.watch.handshakes.failure is not None and not self.settings.bind
            handed_over = self.channel.close(-1 if left is None else int(left * 1000))
            # Of each peer, one may be handed over whose memory is not let go of before the next one is.
            unknown = min(unsettled, peers)
            self.totals.undelivered += unsettled - unknown
            if refused or not handed_over:
                unknown = max(unknown, min(self._most_queued(peers), self.sending.copied))
            self.totals.uncertain += unknown
        else:
            self.channel.close(0)

    def _most_queued(self, peers: int) -> int:
        """Messages that libzmq may hold, at most."""
        size = self.channel.options.queue_size
        if size == 0:
            return self.totals.messages_sent
        return peers * (size + 1 + BATCH // max(1, self.sending.shortest))


def _htype(data: Any) -> str:
    header = data.get("header") if isinstance(data, Mapping) else getattr(data, "header", None)
    htype = header.get("htype") if isinstance(header, Mapping) else None
    if htype is None:
        raise UnknownHtype("the data has no header with the key 'htype'")
    return htype if isinstance(htype, str) else ""


def not_connected() -> ConnectionLost:
    """Error of a stream that was not connected, or is no more."""
    return ConnectionLost("the stream is not connected")
