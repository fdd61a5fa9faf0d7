"""The main job: a served tree, read over a real socket by another process, is what h5py reads from the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ndstream.testing.fixtures import ServerFactory
from ndstream.testing.sample import write_sample

PROGRAM = Path(__file__).with_name("compare.py")
SIMULATIONS = Path(__file__).parents[3] / "shared" / "data" / "simulations"  # beside the repository, where it is made


def compare(url: str, directory: Path) -> dict[str, int]:
    """Run the comparison in a process of its own; returns how many things of each kind were compared."""
    environment = {**os.environ, "HDF5_EXTFILE_PREFIX": "${ORIGIN}"}  # external storage lies beside its file
    command = [sys.executable, str(PROGRAM), url, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    counts: dict[str, int] = json.loads(result.stdout)
    return counts


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "served"
    (root / "below" / "empty").mkdir(parents=True)
    write_sample(root / "oldest.h5")
    write_sample(root / "below" / "newest.hdf5", libver="latest")
    (root / "below" / "README").write_text("größe\n", encoding="utf-8")
    (root / "below" / "größe 100%.txt").write_bytes(bytes(range(256)))
    return root


@pytest.mark.parametrize("protocol", ["", "/hdfstream"], ids=["as negotiated", "hdfstream"])
def test_everything_in_a_sample_of_everything_is_what_h5py_reads(
    tree: Path, ndstream_server: ServerFactory, protocol: str
) -> None:
    counts = compare(ndstream_server(tree).url + protocol, tree)
    assert counts["value"] > 300
    assert counts["attribute"] > 300
    assert counts["link"] > 500


@pytest.mark.skipif(not SIMULATIONS.is_dir(), reason="the sample of real simulations is not here")
def test_real_simulations_are_what_h5py_reads(ndstream_server: ServerFactory) -> None:
    counts = compare(f"{ndstream_server(SIMULATIONS).url}/hdfstream", SIMULATIONS)
    assert counts["file size"] > 30
    assert counts["value"] > 200
    assert counts["attribute"] > 3000
