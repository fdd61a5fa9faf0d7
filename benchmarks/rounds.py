"""Rounds in which the contenders take turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Turn = Callable[[], float]


def medians(contenders: Mapping[str, Turn], rounds: int) -> dict[str, float]:
    """Median of what each contender's turns return, after one turn each that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in contenders.values():
        turn()
    for _ in range(rounds):
        for name, turn in contenders.items():
            taken[name].append(turn())
    return {name: median(values) for name, values in taken.items()}


def timed(work: Callable[[], object]) -> Turn:
    """Make a turn that returns the seconds that `work` takes."""

    def turn() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return turn
