"""Bodies of writes: kept in memory while they are small, else in a file without a name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ndstream.core.limits import MiB
from ndstream.errors import Busy, StorageFull
from ndstream.stores.spools import SpoolFile, SpoolFiles
from ndstream.wire.asgi import BodyTooLong

_PIECE = 2 * MiB


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
    kept: list[bytes] = []
    total = held = 0
    file: SpoolFile | None = None
    writing: asyncio.Future[None] | None = None
    try:
        async for piece in pieces:
            total += len(piece)
            if total > most:
                raise error
            kept.append(piece)
            held += len(piece)
            if held >= _PIECE:
                file = file or _take(files)
                if writing is not None:
                    await writing
                # While one piece is written the next is received. The thread holds the file too: whoever gives up
                # meanwhile leaves none to others that is still written.
                writing = asyncio.ensure_future(asyncio.to_thread(_write, file, kept, total - held))
                kept, held = [], 0
        if file is None or writing is None:
            return memoryview(b"".join(kept))
        await writing
        await asyncio.to_thread(_write, file, kept, total - held)
        return file.mapped(total)
    finally:
        if writing is not None:
            await asyncio.gather(writing, return_exceptions=True)


def _take(files: SpoolFiles) -> SpoolFile:
    try:
        return files.take()
    except Busy as error:
        raise _full(error) from error


def _write(file: SpoolFile, data: list[bytes], offset: int) -> None:
    try:
        for piece in data:
            file.write(offset, piece)
            offset += len(piece)
    except (Busy, OSError) as error:
        raise _full(error) from error


def _full(error: Exception) -> StorageFull:
    return StorageFull(f"no room to receive what is written: {error}")
