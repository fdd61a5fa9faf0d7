"""Bodies that are received into files which are used again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from ndstream.core.limits import MiB
from ndstream.errors import StorageFull
from ndstream.protocols.native import spool
from ndstream.protocols.native.spool import spooled
from ndstream.stores.spools import SpoolFile, SpoolFiles
from ndstream.wire.asgi import BodyTooLong

MOST = 64 * MiB


def long(byte: int, length: int = 3 * MiB + 5) -> bytes:
    return bytes([byte]) * length


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]


def test_a_file_is_used_again_when_its_body_is_gone_and_not_before() -> None:
    async def run() -> None:
        files = SpoolFiles()
        first = await spooled(pieces(long(1)), 0, MOST, files)
        second = await spooled(pieces(long(2)), 0, MOST, files)
        assert bytes(first) == long(1)
        del first
        # The file is longer than what it holds now.
        third = await spooled(pieces(long(3, 2 * MiB)), 0, MOST, files)
        assert bytes(second) == long(2)
        assert bytes(third) == long(3, 2 * MiB)

    asyncio.run(run())


@pytest.mark.parametrize("length", [0, 1, MiB, MiB + 1, 2 * MiB])
def test_bodies_of_any_length_arrive(length: int) -> None:
    async def run() -> memoryview:
        return await spooled(pieces(long(5, length)), length, MOST, SpoolFiles())

    body = asyncio.run(run())
    assert body.readonly
    assert bytes(body) == long(5, length)


def test_who_gives_up_leaves_no_file_to_others_that_is_still_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        begun, go_on, ended, files = threading.Event(), threading.Event(), threading.Event(), SpoolFiles()
        write = spool._write

        def slow(file: SpoolFile, data: list[bytes], offset: int) -> None:
            if data[0][0] == 1:
                begun.set()
                go_on.wait(60)
            write(file, data, offset)
            if data[0][0] == 1:
                ended.set()

        monkeypatch.setattr(spool, "_write", slow)
        task = asyncio.create_task(spooled(pieces(long(1)), 0, MOST, files))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)  # has it take notice
        other = await spooled(pieces(long(2)), 0, MOST, files)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(ended.wait, 60)
        assert bytes(other) == long(2)

    asyncio.run(run())


def test_what_is_too_long_or_has_no_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        files = SpoolFiles()
        with pytest.raises(BodyTooLong):
            await spooled(pieces(b""), 11, 10, files)
        with pytest.raises(BodyTooLong):
            await spooled(pieces(long(1)), 0, 2 * MiB, files)
        monkeypatch.setattr("tempfile.mkstemp", no_room)
        with pytest.raises(StorageFull, match="no room"):
            # That of before is free; only who needs another one is refused.
            await asyncio.gather(*[spooled(pieces(long(1)), 0, MOST, files) for _ in range(2)])

    asyncio.run(run())


def no_room(**_: object) -> None:
    raise OSError(28, "no room")
