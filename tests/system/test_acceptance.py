"""The table of the acceptance list names tests that exist, for every item."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
ROWS = re.findall(r"^\| (\d+) \|[^|]*\| (.*) \|$", (HERE / "ACCEPTANCE.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_item_is_there_once() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 26))


def test_every_test_that_is_named_exists() -> None:
    for number, cell in ROWS:
        named = re.findall(r"`([^`]+)`", cell)
        assert named, number
        for path, _, name in (each.partition("::") for each in named):
            text = (TESTS / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{number}: {path}::{name}"
