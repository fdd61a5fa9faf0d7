"""Memory is given in turn, and what is given comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ndstream.stores.budget import Budget


def _run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


async def _settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_whoever_came_first_is_served_first() -> None:
    async def work() -> None:
        budget = Budget(100)
        served: list[str] = []

        async def ask(name: str, nbytes: int) -> None:
            await budget.take(nbytes)
            served.append(name)

        await budget.take(90)
        tasks = [asyncio.create_task(ask(name, nbytes)) for name, nbytes in (("large", 50), ("small", 5))]
        await _settle()
        assert served == []  # the small one fits, but it is not its turn
        budget.give_back(90)
        await asyncio.gather(*tasks)
        assert served == ["large", "small"]
        assert budget.used == 55

    _run(work)


def test_reading_ahead_leaves_half_to_others() -> None:
    budget = Budget(100)
    assert budget.spare(50)
    assert not budget.spare(1)
    budget.give_back(50)
    assert budget.used == 0


def test_nobody_reads_ahead_while_somebody_waits() -> None:
    async def work() -> None:
        budget = Budget(100)
        await budget.take(40)
        waiting = asyncio.create_task(budget.take(80))
        await _settle()
        assert not budget.spare(1)
        budget.give_back(40)
        await waiting
        assert budget.used == 80

    _run(work)


def test_a_piece_larger_than_everything_gets_everything() -> None:
    async def work() -> None:
        budget = Budget(100)
        await budget.take(1)
        waiting = asyncio.create_task(budget.take(1000))
        await _settle()
        assert not waiting.done()
        budget.give_back(1)
        await waiting
        budget.give_back(1000)
        assert budget.used == 0

    _run(work)


@pytest.mark.parametrize("granted", [False, True])
def test_who_stops_waiting_holds_nothing(granted: bool) -> None:
    async def work() -> None:
        budget = Budget(100)
        await budget.take(100)
        first, second = (asyncio.create_task(budget.take(100)) for _ in range(2))
        await _settle()
        if granted:
            budget.give_back(100)  # in the same moment, before the task could run
        first.cancel()
        if not granted:
            budget.give_back(100)
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert budget.used == 100
        budget.give_back(100)
        assert budget.used == 0

    _run(work)
