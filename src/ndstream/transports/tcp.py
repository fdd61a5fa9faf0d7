"""Frames over TCP with asyncio: a thin shell that knows bytes, used by servers and clients.

What arrives is received where `ndstream.wire.framing.Frames` wants it. Both directions have back-pressure: `drained`
waits until the peer takes what was sent, `hold` stops reading until `release`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from fcntl import ioctl
from termios import TIOCOUTQ

from ndstream.core.limits import KiB
from ndstream.wire.framing import HEAD, Buffer, Frames, frame_head

_JOINED = 64 * KiB
_UNSENT = 1024 * KiB
_DISCARD = 64 * KiB


class Link(asyncio.BufferedProtocol):
    """One connection.

    Parameters
    ----------
    most : int, bytes
        Longest payload that is accepted.
    on_frames : callable
        Called with payloads that have come, maybe none, whenever something came; looks at ``frames.fault`` itself.
    on_end : callable
        Called once when the connection is gone, with what ended it (None: the peer, in good order).
    on_begin : callable, optional
        Called when the connection is there.
    on_eof : callable, optional
        Called when the peer has said that it sends no more; whether it is still to be sent something. Then the
        connection stays until `close`. Never called with TLS, where an end is the end of both directions.

    Attributes
    ----------
    frames : Frames
    unsent : bool
        Whether the peer takes less than is sent.
    """

    def __init__(
        self,
        most: int,
        on_frames: Callable[[list[Buffer]], None],
        on_end: Callable[[Exception | None], None],
        on_begin: Callable[[], None] | None = None,
        on_eof: Callable[[], bool] | None = None,
    ) -> None:
        self.frames = Frames(most)
        self.unsent = False
        self.closed = False
        self._on_frames = on_frames
        self._on_end = on_end
        self._on_begin = on_begin
        self._on_eof = on_eof
        self._transport: asyncio.Transport | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._holds = 0
        self._discarding: bytearray | None = None

    # -- asyncio's side --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclasses
        found = transport.get_extra_info("socket")
        if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(high=_UNSENT)
        if self._on_begin is not None:
            self._on_begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the place where the next bytes belong."""
        return memoryview(self._discarding) if self._discarding is not None else self.frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Hand over the frames that are complete."""
        if self._discarding is None:
            self._on_frames(self.frames.received(nbytes))

    def eof_received(self) -> bool:
        """Close, unless the peer waits for something: it may have said no more than that it asks no more."""
        if self._on_eof is None or self._discarding is not None:
            return False
        return self.transport.get_extra_info("sslcontext") is None and self._on_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who is waiting."""
        self.closed = True
        self.unsent = False
        self._wake()
        self._on_end(exc)

    def pause_writing(self) -> None:
        """Note that the peer does not take what is sent."""
        self.unsent = True

    def resume_writing(self) -> None:
        """Note that it does."""
        self.unsent = False
        self._wake()

    # -- the other side --

    @property
    def transport(self) -> asyncio.Transport:
        """What the bytes go through."""
        assert self._transport is not None
        return self._transport

    @property
    def address(self) -> str:
        """Address of the peer; empty when it has none."""
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) and peer else ""

    def send(self, payload: Sequence[Buffer]) -> None:
        """Send one frame, its payload in pieces; head and payload leave in one write."""
        if self.closed:
            return
        length = sum([len(piece) for piece in payload])
        head = frame_head(length)
        if length + HEAD <= _JOINED:
            self.transport.write(b"".join((head, *payload)))
        else:
            self.transport.writelines([head, *payload])

    async def drained(self) -> None:
        """Wait until there is room for more to send, or the connection is gone."""
        while self.unsent and not self.closed:
            await self._news()

    def when_drained(self, call: Callable[[], object]) -> None:
        """Call when there is room for more to send, or the connection is gone: now, or later in the event loop."""
        if self.unsent and not self.closed:
            self._news().add_done_callback(lambda _: call())
        else:
            call()

    async def gone(self) -> None:
        """Wait until the connection is closed."""
        while not self.closed:
            await self._news()

    def hold(self) -> None:
        """Stop reading; as often as it was held it must be released."""
        self._holds += 1
        if self._holds == 1 and not self.closed and not self.transport.is_closing():
            self.transport.pause_reading()

    def release(self) -> None:
        """Read on, when nobody else holds it."""
        self._holds -= 1
        if not self._holds and not self.closed and not self.transport.is_closing():
            self.transport.resume_reading()

    def finish(self) -> None:
        """Send what is left, then say that nothing follows; what still comes is thrown away until `close`."""
        if self._discarding is None:
            self._discarding = bytearray(_DISCARD)
            if not self.closed and self.transport.can_write_eof():
                self.transport.write_eof()

    def close(self) -> None:
        """Send what is left, then close."""
        if not self.closed:
            self.transport.close()

    def abort(self) -> None:
        """Close at once; what is not sent yet is lost."""
        if not self.closed:
            self.transport.abort()

    @property
    def untaken(self) -> int:
        """Bytes that the peer did not acknowledge; 0 when none waits in this process."""
        return 0 if self.closed else untaken(self.transport)

    def _news(self) -> asyncio.Future[None]:
        """Done when the peer takes more, or the connection is gone."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def untaken(transport: asyncio.WriteTransport) -> int:
    """Bytes that the peer of a transport did not acknowledge; 0 when none waits in this process."""
    waiting = transport.get_write_buffer_size()
    if not waiting:
        return 0
    # The kernel holds megabytes of its own, and takes more from us in steps that a slow peer needs minutes for.
    try:
        queued = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
    except OSError:
        # The connection was lost in this very moment.
        return waiting
    return waiting + int.from_bytes(queued, sys.byteorder)
