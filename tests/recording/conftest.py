"""Recording what was made in memory, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ndstream.core.operations import Committed, Operation
from ndstream.core.packets import Decoding
from ndstream.recording.recorder import Recorded, Recorder
from ndstream.recording.recording import Recording
from ndstream.recording.targets import Folder
from ndstream.stores.memory import MemoryStore
from ndstream.testing.payloads import WRITER
from ndstream.wire.multipart import Codecs

Parts = list[bytes]
Record = Callable[..., Recorded]


async def record_all(path: Path, messages: Iterable[Parts], *, commit_after: int = 0, **options: Any) -> Recorded:
    """Record messages that are there; with `commit_after` a commit after each that many."""
    target = Folder(path.parent)
    codecs = Codecs(Decoding(compressed=True))
    recorder = Recorder(target, path.name, **options)
    try:
        for number, parts in enumerate(messages, 1):
            recorder.add(codecs.decode(parts), time_ns=number * 1_000_000)
            if commit_after and number % commit_after == 0:
                await recorder.commit()
            await recorder.turn()
        await recorder.commit()
    finally:
        await target.aclose()
    return recorder.statistics


class Memory:
    """Files in memory; a `ndstream.recording.targets.Target`."""

    def __init__(self) -> None:
        self.store = MemoryStore({})
        self.finished: list[str] = []

    async def check(self, name: str) -> None:
        """Let any name be free."""

    async def apply(self, name: str, operations: Sequence[Operation]) -> Committed:
        return await self.store.apply(name, WRITER, operations, create=True)

    async def finish(self, name: str) -> None:
        self.finished.append(name)

    async def aclose(self) -> None:
        await self.store.aclose()


async def parts_of(path: Path) -> list[Parts]:
    """Messages of a recording, by their parts."""
    async with Recording(path) as recording:
        return [message.parts async for message in recording.messages()]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    def run(messages: Iterable[Parts], name: str = "run.h5", **options: Any) -> Recorded:
        return asyncio.run(record_all(tmp_path / name, messages, **options))

    return run
