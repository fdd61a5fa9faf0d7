"""Peers: the stock hdfstream client on our server, beside our own client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bulk import ROW
from benchmarks.bulk import write as write_bulk
from benchmarks.crew import Crew
from benchmarks.reading import RemoteRead
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.small import ROWS, OpenedRead
from benchmarks.small import write as write_small
from benchmarks.table import Row

ROUNDS = 5
TOTAL = 64 << 20
SMALL_READS = 300


@dataclass
class StockBulk:
    """Read rows into a warm array."""

    url: str
    file: str
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Open, and read once."""
        import hdfstream

        hdfstream.disable_progress(True)
        dataset = hdfstream.open(self.url, self.file, data_size_limit=0)["data"]
        self._state = {"dataset": dataset, "out": np.ones((TOTAL // ROW, ROW // 4), "<f4")}
        self.run()
        if self._state["out"][1, 1] != ROW // 4 + 1:
            raise ValueError("another value came")

    def run(self) -> None:
        """Read."""
        out = self._state["out"]
        self._state["dataset"].read_direct(out, np.s_[0 : len(out), :])


@dataclass
class StockSmall:
    """Read single rows, one after the other."""

    url: str
    file: str
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Open."""
        import hdfstream

        hdfstream.disable_progress(True)
        self._state["dataset"] = hdfstream.open(self.url, self.file, data_size_limit=0)["contiguous"]

    def run(self) -> NDArray[np.float64]:
        """Read; seconds that each took."""
        dataset, taken = self._state["dataset"], []
        for row in range(SMALL_READS):
            begin = time.perf_counter()
            dataset[row % ROWS]
            taken.append(time.perf_counter() - begin)
        return np.array(taken)


def peers(site: Site) -> Iterator[Row]:
    """Read with both clients."""
    bulk: Path = site.file("bulk.h5", write_bulk)
    small: Path = site.file("small.h5", write_small)
    with site.server() as server:
        stock_url = f"{server.url}/hdfstream"
        ours_task = RemoteRead(server.url, bulk.name, "data", bulk, (0, TOTAL // ROW))
        with Crew([ours_task]) as ours, Crew([StockBulk(stock_url, bulk.name)]) as stock:
            seconds = medians({"ours": ours.round, "stock": stock.round}, ROUNDS)
        speed = {name: TOTAL / taken / 1e9 for name, taken in seconds.items()}
        yield Row("peer, stock client: bulk contiguous", speed["ours"], "GB/s", speed["stock"])
        small_ours = OpenedRead(server.url, small.name, "contiguous")
        with Crew([small_ours]) as ours, Crew([StockSmall(stock_url, small.name)]) as stock:
            turns = {
                "ours": lambda: float(np.median(ours.results()[0])),
                "stock": lambda: float(np.median(stock.results()[0])),
            }
            seconds = medians(turns, ROUNDS)
        yield Row("peer, stock client: 4 KB contiguous, p50", seconds["ours"] * 1e3, "ms", seconds["stock"] * 1e3)
