"""One HTTP connection, and how long its peer may take.

uvicorn bounds only the time between two requests. `Connection` adds what a peer can do to hold memory and sockets
for ever: send its request drop by drop, send a head without end, stop reading the answer. Nothing of this costs
a request anything: `check` looks at every connection now and then.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, ClassVar, Self

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvloop.loop import TCPTransport  # type: ignore[attr-defined] # its stubs do not know it

from ndstream.core.limits import DEFAULT_LIMITS, SLOWEST, Limits
from ndstream.core.ports import Scope
from ndstream.transports.tcp import untaken

_KEY = "ndstream.connection"
_FRAMING = 16
"""Bytes on the wire for one byte of a body: more are chunk extensions or trailers without end."""

_SHORT = 1024
"""Bytes that wait for what follows: heads, as a rule."""

_UNTAKEN = 1 << 19
"""Bytes of a body that the application has not taken, from which on no more are read."""

_LONG = 1 << 17
"""Bytes from which on copying them into the kernel keeps other threads waiting for the GIL too long."""

log = logging.getLogger("ndstream.server")


def connection_of(scope: Scope) -> Connection | None:
    """Connection that a request came over; None under a server that is not ours."""
    found = scope.get("state", {}).get(_KEY)
    return found if isinstance(found, Connection) else None


class _Answers:
    """Where answers are written to: what is short, such as a head, leaves with what follows in the same step.

    uvicorn writes head and body one after the other, and the event loop sends at once what is written: two system
    calls here, and two times to wake up for the peer. And it does so with the GIL held, while the threads that decode
    what comes next need it.

    Parameters
    ----------
    transport
    loop
    descriptor : int or None
        Of the socket, when what is written goes there as it is.
    """

    __slots__ = ("_descriptor", "_kept", "_loop", "_transport")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, descriptor: int | None = None
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._descriptor = descriptor
        self._kept = b""

    def write(self, data: bytes | memoryview) -> None:
        """Send behind what was kept, or keep it until this step of the event loop has ended."""
        kept = self._kept
        if len(data) >= _LONG and self._descriptor is not None:
            self._flush()
            rest = self._copied(memoryview(data), self._descriptor)
            if rest:
                self._transport.write(rest)
        elif kept:
            self._kept = b""
            self._transport.writelines((kept, data))
        elif isinstance(data, bytes) and 0 < len(data) <= _SHORT:
            self._kept = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        kept, self._kept = self._kept, b""
        if kept and not self._transport.is_closing():
            self._transport.write(kept)

    def _copied(self, data: memoryview, descriptor: int) -> memoryview:
        """Give the kernel what it takes at once, without the GIL; what is left of it."""
        if self._transport.get_write_buffer_size() or self._transport.is_closing():
            return data
        try:
            return data[os.write(descriptor, data) :]
        except OSError:
            return data  # it takes nothing now, or the connection is broken: the transport finds out

    def close(self) -> None:
        """Send what was kept, and close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()


class _Arrived:
    """What has come of a body since the application took some: handed on as it came, where uvicorn copies it twice."""

    __slots__ = ("_length", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def __iadd__(self, piece: bytes) -> Self:
        self._pieces.append(piece)
        self._length += len(piece)
        return self

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class Connection(HttpToolsProtocol):
    """HTTP/1.1 connection that is cut when the peer is too slow; `limits` is set by `with_limits`.

    Attributes
    ----------
    lost : bool
        Nobody is at the other end any more.
    when_lost : callable or None
        Called once when that happens; for the one request that is being served.
    """

    limits: ClassVar[Limits] = DEFAULT_LIMITS
    _answers: _Answers
    lost = False
    when_lost: Callable[[], object] | None = None

    _in_head = True
    _raw = 0  # bytes received for the head, or for the body with its framing, that is being read
    _body = 0
    _body_waited = 0.0
    _unsent = 0
    _unsent_since = 0.0
    _checked = 0.0
    _waiting_since: float | None = None

    @classmethod
    def with_limits(cls, limits: Limits) -> type[Connection]:
        """Class of connections that keep `limits`."""
        return type("Connection", (cls,), {"limits": limits})

    @property
    def broken(self) -> bool:
        """Whether nothing more can be sent; known before `lost`, which work that never waits would never see."""
        return self.lost or self.transport.is_closing()

    def abort(self) -> None:
        """Close at once; what is not sent yet is lost, so that the peer cannot take what it has for the whole."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def lends(self) -> bool:
        """Whether what is sent goes to the kernel as it is: not through TLS, nor into a buffer of the event loop."""
        return isinstance(self.transport, TCPTransport)

    async def emptied(self) -> None:
        """Wait until the kernel has all that was sent, or the connection is lost."""
        await self.flow.drain()

    async def gone(self) -> None:
        """Wait until the connection is lost."""
        if not self.lost:
            gone = asyncio.Event()
            self.when_lost = gone.set
            await gone.wait()

    def check(self, now: float) -> None:
        """Cut the connection when its peer is too slow; `now` is that of the event loop, called about every second."""
        elapsed, self._checked = now - (self._checked or now), now
        unsent = untaken(self.transport)
        if unsent != self._unsent or not unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self.limits.send_timeout:
            self._cut("took nothing of its answer", self.limits.send_timeout)
        if self._waiting_since is not None:
            if unsent:
                self._waiting_since = now
            elif now - self._waiting_since > self.limits.idle_timeout:
                self._cut("sent no request", self.limits.idle_timeout)
        if not self._in_head and not self.flow.read_paused:
            self._body_waited += elapsed
            if self._body_waited > self.limits.idle_timeout + self._body / SLOWEST:
                self._cut("sent its request too slowly", self._body_waited)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Take over the transport."""
        super().connection_made(transport)
        descriptor = transport.get_extra_info("socket").fileno() if self.lends else None
        self._answers = _Answers(transport, self.loop, descriptor)
        if self.lends:
            transport.set_write_buffer_limits(0)  # so that `emptied` means it
        self.app_state = {**self.app_state, _KEY: self}
        self._waiting_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who is waiting."""
        self.lost = True
        super().connection_lost(exc)
        self.app_state = {}
        if self.when_lost is not None:
            self.when_lost()

    def data_received(self, data: bytes) -> None:
        """Parse, refusing a head without end."""
        # Counted first, so that what a request that ends in `data` leaves for the next one is not held against that.
        self._raw += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
        if self._in_head:
            if self._raw > self.limits.request_head:
                self._refuse_head()
        elif self._raw > _FRAMING * self._body + self.limits.request_head:
            self._cut("sent more framing than data", 0)

    def _feed(self, data: bytes) -> None:
        """Parse, as requests of HTTP/1.1, also those that offer another protocol than WebSocket.

        The parser takes such a one for the end of HTTP, and its body for the other protocol (uvicorn loses both).
        """
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                if not self._declines:
                    raise httptools.HttpParserError("a tunnel is not to be had here") from None
                data = self._declined() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)

    def _declined(self) -> bytes:
        """Spell the head of a request again, without the offer."""
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    @property
    def _declines(self) -> bool:
        offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        return offered and not self._should_upgrade()

    def on_message_begin(self) -> None:
        """Start the time that a head may take."""
        super().on_message_begin()
        self._waiting_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Note that a request is there."""
        if self._declines:
            return
        self._in_head = False
        self._waiting_since = None
        self._raw = self._body = 0
        self._body_waited = 0.0
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._answers  # type: ignore[assignment]  # all that is asked of it there

    def on_body(self, body: bytes) -> None:
        """Count what arrives, and hand it on.

        As uvicorn does, but that it stops reading for each 64 KiB, even while the application waits for more.
        """
        self._body += len(body)
        cycle = self.cycle
        if self.parser.should_upgrade() or cycle.response_complete:
            super().on_body(body)
            return
        if not cycle.body:
            cycle.body = _Arrived()  # type: ignore[assignment]  # all that is asked of it there
        cycle.body += body
        if len(cycle.body) > _UNTAKEN:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Expect the next head."""
        if self._declines:
            return
        self._in_head = True
        self._raw = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the time until the next request."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._waiting_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the peer took something."""
        self._unsent = -1
        super().resume_writing()

    def _refuse_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.send_400_response(f"The request line and headers are longer than {self.limits.request_head} bytes.")
        else:
            self.abort()

    def _cut(self, what: str, seconds: float) -> None:
        if not self.lost:
            log.info("connection of %s cut: it %s (%.0f s)", (self.client or ("?",))[0], what, seconds)
            self.abort()


def check_all(connections: set[Any], now: float) -> None:
    """Look at every connection once."""
    for connection in list(connections):
        connection.check(now)
