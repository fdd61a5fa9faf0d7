"""The examples in the documentation say what happens."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from ndstream.core.selection import normalise, text


@pytest.mark.parametrize("module", [normalise, text], ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried
