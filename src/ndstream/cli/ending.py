"""Ctrl-C and SIGTERM for commands that run until somebody ends them: they finish what they are at, and say so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ndstream.streams.stream import Stream

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 1000  # milliseconds for what was sent and not delivered, when we are to end


class Ending:
    """Knows whether the command was asked to end; a context manager for the main thread.

    A second signal ends the process as if there were no `Ending`.
    """

    def __init__(self) -> None:
        self._asked = False
        self._streams: list[Stream] = []
        self._before: dict[signal.Signals, Any] = {}
        self._wake = -1

    def __enter__(self) -> Self:
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        wake, self._wake = self._wake, -1
        os.close(wake)

    def _restore(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._restore()
        self._poke()
        for stream in self._streams:
            stream.wake()

    def _poke(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def asked(self) -> bool:
        """Whether the command was asked to end."""
        return self._asked

    def wakes(self, *streams: Stream) -> None:
        """Let the streams wait no more as soon as the command is asked to end."""
        self._streams.extend(streams)
        if self._asked:
            for stream in streams:
                stream.wake()

    def wait(self, seconds: float) -> bool:
        """Wait; returns at once, and True, when the command is asked to end."""
        deadline = time.monotonic() + seconds
        while not self._asked and (left := deadline - time.monotonic()) > 0:
            select.select([self._wake], [], [], left)
        return self._asked

    def close(self, stream: Stream, *, patient: bool = True) -> bool:
        """Close a sender when all was delivered.

        Parameters
        ----------
        stream : Stream
        patient : bool
            However long that takes; else not more than a second.

        Returns
        -------
        bool
            False when the command was asked to end meanwhile, and it is not known what became of the last messages.
        """
        if self._asked or not patient:
            stream.disconnect(_PATIENCE)
            return True
        closed = threading.Event()

        def disconnect() -> None:
            stream.disconnect(-1)
            closed.set()
            self._poke()

        # In a thread, as closing cannot be interrupted.
        closer = threading.Thread(target=disconnect, name="ndstream-close", daemon=True)
        closer.start()
        while not self._asked and not closed.is_set():
            select.select([self._wake], [], [])
        if closed.is_set():
            closer.join()
        return closed.is_set()


@contextlib.contextmanager
def told_to_stop(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at Ctrl-C and SIGTERM, in place of what they do otherwise; inside a running event loop."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Do `work` until it is done, or given up because `stop` is set; raises what it raises."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
        await asyncio.wait((working, stopping))
    if not working.cancelled():
        working.result()
