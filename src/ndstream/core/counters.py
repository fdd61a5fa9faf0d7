"""Counters: the one place where things are counted, in every protocol and store.

A `Counters` costs a dictionary update per event. The server exports it at ``/metrics``.
"""

from __future__ import annotations

from collections.abc import Iterator


class Counters:
    """Named, labelled totals that only grow.

    Names are snake_case nouns with the unit at the end (``read_bytes``); `label` tells cases of one name apart
    (an error code, a protocol). Safe for use from one thread at a time per counter: totals may miss an increment
    when two threads race, they never go wrong otherwise.
    """

    __slots__ = ("_totals",)

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], float] = {}

    def add(self, name: str, amount: float = 1, label: str = "") -> None:
        """Add `amount` to the total called `name`, `label`."""
        key = (name, label)
        self._totals[key] = self._totals.get(key, 0) + amount

    def __getitem__(self, key: tuple[str, str] | str) -> float:
        return self._totals.get((key, "") if isinstance(key, str) else key, 0)

    def __iter__(self) -> Iterator[tuple[str, str, float]]:
        """Yield (name, label, total) in the order of first use."""
        for (name, label), total in list(self._totals.items()):
            yield name, label, total
