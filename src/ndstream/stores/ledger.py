"""What is remembered of the commits of one file: their number, the last events, and the keys of batches."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping

import msgspec

from ndstream.core.operations import Change, Committed, Event


class Ledger:
    """The commits of a file, as far as they are remembered.

    Parameters
    ----------
    events, keys : int
        How many are remembered.

    Attributes
    ----------
    number : int
        Of the last commit.
    """

    def __init__(self, events: int, keys: int) -> None:
        self.number = 0
        self._events: deque[Event] = deque(maxlen=events)
        self._keys: OrderedDict[str, Committed] = OrderedDict()
        self._most = keys
        self._news: asyncio.Event | None = None  # while somebody waits

    def repeated(self, key: str | None) -> Committed | None:
        """Find what came of the batch that had this key."""
        found = self._keys.get(key) if key is not None else None
        return None if found is None else msgspec.structs.replace(found, repeated=True)

    def remember(self, keys: Mapping[str, Committed]) -> None:
        """Remember what came of batches with keys."""
        for key, committed in keys.items():
            self._keys[key] = committed
            self._keys.move_to_end(key)
        while len(self._keys) > self._most:
            self._keys.popitem(last=False)

    def commit(self, number: int, changes: Iterable[Change], *, complete: bool = True) -> None:
        """Remember a commit, and tell those who follow."""
        self.number = number
        self._events.append(Event(number=number, changes=tuple(changes), complete=complete))
        if self._news is not None:
            self._news.set()
            self._news = None

    def skip_to(self, number: int) -> None:
        """Note that there were commits up to `number` of which nothing more is known."""
        if number > self.number:
            self.commit(number, (), complete=False)

    def since(self, number: int) -> list[Event]:
        """Events of the commits after `number`; those that are forgotten come as one that is not complete."""
        events = [event for event in self._events if event.number > number]
        # A number that was never reached is one of another time: nothing is known of what lies between.
        first = events[0].number if events else self.number + 1
        if number > self.number:
            return [Event(number=self.number, changes=(), complete=False)]
        if first > number + 1 and (not events or events[0].complete):
            events.insert(0, Event(number=first - 1, changes=(), complete=False))
        return events

    async def news(self) -> None:
        """Wait for the next commit."""
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()
