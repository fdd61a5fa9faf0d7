"""The tables of the acceptance lists name tests that exist, for every item."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLES = {"system/ACCEPTANCE.md": [*range(1, 26)], "protocols/htype/ACCEPTANCE.md": [*range(1, 25)]}


def rows(table: str) -> list[tuple[str, str]]:
    text = (TESTS / table).read_text(encoding="utf-8")
    return re.findall(r"^\| (\d+) \|[^|]*\| (.*) \|$", text, re.MULTILINE)


@pytest.mark.parametrize("table", TABLES)
def test_every_item_is_there_once(table: str) -> None:
    assert [int(number) for number, _ in rows(table)] == TABLES[table]


@pytest.mark.parametrize("table", TABLES)
def test_every_test_that_is_named_exists(table: str) -> None:
    for number, cell in rows(table):
        named = re.findall(r"`([^`]+)`", cell)
        assert named, number
        for path, _, name in (each.partition("::") for each in named):
            text = (TESTS / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{number}: {path}::{name}"
