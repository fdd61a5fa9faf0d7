"""Where the connection of a client of the framed TCP protocol lives: one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ndstream.client.loop_thread import LoopThread
from ndstream.client.rpc_link import Address, RPCLink
from ndstream.core.limits import Limits
from ndstream.errors import ConnectionLost

T = TypeVar("T")


class Home:
    """An event loop with the connection in it: that of who asks first, or, with `shared`, one in a thread of its own.

    Parameters
    ----------
    address : Address
    limits : Limits
    shared : bool
        Whether coroutines of other event loops are carried out.

    Attributes
    ----------
    link : RPCLink or None
        The last connection that there was.
    """

    def __init__(self, address: Address, limits: Limits, *, shared: bool) -> None:
        self.link: RPCLink | None = None
        self._address = address
        self._limits = limits
        self._thread = LoopThread("ndstream-rpc") if shared else None
        self._loop = self._thread.loop if self._thread is not None else asyncio.get_running_loop()
        self._connecting = asyncio.Lock()
        self._keepers = 0
        self._left = False
        self._over = False

    @property
    def lasts(self) -> bool:
        """Whether its event loop has not been closed."""
        return not self._loop.is_closed()

    def serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether coroutines of an event loop may be carried out here."""
        return self._thread is not None or self._loop is loop

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out a coroutine of an event loop that this `serves`.

        Raises
        ------
        ConnectionLost
            The client was closed meanwhile.
        """
        if self._thread is None:
            with self.kept():
                return await work
        future = self._thread.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                raise ConnectionLost(f"{self._address}: closed") from None
            raise

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the connection in spite of `leave`."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            if self._left:
                self._end()

    def leave(self) -> None:
        """Close the connection once nobody needs it any more; from any thread."""
        self._left = True
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._keepers and self.link is not None:
            self.link.shut()

    async def connected(self) -> RPCLink:
        """Connect, if there is no connection; inside of the event loop.

        Raises
        ------
        ConnectionLost
            The client was closed meanwhile, or there is no connection.
        """
        if self.link is None or not self.link.alive:
            async with self._connecting:
                if self.link is None or not self.link.alive:
                    self.link = await RPCLink.connect(self._address, self._limits)
        if self._over:
            self.link.shut()
            raise ConnectionLost(f"{self._address}: closed")
        return self.link

    async def close(self) -> None:
        """Close the connection at once, and end the thread if there is one; from any event loop.

        In the event loop of somebody else it is closed when that has time.
        """
        # First of all: who is about to connect looks at it when that is done.
        self._over = True
        if self._thread is not None:
            with suppress(ConnectionLost):
                await self.run(self._closed())
            await asyncio.to_thread(self._thread.close)
        elif self._loop is asyncio.get_running_loop():
            await self._closed()
        elif self.link is not None:
            with suppress(RuntimeError):  # its event loop is closed
                self._loop.call_soon_threadsafe(self.link.shut)

    async def _closed(self) -> None:
        if self.link is not None:
            await self.link.close()
