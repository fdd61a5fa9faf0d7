"""Bodies of writes: kept in memory while they are small, else in a file without a name."""

from __future__ import annotations

import asyncio
import mmap
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from ndstream.core.limits import MiB
from ndstream.errors import StorageFull
from ndstream.wire.asgi import BodyTooLong

_IN_MEMORY = 1 * MiB
_PIECE = 1 * MiB


async def spooled(pieces: AsyncIterator[bytes], length: int, most: int) -> memoryview:
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
        The body. What is long is a mapped temporary file, which nobody else can reach or cut short; it goes with the
        last view of it.

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
    with tempfile.TemporaryFile(buffering=0) as file:
        async for piece in pieces:
            total += len(piece)
            if total > most:
                raise error
            kept += piece
            if len(kept) >= _PIECE and total > _IN_MEMORY:
                await asyncio.to_thread(_append, file, bytes(kept))
                kept.clear()
        if total <= _IN_MEMORY:
            return memoryview(bytes(kept))
        await asyncio.to_thread(_append, file, bytes(kept))
        return memoryview(mmap.mmap(file.fileno(), total, access=mmap.ACCESS_READ))


def _append(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise StorageFull(f"no room to receive what is written: {error.strerror}") from error
