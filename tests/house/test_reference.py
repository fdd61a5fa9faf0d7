"""Everything that a user can name has its place in the reference."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ndstream
from ndstream import errors
from ndstream.cli.main import app

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def _classes(base: type[errors.NDStreamError]) -> Iterator[type[errors.NDStreamError]]:
    yield base
    for sub in base.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from _classes(sub)


def _commands(group: Any, path: str = "ndstream") -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")


COMMANDS = dict(_commands(typer.main.get_command(app)))


def test_every_error_code_is_explained() -> None:
    table = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \| (.*?) \|", (REFERENCE / "errors.md").read_text(), re.MULTILINE)
    assert [(code, name) for code, name, _ in table] == [
        (cls.code, cls.__name__) for cls in _classes(errors.NDStreamError)
    ]


@pytest.mark.parametrize("cls", list(_classes(errors.NDStreamError)), ids=lambda cls: cls.code)
def test_the_builtins_that_an_error_is_are_told(cls: type[errors.NDStreamError]) -> None:
    row = re.search(rf"^\| `{cls.code}` .*$", (REFERENCE / "errors.md").read_text(), re.MULTILINE)
    assert row is not None
    for name in re.findall(r"`(\w+)`", row[0].split("|")[3]):
        assert issubclass(cls, getattr(builtins, name))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained(name: str) -> None:
    page = (REFERENCE / "command-line.md").read_text()
    section = re.search(rf"^#+ `{re.escape(name)}\b.*?(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, f"no section for {name}"
    options = [option for param in COMMANDS[name].params for option in param.opts if option.startswith("-")]
    assert [option for option in options if option != "--help" and f"`{option}" not in section[0]] == []


def test_no_command_is_explained_that_does_not_exist() -> None:
    page = (REFERENCE / "command-line.md").read_text()
    named = re.findall(r"^#+ `(ndstream(?: [a-z]+)+)", page, re.MULTILINE)
    assert set(named) == set(COMMANDS)


def test_every_public_name_is_explained() -> None:
    page = (REFERENCE / "python.md").read_text()
    assert [name for name in ndstream.__all__ if f"ndstream.{name}" not in page] == []
