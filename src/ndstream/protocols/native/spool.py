"""Bodies of writes: kept in memory while they are small, else in a file without a name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ndstream.core.limits import MiB
from ndstream.errors import Busy, StorageFull
from ndstream.stores.spools import SpoolFile, SpoolFiles
from ndstream.wire.asgi import BodyTooLong

_IN_MEMORY = 1 * MiB
_PIECE = 1 * MiB


async def spooled(pieces: AsyncIterator[bytes], length: int, most: int, files: SpoolFiles) -> memoryview:
    """Receive a body of any size in bounded memory.

    Parameters
    ----------
    length : int, bytes
        What the head of the request says, 0 when it does not.
    most : int, bytes
        Longest body that is accepted.
    files : SpoolFiles

    Returns
    -------
    memoryview, read-only
        The body. What is long is a mapped temporary file, which nobody else can reach or cut short; it comes back to
        `files` with the last view of it.

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
    file: SpoolFile | None = None
    async for piece in pieces:
        total += len(piece)
        if total > most:
            raise error
        kept += piece
        if len(kept) >= _PIECE and total > _IN_MEMORY:
            file = file or _take(files)
            # The thread holds the file too: whoever gives up meanwhile leaves none to others that is still written.
            await asyncio.to_thread(_write, file, kept, total - len(kept))
            kept = bytearray()
    if file is None:
        return memoryview(bytes(kept))
    await asyncio.to_thread(_write, file, kept, total - len(kept))
    return file.mapped(total)


def _take(files: SpoolFiles) -> SpoolFile:
    try:
        return files.take()
    except Busy as error:
        raise _full(error) from error


def _write(file: SpoolFile, data: bytearray, offset: int) -> None:
    try:
        file.write(offset, data)
    except (Busy, OSError) as error:
        raise _full(error) from error


def _full(error: Exception) -> StorageFull:
    return StorageFull(f"no room to receive what is written: {error}")
