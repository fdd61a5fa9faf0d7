"""Losses in numbered messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core.gaps import Gaps, Irregularity
from ndstream.core.packets import Position


def item(number: int | None, series: Any = None, counter: str = "frame") -> Position:
    return Position(counter=counter, number=number, series=series)


def start(series: Any, expected: int | None = None) -> Position:
    return Position(counter="frame", series=series, event="start", expected=expected)


def end(series: Any) -> Position:
    return Position(counter="frame", series=series, event="end")


def kinds(gaps: Gaps, numbers: Iterable[int], series: Any = None) -> list[str | None]:
    return [None if found is None else found.kind for found in (gaps.see(item(number, series)) for number in numbers)]


def test_what_follows_is_no_news() -> None:
    gaps = Gaps()
    assert kinds(gaps, range(5, 100)) == [None] * 95
    assert (gaps.gaps, gaps.repeats, gaps.reversals, gaps.missing) == (0, 0, 0, 0)
    (series,) = gaps
    assert (series.received, series.expected, series.complete, series.holes) == (95, None, False, ())


def test_a_gap_says_how_many_are_lacking() -> None:
    gaps = Gaps()
    gaps.see(item(3))
    assert gaps.see(item(6)) == Irregularity(kind="gap", counter="frame", series=None, number=6, missing=2)
    assert (gaps.gaps, gaps.missing) == (1, 2)
    assert next(iter(gaps)).holes == (range(4, 6),)


def test_what_comes_late_is_missing_no_more() -> None:
    gaps = Gaps()
    assert kinds(gaps, [0, 5, 3, 1, 4, 2, 2, 6]) == [None, "gap", *["reversal"] * 4, "repeat", None]
    assert (gaps.gaps, gaps.reversals, gaps.repeats, gaps.missing) == (1, 4, 1, 0)


def test_repeats() -> None:
    gaps = Gaps()
    assert kinds(gaps, [7, 7, 8, 7, 9]) == [None, "repeat", None, "repeat", None]
    assert gaps.repeats == 2


@pytest.mark.parametrize("numbers", [[0, 1, 2, 0, 1, 2], [5000, 5001, 20, 21], [100, 101, 0, 1]])
def test_a_sender_that_begins_again_is_one_reversal(numbers: list[int]) -> None:
    gaps = Gaps()
    assert [kind for kind in kinds(gaps, numbers) if kind] == ["reversal"]
    assert gaps.missing == 0


def test_what_was_missing_stays_so_when_the_sender_begins_again() -> None:
    gaps = Gaps()
    assert kinds(gaps, [0, 3, 0, 1, 3]) == [None, "gap", "reversal", None, "gap"]
    assert gaps.missing == 3


def test_the_first_messages_may_be_out_of_order() -> None:
    gaps = Gaps()
    assert kinds(gaps, [4, 2, 3, 5]) == [None, "reversal", "reversal", None]
    assert gaps.missing == 0


def test_each_series_and_each_counter_is_counted_for_itself() -> None:
    gaps = Gaps()
    for number in range(3):
        assert gaps.see(item(number, "a")) is gaps.see(item(number, "b")) is None
        assert gaps.see(item(number + 100, None, "pulse_id")) is None
    assert [(series.name, series.counter, series.received) for series in gaps] == [
        ("a", "frame", 3), ("b", "frame", 3), (None, "pulse_id", 3)
    ]  # fmt: skip


def test_a_series_that_began_is_counted_from_nought_to_what_is_expected() -> None:
    gaps = Gaps()
    assert gaps.see(start(1, 5)) is None
    assert kinds(gaps, [1, 3], 1) == ["gap", "gap"]
    (series,) = gaps
    assert (series.expected, series.received, series.missing, series.complete) == (5, 2, 2, False)
    assert gaps.see(end(1)) is None
    assert (series.ended, series.missing) == (True, 3)
    assert kinds(gaps, [4, 0, 2], 1) == [None, "reversal", "reversal"]
    assert (series.missing, series.complete, series.received) == (0, True, 5)


def test_a_start_that_was_overtaken_counts_from_nought_too() -> None:
    gaps = Gaps()
    assert kinds(gaps, [2, 3], 1) == [None, None]
    gaps.see(start(1, 4))
    assert gaps.missing == 2
    assert kinds(gaps, [0, 1], 1) == ["reversal", "reversal"]
    assert gaps.missing == 0


def test_nought_again_in_a_series_with_a_name_is_a_repeat() -> None:
    assert kinds(Gaps(), [0, 1, 0, 2], "a") == [None, None, "repeat", None]


def test_a_name_that_is_used_again_begins_anew() -> None:
    gaps = Gaps()
    for position in (start(1, 2), item(0, 1), end(1), start(1, 2), item(0, 1), item(1, 1)):
        assert gaps.see(position) is None
    assert gaps.missing == 1
    assert [series.complete for series in gaps] == [True]


def test_messages_without_a_number_are_not_counted() -> None:
    gaps = Gaps()
    assert gaps.see(None) is gaps.see(item(None)) is None
    assert sum(series.received for series in gaps) == 0


def test_numbers_may_grow_in_steps() -> None:
    gaps = Gaps(step=10)
    found = [gaps.see(item(number)) for number in (105, 115, 145, 135, 125, 155)]
    assert [irregularity and (irregularity.kind, irregularity.missing) for irregularity in found] == [
        None, None, ("gap", 2), ("reversal", 0), ("reversal", 0), None
    ]  # fmt: skip
    assert gaps.missing == 0
    with pytest.raises(ValueError, match="grow by 0"):
        Gaps(step=0)


def test_memory_is_bounded_and_totals_stay_right() -> None:
    gaps = Gaps()
    assert set(kinds(gaps, range(0, 20_000, 4))) == {None, "gap"}
    for name in range(1000):
        kinds(gaps, [0, 3], str(name))
    assert gaps.missing == 4999 * 3 + 1000 * 2
    assert len(list(gaps)) == 64
    assert all(len(series.holes) <= 1024 for series in gaps)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_account_is_that_of_a_set_of_numbers(numbers: list[int]) -> None:
    gaps = Gaps()
    gaps.see(start("a"))
    seen: set[int] = set()
    for number in numbers:
        found = gaps.see(item(number, "a"))
        highest = max(seen, default=-1)
        if number in seen:
            assert found is not None and found.kind == "repeat"
        elif number < highest:
            assert found is not None and found.kind == "reversal"
        else:
            assert (found.missing if found else 0) == number - highest - 1
        seen.add(number)
        assert gaps.missing == len(set(range(max(seen))) - seen)
        (series,) = gaps
        assert series.received == len(seen)
        assert {missing for hole in series.holes for missing in hole} == set(range(max(seen))) - seen
    assert gaps.repeats == len(numbers) - len(seen)
