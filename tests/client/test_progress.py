"""Progress is for people at a terminal, of transfers that take long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ndstream
from ndstream.client import progress


@pytest.fixture(autouse=True)
def _policy() -> Iterator[None]:
    yield
    ndstream.disable_progress(None)
    ndstream.set_progress_delay(2.0)


def test_without_a_terminal_nothing_is_watched() -> None:
    with progress.transfer("x", 10) as watch:
        assert watch is None


def test_progress_can_be_disabled_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_has_terminal", lambda: True)
    ndstream.disable_progress(True)
    with progress.transfer("x", 10) as watch:
        assert watch is None


def test_a_short_transfer_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    ndstream.disable_progress(False)
    with progress.transfer("x", 10) as watch:
        assert watch is not None
        watch(10)
    assert capsys.readouterr().err == ""


def test_a_long_transfer_shows_its_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    ndstream.disable_progress(False)
    ndstream.set_progress_delay(0)
    with progress.transfer("data [1]", 10) as watch:
        assert watch is not None
        watch(4)
        watch(6)
    assert "data" in capsys.readouterr().err


def test_a_transfer_inside_of_another_counts_for_it() -> None:
    ndstream.disable_progress(False)
    with progress.transfer("outer", 10) as outer, progress.transfer("inner", 5) as inner:
        assert inner is outer
