"""How a recorder commits, against a target that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ndstream.core.operations import Committed, Operation
from ndstream.errors import StorageFull
from ndstream.recording.recorder import _COMMIT, Recorder

PART = bytes(_COMMIT)


class Slow:
    """A target whose commits are done when they are told to be."""

    def __init__(self) -> None:
        self.under_way: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def check(self, name: str) -> None:
        """There is no such file."""

    async def apply(self, name: str, operations: Sequence[Operation]) -> Committed:
        """Wait to be told."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.under_way.put_nowait(done)
        await done
        return Committed(number=1, outcomes=())

    async def finish(self, name: str) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""


async def recording(target: Slow) -> Recorder:
    """Begin a file."""
    recorder = Recorder(target, "run.h5", interval=1e9)
    recorder.add_parts([b"begin"])
    first = asyncio.create_task(recorder.commit())
    (await target.under_way.get()).set_result(None)
    await first
    return recorder


async def two_commits(target: Slow, recorder: Recorder) -> list[asyncio.Future[None]]:
    """Have two commits begun."""
    commits = []
    for _ in range(2):
        recorder.add_parts([PART])
        await recorder.turn()
        commits.append(await target.under_way.get())
    return commits


def test_a_commit_is_made_ready_while_the_one_before_is_written_and_no_more() -> None:
    async def work() -> None:
        target = Slow()
        recorder = await recording(target)
        commits = await two_commits(target, recorder)
        recorder.add_parts([PART])
        turn = asyncio.create_task(recorder.turn())
        done, _ = await asyncio.wait([turn], timeout=0.05)
        assert not done, "the stream is not held although the disk is slower"
        commits[0].set_result(None)
        await turn
        commits.append(await target.under_way.get())
        assert recorder.statistics.committed == 2
        for commit in commits[1:]:
            commit.set_result(None)
        await recorder.commit()
        assert recorder.statistics.committed == recorder.statistics.messages == 4

    asyncio.run(work())


def test_when_one_commit_fails_the_recording_does_and_counts_what_is_in_the_file() -> None:
    async def work() -> None:
        target = Slow()
        recorder = await recording(target)
        for commit in await two_commits(target, recorder):
            commit.set_exception(StorageFull("there is no room left"))
        for _ in range(2):
            with pytest.raises(StorageFull):
                await recorder.commit()
        assert recorder.statistics.committed == 1

    asyncio.run(work())
