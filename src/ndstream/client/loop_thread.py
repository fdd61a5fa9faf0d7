"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ndstream.errors import ConnectionLost

T = TypeVar("T")


class LoopThread:
    """Runs coroutines of any thread, until `close`.

    Attributes
    ----------
    loop : asyncio.AbstractEventLoop
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._guard = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine.

        Raises
        ------
        ConnectionLost
            The thread has ended, or is about to.
        """
        with self._guard:
            if self._closed:
                work.close()
                raise ConnectionLost("the client is closed")
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Cancel what still runs and end the thread; safe to call more than once, from any other thread."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            end = asyncio.run_coroutine_threadsafe(_cancel_all(), self.loop)
        try:
            end.result()
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
