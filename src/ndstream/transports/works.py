"""Work that flows leave to other threads: few at a time, and none left behind."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache

from ndstream.wire.flow import Work

_THREADS = min(8, os.cpu_count() or 1)
MOST = 2 * _THREADS
"""Functions of one flow that wait or run."""


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    # By process: threads do not come along into a forked child.
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="ndstream-decode")


class Works:
    """The work of one flow. Threads are shared by all flows of a process; they start with the first work.

    Parameters
    ----------
    most : int, bytes
        What all that waits or runs may hold in memory; a single work may hold more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._under_way: deque[tuple[Future[None], int]] = deque()

    def oldest(self, nbytes: int) -> Future[None] | None:
        """What to wait for, and then take, before work that holds `nbytes` is started; None when there is room."""
        if len(self._under_way) < MOST and self._held + nbytes <= self._most:
            return None
        return self.first()

    def first(self) -> Future[None] | None:
        """What to wait for, and then take, first of all; None when there is nothing.

        Taken before it is done, it would not be waited for when the flow is given up.
        """
        return self._under_way[0][0] if self._under_way else None

    def start(self, work: Work) -> None:
        """Begin with a function."""
        self._under_way.append((_threads(os.getpid()).submit(work.function), work.nbytes))
        self._held += work.nbytes

    def take(self) -> None:
        """Forget the oldest, which is done."""
        _, nbytes = self._under_way.popleft()
        self._held -= nbytes

    def add(self, work: Work) -> None:
        """Begin with a function when there is room; raises what an earlier one raised."""
        while (oldest := self.oldest(work.nbytes)) is not None:
            oldest.result()
            self.take()
        self.start(work)

    def finish(self) -> None:
        """Wait for all; raises what one of them raised, when none runs any more."""
        try:
            while (first := self.first()) is not None:
                first.result()
                self.take()
        finally:
            self.drop()

    def drop(self) -> None:
        """Begin with none of those that wait, and wait for those that run: they write into memory of the caller."""
        futures = [future for future, _ in self._under_way]
        for future in futures:
            future.cancel()
        wait(futures)
        self._under_way.clear()
        self._held = 0
