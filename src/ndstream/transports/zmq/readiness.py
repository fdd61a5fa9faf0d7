"""Waiting for a channel in an event loop, of asyncio or of uvloop."""

from __future__ import annotations

import asyncio

from ndstream.transports.zmq.channel import Channel


class Readiness:
    """Waits until a channel can receive, or send; several tasks may wait at once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: set[asyncio.Future[None]] = set()
        self._descriptors: list[int] = []
        self._closed = False

    async def wait(self, patience: float | None) -> bool:
        """Wait; False when the time is over, or `Channel.wake` was called.

        Parameters
        ----------
        patience : float, seconds, optional

        Raises
        ------
        NotAuthenticated
            This end, which connects, is refused.
        """
        try:
            async with asyncio.timeout(patience):
                while not self._closed and not self._channel.ready():
                    if await self._something():
                        return False
        except TimeoutError:
            return False
        return not self._closed

    def close(self) -> None:
        """End every `wait`: the channel is going to be closed."""
        self._closed = True
        self.stir()

    async def _something(self) -> bool:
        """Wait until something happens to the channel; whether it was woken."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            self._descriptors = self._channel.descriptors()
            for descriptor in self._descriptors:
                loop.add_reader(descriptor, self.stir)
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if not self._waiting:
                self._stop()
        return self._closed or self._channel.awake()

    def stir(self) -> None:
        """Let all that wait look again."""
        # The descriptors stay readable until somebody has looked, which would call this over and over.
        self._stop()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def _stop(self) -> None:
        descriptors, self._descriptors = self._descriptors, []
        if descriptors:
            loop = asyncio.get_running_loop()
            for descriptor in descriptors:
                loop.remove_reader(descriptor)
