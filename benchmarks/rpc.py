"""Framed TCP: 4 KB at a time, against asyncio and msgspec answering 4 KB from memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import msgspec
import numpy as np

from benchmarks.ceilings import SMALL, ceiling
from benchmarks.crew import Crew
from benchmarks.load import Load, frame_length
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Row, at_most, ratio_at_least
from ndstream.testing.fixtures import local_servers

ROUNDS = 5
REQUESTS = 8000
CLIENTS = 16
ROWS = 256

# The budgets were set as 0.2 ms and 15,000 a second, with a limit of 0.025 to 0.07 ms and 90,000 a second. The latency
# is budgeted as it is: a limit that differs by a factor of three between machines says little of it.
LATENCY, RATE = at_most(0.2), ratio_at_least(15_000 / 90_000)


def write(path: Path) -> None:
    """Write rows of 4 KB."""
    with h5py.File(path, "w") as file:
        for row in range(ROWS):
            file[f"rows/{row}"] = np.full(SMALL // 4, row, "<i4")


def rpc(site: Site) -> Iterator[Row]:
    """Read with one client and with 16, each request sent when the reply to the one before is there."""
    path = site.file("rpc.h5", write)
    asked = []
    for row in range(ROWS):
        body = msgspec.msgpack.encode({"command": "read", "path": f"/rows/{row}"})
        asked.append(len(body).to_bytes(4, "big") + body)
    with ceiling("frames") as port, local_servers() as start:
        server = start(path, writable={"/": []}, rpc={"port": 0})
        each = REQUESTS // 8
        loads = {
            "ours": Load(server.streams["rpc"], asked, 1, each, frame_length),
            "limit": Load(port, asked, 1, each, frame_length),
        }
        with Crew([loads["ours"]]) as ours, Crew([loads["limit"]]) as limit:
            seconds = medians(
                {
                    "ours": lambda: float(np.median(ours.results()[0])),
                    "limit": lambda: float(np.median(limit.results()[0])),
                },
                ROUNDS,
            )
        yield Row("framed TCP, 4 KB, p50", seconds["ours"] * 1e3, "ms", seconds["limit"] * 1e3, LATENCY)
        each = REQUESTS // CLIENTS
        loads = {
            "ours": Load(server.streams["rpc"], asked, CLIENTS, each, frame_length),
            "limit": Load(port, asked, CLIENTS, each, frame_length),
        }
        with Crew([loads["ours"]]) as ours, Crew([loads["limit"]]) as limit:
            seconds = medians({"ours": ours.round, "limit": limit.round}, ROUNDS)
        name = f"framed TCP, 4 KB, {CLIENTS} clients"
        yield Row(name, REQUESTS / seconds["ours"], "/s", REQUESTS / seconds["limit"], RATE)
