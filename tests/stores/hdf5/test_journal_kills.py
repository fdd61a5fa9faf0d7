"""A process that writes through a journal is killed: every acknowledged commit is there, and no half of another."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from tests.stores.hdf5.crashing import MEMORY
from tests.stores.hdf5.killing import kill_everywhere
from tests.stores.hdf5.workload import Version


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_at_each_of_its_calls(version: Version) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        assert kill_everywhere(Path(folder), version, 5) > 80
