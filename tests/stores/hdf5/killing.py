"""Kill a process that writes, again and again, and look at what it left."""

from __future__ import annotations

import os
import random
import select
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


def kill_at_random(folder: Path, version: Version, times: int, seed: int = 0) -> int:
    """Let one process after the other go on with a file, each until it is killed at a random moment.

    Returns
    -------
    int
        Steps that were made; each of them was a commit.
    """
    chance = random.Random(seed)
    expected = Expected(version)
    path = folder / "f.h5"
    number = 0
    for _ in range(times):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.stores.hdf5.workload", str(path), version, "forever"], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            target = number + chance.randrange(1, 12)
            told = b""
            while not told.endswith(b"\n%d\n" % target) and told != b"%d\n" % target:
                piece = os.read(process.stdout.fileno(), 1)
                assert piece, "the process ended by itself"
                told += piece
            # Somewhere within what comes next: it takes a few milliseconds.
            select.select([], [], [], chance.random() * 0.01)
            process.kill()
            told += process.stdout.read()
        number = check(path, int(told.split()[-1]), expected)
    expected.close()
    return number


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
