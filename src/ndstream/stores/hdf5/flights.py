"""Equal questions that are asked at the same time become one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar, cast

from ndstream.errors import Busy

T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("passengers", "task")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.passengers = 0


class Flights:
    """Work under way, by what it is about; for the tasks of one event loop."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[Any]] = {}

    async def join(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the work about `key`, begun by ``start()`` unless it is under way already.

        All who wait get its result, or its exception. One who is cancelled leaves the others waiting; the work is
        cancelled when nobody is left.

        Raises
        ------
        Busy
            The work was given up because of `aclose`.
        """
        flight = cast("_Flight[T] | None", self._flights.get(key))
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(start()))
        flight.passengers += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.task.cancelled() and not _is_cancelled():
                raise Busy("the server is shutting down") from None
            raise
        finally:
            flight.passengers -= 1
            if flight.task.done() or not flight.passengers:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def __len__(self) -> int:
        return len(self._flights)

    async def aclose(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
