"""The promise of the journal, at length: a server that writes is killed some hundred times."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.served import Site
from benchmarks.table import Row, at_least, at_most
from ndstream.testing.killing import Killer

KILLS = 300


def kills(site: Site) -> Iterator[Row]:
    """Kill servers under a mix of all operations, look at every file with plain h5py."""
    begin = time.perf_counter()
    folder = site.directory / "kills"
    folder.mkdir()
    killer = Killer(folder, seed=int(begin))
    while killer.findings.kills < KILLS:
        killer.kill()
    findings = killer.findings
    yield Row("kill -9 of a writing server: kills", findings.kills, "", None, at_least(KILLS))
    yield Row("kill -9: batches acknowledged", findings.acknowledged, "", None, at_least(KILLS))
    yield Row("kill -9: acknowledged batches lost", findings.lost, "", None, at_most(0))
    yield Row("kill -9: files with half a batch", findings.halves, "", None, at_most(0))
    yield Row("kill -9: files that h5py cannot read whole", findings.unreadable, "", None, at_most(0))
    yield Row("kill -9: time for each", (time.perf_counter() - begin) / KILLS, "s")
    for what in findings.details:
        print(f"    {what}", flush=True)
