"""What is remembered of the commits of one file: their number, the last events, and the keys of batches."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping

import msgspec

from ndstream.core.operations import Change, Committed, Event, State


class Ledger:
    """The commits of a file, as far as they are remembered.

    Parameters
    ----------
    events, keys : int
        How many are remembered.

    Attributes
    ----------
    state : State
        After the last commit.
    """

    def __init__(self, events: int, keys: int) -> None:
        self.state = State("", 0)
        # Each with the tag of the state before it.
        self._events: deque[tuple[str, Event]] = deque(maxlen=events)
        self._keys: OrderedDict[str, Committed] = OrderedDict()
        self._most = keys
        self._news: asyncio.Event | None = None  # while somebody waits

    @property
    def number(self) -> int:
        """Number of the last commit."""
        return self.state.commit

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

    def commit(self, state: State, changes: Iterable[Change], *, complete: bool = True) -> None:
        """Remember a commit, which made a state, and tell those who follow."""
        event = Event(number=state.commit, changes=tuple(changes), complete=complete, tag=state.tag)
        self._events.append((self.state.tag, event))
        self.state = state
        if self._news is not None:
            self._news.set()
            self._news = None

    def begin(self, generation: str) -> None:
        """Name the state of now, to which no commit has led."""
        self.state = State(generation, self.number)

    def since(self, known: int | str) -> list[Event]:
        """Events of the commits after a number, or after the state of a tag.

        Those that are forgotten come as one that is not complete.
        """
        return self._since_state(known) if isinstance(known, str) else self._since_number(known)

    def _since_state(self, tag: str) -> list[Event]:
        if tag == self.state.tag:
            return []
        befores = [before for before, _ in self._events]
        if tag in befores:
            return [event for _, event in self._events][befores.index(tag) :]
        return [self._unknown(self.state.commit, self.state.tag)]

    def _since_number(self, number: int) -> list[Event]:
        # A number that was never reached is one of another time: nothing is known of what lies between.
        if number > self.number:
            return [self._unknown(self.state.commit, self.state.tag)]
        found = [(before, event) for before, event in self._events if event.number > number]
        events = [event for _, event in found]
        first, before = (events[0].number, found[0][0]) if found else (self.number + 1, self.state.tag)
        if first > number + 1 and (not events or events[0].complete):
            events.insert(0, self._unknown(first - 1, before))
        return events

    def _unknown(self, number: int, tag: str) -> Event:
        return Event(number=number, changes=(), complete=False, tag=tag)

    async def news(self) -> None:
        """Wait for the next commit."""
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()
