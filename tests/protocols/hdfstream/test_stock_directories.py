"""The stock client browses directories and selects, in a process of its own, against a real server."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ndstream.testing.fixtures import ServerFactory

PROGRAM = Path(__file__).with_name("stock_directories.py")
VALUES = np.arange(24, dtype=">f8").reshape(8, 3)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    (root / "made" / "deep" / "deeper").mkdir(parents=True)
    with h5py.File(root / "made" / "deep" / "data.hdf5", "w") as file:
        file.create_dataset("group/values", data=VALUES, chunks=(3, 2), compression="gzip")
    (root / "made" / "README").write_text("größer", encoding="utf-8")
    (root / "made" / "deep" / "deeper" / "settings.yml").write_text("a: 1\n")
    (root / "made" / "empty.bin").touch()
    return root


@pytest.fixture(scope="module")
def result(tree: Path, ndstream_module_server: ServerFactory) -> Any:
    url = f"{ndstream_module_server(tree).url}/hdfstream"
    command = [sys.executable, str(PROGRAM), url, "made", "made/deep/data.hdf5", "group/values"]
    return pickle.loads(subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True).stdout)


def test_directories_and_files_are_those_on_disk(result: Any, tree: Path) -> None:
    found = [tree / "made", *(tree / "made").rglob("*")]
    assert set(result["tree"]) == {str(path.relative_to(tree)) for path in found}
    for path in found:
        seen = result["tree"][str(path.relative_to(tree))]
        if path.is_dir():
            below = [each for each in path.rglob("*") if each.is_file()]
            assert seen["size"] == sum(each.stat().st_size for each in below)
            assert seen["entries"] == sorted(each.name for each in path.iterdir())
        else:
            status = path.stat()
            assert (seen["size"], seen["last_modified"]) == (status.st_size, status.st_mtime_ns // 1_000_000)
            assert seen["hdf5"] == (path.suffix == ".hdf5")
    assert result["tree"]["made/deep/deeper/settings.yml"]["media_type"] == "application/yaml"


def test_text_is_opened_as_text(result: Any) -> None:
    assert result["text"] == "größer"


def test_selections_are_those_of_numpy(result: Any) -> None:
    wanted = {
        "list": VALUES[[5, 0, 5, -1]],
        "mask": VALUES[[2, 5]],
        "ellipsis": VALUES[..., 1],
        "several": VALUES[[0, 1, 4, 5]],
        "direct": VALUES[3:5],
    }
    for name, values in wanted.items():
        np.testing.assert_array_equal(result["selections"][name], values, err_msg=name)


def test_refusals_are_the_errors_that_it_knows(result: Any) -> None:
    assert result["missing"].startswith("KeyError")
    assert result["wrong password"].startswith("HDFStreamRequestError")
