"""The reference store does what every store does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from ndstream.core import registry
from ndstream.core.limits import Limits
from ndstream.core.model import Directory
from ndstream.core.ports import ANYBODY, Store
from ndstream.errors import ConfigError, DataError
from ndstream.stores.memory import Array, Group, MemoryStore, Tree
from ndstream.testing.stores import StoreSuite


@pytest.mark.keeps_open("the event loop that all tests of the suite share")
class TestMemoryStore(StoreSuite):
    @classmethod
    def make(cls, tree: Tree, place: Path, limits: Limits) -> Store:
        return MemoryStore(tree, limits=limits)


def test_the_registry_makes_an_empty_one() -> None:
    store = registry.load(registry.STORES, "memory")({})
    root = asyncio.run(store.lookup("", ANYBODY))
    assert isinstance(root, Directory)
    assert (root.files, root.directories) == ({}, {})


def test_it_serves_nothing_from_disk(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="serves nothing from disk"):
        registry.load(registry.STORES, "memory")({"": tmp_path})


def test_arrays_have_no_bytes_to_download() -> None:
    store = MemoryStore({"x.h5": Group({"x": Array(np.arange(3))})})
    with pytest.raises(DataError, match="has no bytes"):
        asyncio.run(store.open("x.h5", ANYBODY))
