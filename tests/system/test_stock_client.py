"""What users of the stock client do; `tests/protocols/hdfstream` has the walk of that client over a sample."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndstream.testing.fixtures import ServerFactory

from .conftest import KNOWN

PROGRAM = Path(__file__).with_name("stock.py")


@pytest.fixture(scope="module")
def found(known_tree: Path, ndstream_module_server: ServerFactory) -> dict[str, Any]:
    server = ndstream_module_server(known_tree)
    command = [sys.executable, str(PROGRAM), f"{server.url}/hdfstream"]
    result = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    seen: dict[str, Any] = pickle.loads(result.stdout)
    return seen


def test_directories_are_walked(found: dict[str, Any], known_tree: Path) -> None:
    seen = found["directories"]
    assert seen["names"] == ["below", "first.bin"]
    assert seen["directories"] == ["below"]
    modified = (known_tree / "first.bin").stat().st_mtime_ns // 1_000_000
    assert seen["files"] == {"first.bin": (5, "application/octet-stream", modified)}
    assert seen["below"] == ["deep", "notes.txt"]
    assert seen["same"]
    assert seen["is_hdf5"] == [True, False]
    assert seen["missing"] is False


def test_files_are_opened_as_text_and_as_bytes(found: dict[str, Any]) -> None:
    assert found["directories"]["text"] == ("größer\n", "größer\n".encode())


def test_slices_are_what_numpy_makes_of_them(found: dict[str, Any]) -> None:
    seen = found["slices"]
    direct = np.zeros((10, 3))
    direct[2:5] = KNOWN[4:7]
    wanted = {
        "whole": KNOWN,
        "row": KNOWN[3],
        "element": KNOWN[3, 1],
        "part": KNOWN[2:9, 1:],
        "index": KNOWN[[7, 3, 3, -1, 0]],
        "mask": KNOWN[2:5],
        "many": np.concatenate([KNOWN[0:2], KNOWN[5:6], KNOWN[50:60]]),
        "direct": direct,
        "chunked": KNOWN[1:4],
        "soft": KNOWN[0],
    }
    for name, values in wanted.items():
        assert np.array_equal(seen[name], values), name
    assert seen["visited"] == ["data", "group", "group/chunked", "soft"]
