"""How many requests of one user are served at once; the others wait in order."""

from __future__ import annotations

import asyncio
from collections import deque

from ndstream.core.ports import Access, ASGIApp, Receive, Scope, Send
from ndstream.errors import ConnectionLost
from ndstream.server.connection import connection_of


class Turns:
    """Places at a counter: `most` at once for each key (0 = no limit), the rest in a queue that drops nobody.

    For one event loop, without locks: nothing here waits between looking and changing.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: dict[str, int] = {}
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def waiting(self) -> int:
        """Number that wait, of all keys."""
        return sum(map(len, self._queues.values()))

    def enter(self, key: str) -> bool:
        """Take a place if one is free."""
        taken = self._taken.get(key, 0)
        if 0 < self.most <= taken:
            return False
        self._taken[key] = taken + 1
        return True

    def join(self, key: str) -> asyncio.Future[None]:
        """Queue for a place: it is taken when the future has a result. Cancel it to give up, then `quit`."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(key, deque()).append(place)
        return place

    def quit(self, key: str, place: asyncio.Future[None]) -> None:
        """Give up a place that was joined for, come by now or not."""
        if place.done() and not place.cancelled():
            self.leave(key)
        elif place in self._queues.get(key, ()):
            self._queues[key].remove(place)
            if not self._queues[key]:
                del self._queues[key]

    def leave(self, key: str) -> None:
        """Give a place back: it goes to the first in the queue."""
        queue = self._queues.get(key)
        while queue:
            place = queue.popleft()
            if not queue:
                del self._queues[key]
            if not place.done():
                place.set_result(None)
                return
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]


class Limited:
    """Application behind `Turns`, which counts by ``Access.key``.

    What takes long and does little, such as following a file, may give its turn back before its end: by calling what
    is at ``scope["ndstream.release"]``.

    Who gives up while waiting leaves the queue when the connection is one of ours (`connection_of`); under another
    server they keep their place, and the application finds out.
    """

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, in its turn."""
        access: Access = scope["ndstream.access"]
        turns = self._turns
        if not turns.enter(access.key):
            await self._wait(access.key, scope)
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                turns.leave(access.key)

        scope["ndstream.release"] = release
        try:
            await self._app(scope, receive, send)
        finally:
            release()

    async def _wait(self, key: str, scope: Scope) -> None:
        place = self._turns.join(key)
        connection = connection_of(scope)
        if connection is not None:
            connection.when_lost = place.cancel
        try:
            await place
        except asyncio.CancelledError:
            # Also right when the place came in the very moment in which this task is cancelled.
            self._turns.quit(key, place)
            if connection is not None and connection.lost:
                raise ConnectionLost("the client went away before its turn") from None
            raise
        finally:
            if connection is not None:
                connection.when_lost = None
