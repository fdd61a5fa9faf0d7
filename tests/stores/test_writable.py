"""The stores that are written to do what every such store does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ndstream.core.ports import Writing
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.stores.memory import MemoryStore
from ndstream.testing.writable import WritableStoreSuite


class TestMemory(WritableStoreSuite):
    def make(self, place: Path) -> Any:
        return MemoryStore({"runs": {}})


class TestHDF5(WritableStoreSuite):
    def make(self, place: Path) -> Any:
        return HDF5Store({"": place}, writing=Writing(durability="flush"))
