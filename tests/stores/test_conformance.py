"""The HDF5 store does what every store does, however its files are stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from ndstream.core.limits import Limits
from ndstream.core.ports import Store
from ndstream.stores.hdf5.store import HDF5Store
from ndstream.stores.memory import Tree
from ndstream.testing.stores import StoreSuite, write_tree


@pytest.mark.keeps_open("the worker processes that all tests of the suite share")
class TestContiguous(StoreSuite):
    @classmethod
    def make(cls, tree: Tree, place: Path, limits: Limits) -> Store:
        write_tree(tree, place)
        return HDF5Store({"": place}, limits=limits)


@pytest.mark.keeps_open("the worker processes that all tests of the suite share")
class TestCompressed(StoreSuite):
    @classmethod
    def make(cls, tree: Tree, place: Path, limits: Limits) -> Store:
        write_tree(tree, place, chunks=True, compression="gzip", shuffle=True, fletcher32=True)
        return HDF5Store({"": place}, limits=limits)
