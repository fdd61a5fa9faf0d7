"""Work that flows leave to other threads: few at a time, and none left behind."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache

_THREADS = min(8, os.cpu_count() or 1)
MOST = 2 * _THREADS
"""Functions of one flow that wait or run: what they hold in memory is bounded by it."""


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    # By process: threads do not come along into a forked child.
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="ndstream-decode")


class Works:
    """The work of one flow. Threads are shared by all flows of a process; they start with the first work."""

    def __init__(self) -> None:
        self._under_way: deque[Future[None]] = deque()

    @property
    def oldest(self) -> Future[None] | None:
        """What to wait for before more is added; None when there is room."""
        return self._under_way[0] if len(self._under_way) >= MOST else None

    def start(self, function: Callable[[], None]) -> None:
        """Begin with a function."""
        self._under_way.append(_threads(os.getpid()).submit(function))

    def take(self) -> Future[None] | None:
        """Hand over the oldest; None when there is none."""
        return self._under_way.popleft() if self._under_way else None

    def add(self, function: Callable[[], None]) -> None:
        """Begin with a function when there is room; raises what an earlier one raised."""
        if self.oldest is not None:
            self._under_way.popleft().result()
        self.start(function)

    def finish(self) -> None:
        """Wait for all; raises what one of them raised, when none runs any more."""
        try:
            while (first := self.take()) is not None:
                first.result()
        finally:
            self.drop()

    def drop(self) -> None:
        """Begin with none of those that wait, and wait for those that run: they write into memory of the caller."""
        for future in self._under_way:
            future.cancel()
        wait(self._under_way)
        self._under_way.clear()
