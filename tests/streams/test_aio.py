"""Streams in an event loop, of asyncio and of uvloop: as the synchronous ones, and safe to cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
import uvloop
from tests.streams.conftest import LONG
from tests.streams.test_stream import frame_of, numbered

import ndstream
from ndstream import BIND, PULL, PUSH, AsyncStream
from ndstream.errors import BadHeader, ConnectionLost, InvalidRequest, TimedOut

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.param
    return found


def pair(**options: Any) -> tuple[AsyncStream, AsyncStream]:
    options = {"send_timeout": LONG, "receive_timeout": LONG, "linger": LONG, **options}
    sender = ndstream.aconnect("tcp://127.0.0.1:*", BIND, PUSH, **options)
    return sender, ndstream.aconnect(sender.address, **options)


def test_many_messages_arrive_in_order_while_others_run(run: Run) -> None:
    async def main() -> None:
        sender, receiver = pair(queue_size=10)
        async with sender, receiver:

            async def send() -> None:
                for frame in range(2000):
                    assert await sender.forward(numbered(frame))

            sending = asyncio.create_task(send())
            received = [frame_of(await receiver.receive()) for _ in range(2000)]
            await sending
            assert received == list(range(2000))
            assert receiver.statistics.missing == 0

    run(main())


def test_a_receive_that_is_cancelled_loses_no_message(run: Run) -> None:
    async def main() -> None:
        sender, receiver = pair()
        async with sender, receiver:
            received = []
            for frame in range(60):
                waiting = asyncio.create_task(receiver.receive())
                await asyncio.sleep(0)
                await sender.forward(numbered(frame))
                if frame % 3:
                    await asyncio.sleep(0)
                waiting.cancel()
                try:
                    received.append(frame_of(await waiting))
                except asyncio.CancelledError:
                    received.append(frame_of(await receiver.receive()))
            assert received == list(range(60))

    run(main())


def test_several_tasks_share_a_stream(run: Run) -> None:
    async def main() -> None:
        sender, receiver = pair()
        async with sender, receiver:

            async def take() -> list[int]:
                return [frame_of(await receiver.receive()) for _ in range(20)]

            tasks = [asyncio.create_task(take()) for _ in range(3)]
            await asyncio.sleep(0)
            for frame in range(60):
                await sender.forward(numbered(frame))
            received = [frame for task in tasks for frame in await task]
            assert sorted(received) == list(range(60))

    run(main())


def test_time_outs_errors_and_iteration_are_those_of_the_other_stream(run: Run) -> None:
    async def main() -> None:
        sender, receiver = pair(receive_timeout=100, send_timeout=50, queue_size=1)
        async with sender, receiver:
            assert await receiver.receive() is None
            assert await receiver.receive(block=False) is None
            await sender.send(b"no json")
            await sender.send({"htype": "raw-1.0"}, send_more=True, as_json=True)
            await sender.send(b"blob")
            with pytest.raises(BadHeader):
                while await receiver.receive() is None:
                    pass
            raw = None
            while raw is None:
                raw = await receiver.receive_raw()
            assert raw.data["data"] == [b"blob"]
            with pytest.raises(TimedOut):
                while True:
                    await sender.send_parts([b"{}", bytes(1 << 20)])
            with pytest.raises(InvalidRequest):
                await sender.receive()
            with pytest.raises(InvalidRequest):
                await receiver.send(b"")
            receiver.handlers["my-1.0"] = lambda part: part.next(as_json=True)
        receiver = ndstream.aconnect("tcp://127.0.0.1:*", BIND, PULL, receive_timeout=200)
        async with receiver, ndstream.aconnect(receiver.address, mode=PUSH) as other:
            for frame in range(3):
                await other.forward(numbered(frame))
            first = None
            while first is None:
                first = await receiver.receive()
            assert [frame_of(message) async for message in receiver] == [1, 2]

    run(main())


def test_closing_ends_what_waits_and_delivers_what_was_accepted(run: Run) -> None:
    async def main() -> None:
        sender, receiver = pair()
        for frame in range(50):
            await sender.forward(numbered(frame, 1 << 12))
        await sender.disconnect()
        await sender.disconnect()
        assert (sender.statistics.undelivered, sender.statistics.uncertain) == (0, 0)
        assert [frame_of(await receiver.receive()) for _ in range(50)] == list(range(50))
        waiting = asyncio.create_task(receiver.receive())
        await asyncio.sleep(0.01)
        await receiver.disconnect()
        with pytest.raises(ConnectionLost):
            await waiting

    run(main())


def test_the_oldest_go_here_too(run: Run) -> None:
    async def main() -> None:
        sender, receiver = pair(policy="drop-oldest", queue_size=2)
        async with sender, receiver:
            for frame in range(100):
                assert await sender.forward({"header": {"htype": "array-1.0", "frame": frame}, "data": [_BIG]})
            flushing = asyncio.create_task(sender.flush())
            received = [frame_of(await receiver.receive())]
            while received[-1] < 99:
                received.append(frame_of(await receiver.receive()))
            assert await flushing
            assert len(received) + sender.statistics.messages_dropped.get("oldest", 0) == 100

    run(main())


_BIG = np.zeros(1 << 18, "u1")
