"""The registry finds plugins by name and says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ndstream.core import registry
from ndstream.errors import InvalidRequest, MissingExtra

DISTRIBUTION = """\
[ndstream.stores]
solid = {package}.solid:STORE
picky = {package}.picky:STORE [s3,dask]
bare = {package}.picky:STORE
broken = {package}.broken:STORE [s3]
"""


@pytest.fixture
def outsider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a distribution with four stores on the path; returns the name of its package."""
    package = "outsider_" + tmp_path.name.replace("-", "_")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / "solid.py").write_text("STORE = 'solid as a rock'\n")
    (tmp_path / package / "picky.py").write_text("import a_module_nobody_has\n")
    (tmp_path / package / "broken.py").write_text(f"import {package}.misspelt\n")
    metadata = tmp_path / "outsider-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(DISTRIBUTION.format(package=package))
    monkeypatch.syspath_prepend(str(tmp_path))
    return package


def test_the_built_in_stores_use_entry_points_like_outsiders(outsider: str) -> None:
    assert {"hdf5", "memory", "solid", "picky"} <= set(registry.names(registry.STORES))
    assert registry.load(registry.STORES, "solid") == "solid as a rock"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"no store is called 'hdf6'; known: .*hdf5, memory"):
        registry.load(registry.STORES, "hdf6")


def test_an_empty_group_says_that_nothing_is_installed() -> None:
    with pytest.raises(InvalidRequest, match=r"no thing is called 'x'; known: none is installed"):
        registry.load("ndstream.things", "x")


def test_a_missing_extra_says_what_to_install(outsider: str) -> None:
    with pytest.raises(MissingExtra) as caught:
        registry.load(registry.STORES, "picky")
    assert str(caught.value) == "the store 'picky' needs the 's3,dask' extra: pip install 'outsider[s3,dask]'"


def test_a_missing_module_without_an_extra_is_named(outsider: str) -> None:
    with pytest.raises(MissingExtra, match="the store 'bare' needs the module 'a_module_nobody_has'"):
        registry.load(registry.STORES, "bare")


def test_a_fault_inside_a_plugin_is_not_taken_for_a_missing_extra(outsider: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="misspelt"):
        registry.load(registry.STORES, "broken")


def test_what_is_registered_in_the_process_comes_first_until_undone() -> None:
    undo_first = registry.register("ndstream.things", "x", 1)
    undo_second = registry.register("ndstream.things", "x", 2)
    assert registry.load("ndstream.things", "x") == 2
    undo_second()
    assert registry.load("ndstream.things", "x") == 1
    assert registry.names("ndstream.things") == ("x",)
    undo_first()
    assert registry.names("ndstream.things") == ()


def test_importing_the_registry_loads_no_plugin() -> None:
    program = (
        "import sys, ndstream.core.registry\n"
        "assert not {'h5py', 'numpy', 'starlette', 'ndstream.stores'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
