"""Bulk rows: contiguous data over HTTP into a warm array, against a bare socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from benchmarks.ceilings import ceiling
from benchmarks.crew import Crew
from benchmarks.machine import cpu_seconds, forget_peak, memory, peak_memory
from benchmarks.reading import RawRead, RemoteRead
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Row, at_most, ratio_at_least

ROUNDS = 7
EACH = {1: 256 << 20, 4: 128 << 20, 16: 64 << 20}  # bytes that each of so many clients reads
ROW = 1 << 20  # bytes of a row of the dataset
CPU = at_most(0.35)
RATIO = ratio_at_least(0.75)


def write(path: Path) -> None:
    """Write 256 MiB of contiguous floats."""
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(max(EACH.values()) // 4, dtype="<f4").reshape(-1, ROW // 4)


def bulk(site: Site) -> Iterator[Row]:
    """Read with 1, 4 and 16 clients."""
    path = site.file("bulk.h5", write)
    with ceiling("raw") as port, site.server() as server:
        pid = server.process.pid
        for clients, each in EACH.items():
            total = clients * each
            reads = [RemoteRead(server.url, path.name, "data", path, (0, each // ROW)) for _ in range(clients)]
            with Crew(reads) as ours, Crew([RawRead(port, each)] * clients) as raw:
                idle = memory(pid)
                forget_peak(pid)
                used: list[float] = []

                def turn(ours: Crew = ours, used: list[float] = used, total: int = total) -> float:
                    before = cpu_seconds(pid)
                    seconds = ours.round()
                    used.append((cpu_seconds(pid) - before) / total * 1e9)
                    return seconds

                seconds = medians({"ours": turn, "raw": raw.round}, ROUNDS)
            name = f"bulk contiguous, {clients} client{'s' * (clients > 1)}"
            yield Row(name, total / seconds["ours"] / 1e9, "GB/s", total / seconds["raw"] / 1e9, RATIO)
            yield Row(f"{name}: server CPU", float(np.median(used)), "s/GB", None, CPU)
            growth = (peak_memory(pid) - idle) / 2**20
            yield Row(f"{name}: server memory over idle", growth, "MiB", None, at_most(256))
