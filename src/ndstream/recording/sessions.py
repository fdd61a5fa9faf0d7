"""Recording a stream until it is told to stop, and playing recordings to one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.errors import InvalidRequest
from ndstream.recording.recorder import Recorder
from ndstream.recording.recording import Recording
from ndstream.streams.aio import AsyncStream

#: Seconds in which messages that have come already are taken, once recording was told to stop.
_LAST = 1.0


async def record(stream: AsyncStream, recorder: Recorder, stop: asyncio.Event, count: int | None = None) -> None:
    """Record what a stream receives, until `stop` is set or `count` messages came; all of it is committed then.

    Parameters
    ----------
    stream : AsyncStream
        Its `receive_timeout` is how often it is looked whether a commit is due.
    recorder : Recorder
    stop : asyncio.Event
    count : int, optional

    Raises
    ------
    NDStreamError
        The stream or a file failed. What was committed before is in the files.
    """
    receiving = asyncio.create_task(_receive(stream, recorder, count))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            await _take_the_rest(stream, recorder, count)
        else:
            receiving.result()
    finally:
        receiving.cancel()
        stopping.cancel()
        await asyncio.gather(receiving, stopping, return_exceptions=True)
        await recorder.commit()


async def _receive(stream: AsyncStream, recorder: Recorder, count: int | None) -> None:
    while count is None or recorder.statistics.messages < count:
        message = await stream.receive()
        if message is not None:
            recorder.add(message.packet)
        await recorder.turn()


async def _take_the_rest(stream: AsyncStream, recorder: Recorder, count: int | None) -> None:
    """Take what came already: whoever sent it takes it for delivered."""
    deadline = time.monotonic() + _LAST
    while time.monotonic() < deadline and (count is None or recorder.statistics.messages < count):
        message = await stream.receive(block=False)
        if message is None:
            return
        recorder.add(message.packet)
        await recorder.turn()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast messages are sent.

    Attributes
    ----------
    speed : float
        1 keeps the distances in time that the messages had, 2 halves them; 0 is as fast as they are taken.
    rate : float, messages per second, optional
        In place of that.
    """

    speed: float = 1.0
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.speed < 0 or (self.rate is not None and self.rate <= 0):
            raise InvalidRequest("a speed is 0 or more, and a rate above 0")

    def due(self, number: int, nanoseconds: int) -> float:
        """When a message is sent, in seconds after the first; `nanoseconds` after which it came."""
        if self.rate is not None:
            return number / self.rate
        return nanoseconds / self.speed / 1e9 if self.speed else 0.0


async def play(
    paths: Sequence[Path],
    stream: AsyncStream,
    *,
    pace: Pace | None = None,
    loop: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    sent: Callable[[int], object] | None = None,
) -> int:
    """Send what is recorded in files, in their order, as it came.

    Parameters
    ----------
    paths : sequence of Path
        Such as rolled files, which follow each other.
    stream : AsyncStream
        That sends.
    pace : Pace, optional
        That of the recording, by default.
    loop : bool
        Begin again at the end, for ever.
    limits : Limits
    sent : callable, optional
        Called with the number of bytes of each message.

    Returns
    -------
    int
        Messages that were sent.

    Raises
    ------
    NotFound, InvalidRequest
        A file is not there, or no recording.
    Corrupt, NDStreamError
    """
    pace = pace or Pace()
    total = 0
    while True:
        begun, first, number = time.monotonic(), None, 0
        for path in paths:
            async with Recording(path, limits) as recording:
                async for message in recording.messages():
                    first = message.time if first is None else first
                    wait = begun + pace.due(number, message.time - first) - time.monotonic()
                    if wait > 0:
                        await asyncio.sleep(wait)
                    await stream.send_parts(message.parts)
                    number += 1
                    if sent is not None:
                        sent(sum(map(len, message.parts)))
        total += number
        if not loop or not number:
            return total
