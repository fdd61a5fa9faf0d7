"""Memory that many share, given out in turn."""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """Bytes that are shared out, first come, first served.

    Who cannot go on without asks with `take`, and waits for its turn. What is read ahead is asked for with `spare`,
    which never waits and leaves half of everything to those who come later: readers that stall cannot hold so much that
    nobody else gets a first piece.

    Not safe for several threads: it belongs to the event loop.

    Parameters
    ----------
    total : int, bytes
        A single piece may be larger; it gets everything.
    """

    __slots__ = ("_total", "_used", "_waiting")

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes given out now."""
        return self._used

    @property
    def wanted(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def spare(self, nbytes: int) -> bool:
        """Take `nbytes` for reading ahead, if nobody waits and no more than half is given out then."""
        if self._waiting or self._used + nbytes > self._total // 2:
            return False
        self._used += nbytes
        return True

    async def take(self, nbytes: int) -> None:
        """Take `nbytes`, after all who asked before have theirs."""
        if not self._waiting and self._fits(nbytes):
            self._used += nbytes
            return
        turn = asyncio.get_running_loop().create_future()
        entry = (nbytes, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back(nbytes)  # it was granted in the same moment
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._wake()
            raise

    def give_back(self, nbytes: int) -> None:
        """Return what `take` or `spare` gave, or a part of it."""
        self._used -= nbytes
        self._wake()

    def _fits(self, nbytes: int) -> bool:
        return self._used + nbytes <= self._total or self._used == 0

    def _wake(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._fits(self._waiting[0][0])):
            nbytes, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._used += nbytes
                turn.set_result(None)
