"""The tables of the acceptance lists name tests that exist, for every item."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Table to the number of items of its list.
TABLES = {"system/ACCEPTANCE.md": 25, "protocols/rpc/ACCEPTANCE.md": 27}


def rows(table: str) -> list[tuple[str, str]]:
    return re.findall(r"^\| (\d+) \|[^|]*\| (.*) \|$", (TESTS / table).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("table", TABLES)
def test_every_item_is_there_once(table: str) -> None:
    assert [int(number) for number, _ in rows(table)] == list(range(1, TABLES[table] + 1))


@pytest.mark.parametrize("table", TABLES)
def test_every_test_that_is_named_exists(table: str) -> None:
    for number, cell in rows(table):
        named = re.findall(r"`([^`]+)`", cell)
        assert named, number
        for path, _, name in (each.partition("::") for each in named):
            text = (TESTS / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{number}: {path}::{name}"
