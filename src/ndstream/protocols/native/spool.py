"""Bodies of writes: kept in memory while they are small, else in a file without a name."""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from ndstream.core.limits import MiB
from ndstream.errors import StorageFull
from ndstream.wire.asgi import BodyTooLong

_IN_MEMORY = 1 * MiB
_PIECE = 1 * MiB
_KEPT = 2  # files that are used again: to overwrite their pages costs a fraction of what new ones cost
_LONGEST_KEPT = 64 * MiB


class Spools:
    """Temporary files for bodies; for one event loop."""

    def __init__(self) -> None:
        self._free: deque[int] = deque()
        weakref.finalize(self, _close, self._free)

    async def receive(self, pieces: AsyncIterator[bytes], length: int, most: int) -> memoryview:
        """Receive a body of any size in bounded memory.

        Parameters
        ----------
        length : int, bytes
            What the head of the request says, 0 when it does not.
        most : int, bytes
            Longest body that is accepted.

        Returns
        -------
        memoryview, read-only
            The body. What is long is a mapped temporary file, which nobody else can reach or cut short; it goes with
            the last view of it.

        Raises
        ------
        BodyTooLong
        StorageFull
            There is no room for it in the temporary directory.
        """
        error = BodyTooLong(f"what is written in one request may have {most} bytes (limit: spool)")
        if length > most:
            raise error
        kept = bytearray()
        total = 0
        file = -1
        try:
            async for piece in pieces:
                total += len(piece)
                if total > most:
                    raise error
                kept += piece
                if len(kept) >= _PIECE and total > _IN_MEMORY:
                    if file < 0:
                        file = self._take()
                    await _finished(_write, file, kept, total - len(kept))
                    kept = bytearray()
            if file < 0:
                return memoryview(bytes(kept))
            await _finished(_write, file, kept, total - len(kept))
            body = mmap.mmap(file, total, access=mmap.ACCESS_READ)
        except BaseException:
            if file >= 0:
                self._give_back(file)
            raise
        weakref.finalize(body, self._give_back, file).atexit = False
        return memoryview(body)

    def _take(self) -> int:
        return self._free.pop() if self._free else _nameless()

    def _give_back(self, file: int) -> None:
        if len(self._free) < _KEPT and os.fstat(file).st_size <= _LONGEST_KEPT:
            self._free.append(file)
        else:
            os.close(file)


async def _finished(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a thread, and wait for its end even when cancelled: its file is given to others then."""
    done = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    cancelled = False
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            cancelled = True
    done.result()
    if cancelled:
        raise asyncio.CancelledError


def _close(files: deque[int]) -> None:
    while files:
        os.close(files.pop())


def _nameless() -> int:
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise StorageFull(f"no room to receive what is written: {error.strerror}") from error


def _write(file: int, data: bytearray, offset: int) -> None:
    view = memoryview(data)
    try:
        while view:
            count = os.pwrite(file, view, offset)
            view, offset = view[count:], offset + count
    except OSError as error:
        raise StorageFull(f"no room to receive what is written: {error.strerror}") from error
