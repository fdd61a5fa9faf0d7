"""Waiting for a channel in an event loop, of asyncio or of uvloop."""

from __future__ import annotations

import asyncio

from ndstream.transports.zmq.channel import Channel


class Readiness:
    """Waits until a channel can receive, or send; several tasks may wait at once.

    The descriptors tell once that something happened, to whoever looks first, with or without waiting: that one calls
    `pass_on`, so that those who wait look as well.

    Attributes
    ----------
    waiting : dict
        Futures of those who wait, in the order in which they came.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.waiting: dict[asyncio.Future[None], None] = {}
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
        self.pass_on()
        return not self._closed

    def pass_on(self) -> None:
        """Let the next of those who wait look."""
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
                return

    def close(self) -> None:
        """End every `wait`: the channel is going to be closed."""
        self._closed = True
        self.stir()

    async def _something(self) -> bool:
        """Wait until something happens to the channel; whether it was woken."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self.waiting:
            self._descriptors = self._channel.descriptors()
            for descriptor in self._descriptors:
                loop.add_reader(descriptor, self.stir)
        self.waiting[future] = None
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self.pass_on()
            raise
        finally:
            self.waiting.pop(future, None)
            if not self.waiting:
                self._stop()
        return self._closed or self._channel.awake()

    def stir(self) -> None:
        """Let all that wait look again."""
        # The descriptors stay readable until somebody has looked, which would call this over and over.
        self._stop()
        waiting, self.waiting = self.waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _stop(self) -> None:
        descriptors, self._descriptors = self._descriptors, []
        if descriptors:
            loop = asyncio.get_running_loop()
            for descriptor in descriptors:
                loop.remove_reader(descriptor)
