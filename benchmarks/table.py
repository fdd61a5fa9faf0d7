"""The table of results: ``row | ours | limit | ratio | budget``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WIDTHS = (58, 14, 14, 8, 14)
HEADINGS = ("row", "ours", "limit", "ratio", "budget")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a row has to reach: ``at_least`` or ``at_most``, of the ratio to the limit or of the figure itself."""

    at_least: float | None = None
    at_most: float | None = None
    of_ratio: bool = True

    def met(self, ours: float, ratio: float | None) -> bool:
        """Whether a result keeps to it."""
        value = ratio if self.of_ratio else ours
        if value is None:
            return True
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def text(self, unit: str) -> str:
        """Spell it: ``≥ 0.75 ×`` for a ratio, ``≤ 0.25 ms`` for a figure."""
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {number(bound or 0.0)} {'×' if self.of_ratio else unit}"


def ratio_at_least(value: float) -> Budget:
    """Budget of a speed: the ratio to the limit."""
    return Budget(at_least=value)


def ratio_at_most(value: float) -> Budget:
    """Budget of a time: the ratio to the limit."""
    return Budget(at_most=value)


def at_least(value: float) -> Budget:
    """Budget of the figure itself."""
    return Budget(at_least=value, of_ratio=False)


def at_most(value: float) -> Budget:
    """Budget of the figure itself."""
    return Budget(at_most=value, of_ratio=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One result; `limit` was taken in the same run, in the same `unit`."""

    name: str
    ours: float
    unit: str
    limit: float | None = None
    budget: Budget | None = None

    @property
    def ratio(self) -> float | None:
        """Ours in terms of the limit."""
        return self.ours / self.limit if self.limit else None

    @property
    def met(self) -> bool:
        """Whether the budget, if there is one, is kept."""
        return self.budget is None or self.budget.met(self.ours, self.ratio)

    def cells(self) -> tuple[str, ...]:
        """Text of each column; a budget that is missed is marked."""
        return (
            self.name,
            f"{number(self.ours)} {self.unit}",
            "" if self.limit is None else f"{number(self.limit)} {self.unit}",
            "" if self.ratio is None else number(self.ratio),
            "" if self.budget is None else self.budget.text(self.unit) + ("" if self.met else "  MISSED"),
        )


def number(value: float) -> str:
    """Three figures that mean something, no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(cells: Iterable[str]) -> str:
    """One line of the table."""
    return " | ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def heading() -> str:
    """First lines of the table."""
    return f"{line(HEADINGS)}\n{'-+-'.join('-' * width for width in WIDTHS)}"
