"""The asynchronous stream, and `aconnect`: as the synchronous one, for asyncio and uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self, Unpack

from ndstream.core.modes import CONNECT, Mode
from ndstream.core.packets import Buffer
from ndstream.errors import InvalidRequest
from ndstream.streams.base import BaseStream
from ndstream.streams.handlers import Receive, Send, part_of, raw
from ndstream.streams.link import NOTHING, Deadline, Link, not_connected
from ndstream.streams.messages import Message
from ndstream.streams.sending import HELD, Sent
from ndstream.streams.settings import Choices, seconds
from ndstream.transports.zmq.monitor import Monitor
from ndstream.transports.zmq.readiness import Readiness

BATCH = 16
"""Messages that one task takes without letting others run."""


class AsyncStream(BaseStream):
    """Receives or sends messages, in an event loop.

    `ndstream.aconnect` opens one. What its methods do, return and raise is said of those of `ndstream.Stream`. A
    `receive` that is cancelled loses no message: it is taken by the next. A `send` that is cancelled has sent the
    whole message or nothing.

    Notes
    -----
    For tasks of one event loop; several may receive at once, and each message goes to one of them.
    """

    _readiness: Readiness  # of a stream that is connected

    def __init__(self) -> None:
        super().__init__()
        self._at_once = 0

    def connect(
        self, address: str, conn_type: str = CONNECT, mode: int = Mode.PULL, **choices: Unpack[Choices]
    ) -> Self:
        """Open the stream; see `ndstream.connect`. It waits for nothing."""
        if self.connected:
            raise InvalidRequest("the stream is connected already")
        self._open(address, conn_type, mode, **choices)
        self._readiness = Readiness(self.link.channel)
        return self

    async def disconnect(self, linger: int | None = None) -> None:
        """Close; harmless when the stream is not open. See `ndstream.Stream.disconnect`."""
        link = self._link
        if link is None or link.closing:
            return
        link.closing = True
        self._link = None
        self._readiness.close()
        # Closing waits for what is to be sent, and whoever cancels this does not stop it.
        await asyncio.shield(
            asyncio.to_thread(link.close, link.settings.linger if linger is None else linger, link.channel.wait)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    def register_socket_monitor(self, monitor: Monitor) -> None:
        """Have a function called with every event; see `ndstream.Stream.register_socket_monitor`.

        It is called in another thread: what concerns the loop, such as `disconnect`, it hands over with
        ``loop.call_soon_threadsafe``.
        """
        super().register_socket_monitor(monitor)
        if self.connected:
            self._readiness.stir()

    # -- receiving --

    async def receive(self, handler: Receive | None = None, block: bool = True) -> Message | None:
        """Receive a message; see `ndstream.Stream.receive`."""
        link = self._link
        if link is None or link.sends:
            link = self._receiver()
        self._at_once += 1
        if self._at_once >= BATCH:
            self._at_once = 0
            await asyncio.sleep(0)
        if link.closing:
            raise not_connected()
        if self._readiness.waiting:
            self._readiness.pass_on()
        message: Message | None = link.take(handler, block)
        if message is not NOTHING:
            return message
        if not block:
            link.channel.check()
            return None
        return await self._later(link, handler)

    async def _later(self, link: Link, handler: Receive | None) -> Message | None:
        deadline = Deadline(link.settings.receive_timeout)
        while await self._wait(link, deadline):
            message: Message | None = link.take(handler)
            if message is not NOTHING:
                return message
        return None

    async def receive_raw(self, block: bool = True) -> Message | None:
        """Receive a message of any htype, its parts as they are; see `ndstream.Stream.receive_raw`."""
        return await self.receive(raw, block)

    async def __aiter__(self) -> AsyncIterator[Message]:
        while self.connected:
            message = await self.receive()
            if message is None:
                return
            yield message

    # -- sending --

    async def send(self, message: Any, send_more: bool = False, block: bool = True, as_json: bool = False) -> Sent:
        """Send one part; see `ndstream.Stream.send`. The parts of a message are sent by one task."""
        link = self._sender()
        parts = link.sending.add(lambda: part_of(message, as_json), send_more)
        return HELD if parts is None else await self._send(link, parts, block)

    async def send_parts(self, parts: Iterable[Any], block: bool = True) -> Sent:
        """Send a message that is made already; see `ndstream.Stream.send_parts`."""
        made = [part_of(part) for part in parts]
        if not made:
            raise InvalidRequest("a message has at least one part")
        return await self._send(self._sender(), made, block)

    async def forward(self, message_data: Any, handler: Send | None = None, block: bool = True) -> Sent:
        """Send a message by its data, or as it was received; see `ndstream.Stream.forward`."""
        link = self._sender()
        return await self._send(link, link.encode(message_data, handler, block), block)

    async def _send(self, link: Link, parts: list[Buffer], block: bool) -> Sent:
        self._at_once += 1
        if self._at_once >= BATCH:
            self._at_once = 0
            await asyncio.sleep(0)
        if link.closing:
            raise not_connected()
        if self._readiness.waiting:
            self._readiness.pass_on()
        if (sent := link.offer(parts, block)) is not None:
            return sent
        deadline = Deadline(link.settings.send_timeout)
        while await self._wait(link, deadline):
            if (sent := link.offer(parts, block)) is not None:
                return sent
        raise link.too_slow()

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as the other stream has it
        """Send what waits in the queue; see `ndstream.Stream.flush`."""
        link = self._sender()
        deadline = Deadline(seconds(timeout))
        while not link.sending.pump():
            if not await self._wait(link, deadline):
                return False
        return True

    async def _wait(self, link: Link, deadline: Deadline) -> bool:
        found = await self._readiness.wait(deadline.left())
        if link.closing:
            raise not_connected()
        return found


def aconnect(address: str, conn_type: str = CONNECT, mode: int = Mode.PULL, **choices: Unpack[Choices]) -> AsyncStream:
    """Open a message stream for asyncio.

    Parameters
    ----------
    address, conn_type, mode, **choices
        Those of `ndstream.connect`, without ``no_client_action``.

    Returns
    -------
    AsyncStream
        Open already; ``async with`` closes it.

    Raises
    ------
    EndpointFailed, InvalidRequest, ConfigError, MissingExtra

    Examples
    --------
    >>> import ndstream
    >>> async def show() -> None:
    ...     async with ndstream.aconnect("tcp://127.0.0.1:9999") as stream:
    ...         async for message in stream:
    ...             print(message.data["header"])
    """
    return AsyncStream().connect(address, conn_type, mode, **choices)
