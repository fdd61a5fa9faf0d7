"""Events on their way to one who follows: server-sent events, or messages of a WebSocket.

Source: SPEC.md, "Events".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

from ndstream.core.operations import Event
from ndstream.core.ports import Receive, Send
from ndstream.errors import NotFound
from ndstream.protocols.native import codec
from ndstream.protocols.native.messages import EVENTS

_HEARTBEAT = 15.0
_NORMAL, _UNWANTED, _RESTART = 1000, 1003, 1012


class Channel(Protocol):
    """How events travel."""

    async def begin(self) -> None:
        """Accept who follows."""
        ...

    async def tell(self, event: Event) -> None:
        """Send one event."""
        ...

    async def rest(self) -> None:
        """Let both sides learn that the other is gone, when nothing happens for long."""
        ...

    async def end(self) -> None:
        """Say that the file is gone."""
        ...

    async def stop(self) -> None:
        """Say that the server stops: it may be asked again soon."""
        ...

    async def left(self) -> None:
        """Wait until the client goes away, or does what it must not."""
        ...


class ServerSent:
    """An answer of HTTP without end (``text/event-stream``)."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def begin(self) -> None:
        """Send the head."""
        headers = [(b"content-type", EVENTS.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._put(b": ndstream\n\n")

    async def tell(self, event: Event) -> None:
        """Send one event, with its tag as id."""
        await self._put(codec.encode_event(event))

    async def rest(self) -> None:
        """Send a comment."""
        await self._put(b": \n\n")

    async def end(self) -> None:
        """Send the last event, and that this is all."""
        await self._send({"type": "http.response.body", "body": b"event: end\ndata: {}\n\n"})

    async def stop(self) -> None:
        """End the answer: who follows asks again, as after a lost connection."""
        await self._send({"type": "http.response.body", "body": b""})

    async def left(self) -> None:
        """Wait until the connection is lost."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _put(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


class Messages:
    """A WebSocket; each event is one message of text."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def begin(self) -> None:
        """Accept the socket."""
        await self._send({"type": "websocket.accept"})

    async def tell(self, event: Event) -> None:
        """Send one event: what server-sent events have as data."""
        await self._send({"type": "websocket.send", "text": codec.encode_json(event).decode()})

    async def rest(self) -> None:
        """Do nothing: the server pings by itself."""

    async def end(self) -> None:
        """Close the socket."""
        await self._close(_NORMAL, "the file is gone")

    async def stop(self) -> None:
        """Close the socket."""
        await self._close(_RESTART, "the server stops")

    async def left(self) -> None:
        """Wait until the socket is closed, or close it because the client speaks."""
        while (kind := (await self._receive())["type"]) == "websocket.connect":
            pass
        if kind == "websocket.receive":
            await self._close(_UNWANTED, "who follows has nothing to say")

    async def _close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


async def follow(events: AsyncIterator[Event], channel: Channel, stopping: asyncio.Event | None = None) -> None:
    """Send events as they come, until the client goes away, the file is gone, or the server stops."""
    await channel.begin()
    left = asyncio.ensure_future(channel.left())
    stops = asyncio.ensure_future((stopping or asyncio.Event()).wait())
    coming: asyncio.Future[Event] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            wanted = (coming, left, stops)
            done, _ = await asyncio.wait(wanted, timeout=_HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
            if left in done:
                return
            if stops in done:
                await channel.stop()
                return
            if coming in done:
                event, coming = coming.result(), None
                await channel.tell(event)
            else:
                await channel.rest()
    except (StopAsyncIteration, NotFound):
        await channel.end()
    finally:
        waiting: list[asyncio.Future[Any]] = [left, stops, *([] if coming is None else [coming])]
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        closing = getattr(events, "aclose", None)
        if closing is not None:
            await closing()
