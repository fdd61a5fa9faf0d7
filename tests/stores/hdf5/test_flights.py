"""Equal questions at the same time become one."""

from __future__ import annotations

import asyncio

import pytest

from ndstream.errors import Busy
from ndstream.stores.hdf5.flights import Flights


class Work:
    """Counts how often it was begun, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.started = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        self.started.set()
        await self.go.wait()
        return self.begun


async def aboard(flights: Flights, work: Work, count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(flights.join("key", work)) for _ in range(count)]
    await work.started.wait()
    return tasks


def test_all_who_ask_get_the_answer_of_one_call() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        tasks = await aboard(flights, work, 5)
        work.go.set()
        assert await asyncio.gather(*tasks) == [1] * 5
        assert not len(flights)
        assert await flights.join("key", work) == 2

    asyncio.run(main())


def test_a_failure_reaches_everybody_and_is_not_kept() -> None:
    async def fail() -> int:
        raise KeyError("no")

    async def main() -> None:
        flights = Flights()
        results = await asyncio.gather(*(flights.join("key", fail) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [KeyError] * 3
        assert not len(flights)

    asyncio.run(main())


def test_one_who_leaves_does_not_hurt_the_others() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        first, second = await aboard(flights, work, 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        work.go.set()
        assert await second == 1

    asyncio.run(main())


def test_work_ends_when_nobody_waits_for_it() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        tasks = await aboard(flights, work, 2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not len(flights)
        work.go.set()
        assert await flights.join("key", work) == 2

    asyncio.run(main())


def test_closing_ends_the_work_and_says_so() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        (task,) = await aboard(flights, work, 1)
        await flights.aclose()
        with pytest.raises(Busy):
            await task

    asyncio.run(main())
