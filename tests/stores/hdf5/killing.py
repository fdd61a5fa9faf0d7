"""Kill a process that writes at each of its calls, and look at what it left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
from tests.stores.hdf5.workload import Expected, Version, dying, state_of

from ndstream.stores.hdf5.disk import DiskFile
from ndstream.stores.hdf5.journal import recover


def check(path: Path, acknowledged: int, expected: Expected, disk: type[DiskFile] = DiskFile) -> int:
    """Recover a file, and find every acknowledged step in it, and no half of another; returns how many steps.

    Raises
    ------
    AssertionError
    """
    recover(path, disk=disk)
    if not path.exists() or not path.stat().st_size:
        assert not acknowledged
        return 0
    with h5py.File(path) as file:
        found = int(file.attrs.get("step", 0))
        assert acknowledged <= found <= acknowledged + 1
        assert state_of(file) == expected.state(found)
    return found


def kill_everywhere(folder: Path, version: Version, steps: int) -> int:
    """Kill the same work at each of the calls that it makes, before it and in the middle of it; returns how many."""
    subprocess.run([sys.executable, "-m", "tests.stores.hdf5.workload", str(folder), version, str(steps)], check=True)
    expected = Expected(version)
    deaths = sorted(folder.iterdir())
    for death in deaths:
        acknowledged = (death / "acknowledged").read_text().split()
        check(death / "f.h5", int(acknowledged[-1]) if acknowledged else 0, expected, dying(0))
    expected.close()
    return len(deaths)
