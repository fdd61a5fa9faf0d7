"""Multi-slice rows: many ranges of a contiguous dataset in one request, against numpy on a memory map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.crew import Crew
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Row, ratio_at_least

ROUNDS = 5
RANGES = 100_000
ITEMS = 64 << 20
LENGTH = 64  # elements of a range


def write(path: Path) -> None:
    """Write 256 MiB of contiguous numbers."""
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(ITEMS, dtype="<i4")


def starts() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where the ranges begin: ascending, not overlapping, as any server takes them."""
    places = np.sort(np.random.default_rng(1).choice(ITEMS // LENGTH, RANGES, replace=False))
    return places.astype(np.int64) * LENGTH


@dataclass
class ManyRanges:
    """Read the ranges: `how` is "slices", "index" or "numpy"."""

    how: str
    path: Path
    url: str = ""
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Open, read once, and check."""
        import ndstream

        ndstream.disable_progress(True)
        begins = starts()
        if self.how == "numpy":
            with h5py.File(self.path) as file:
                offset = file["data"].id.get_offset()
            self._state["data"] = np.memmap(self.path, "<i4", "r", offset, (ITEMS,))
        else:
            self._state["data"] = ndstream.open(self.url, self.path.name)["data"]
        self._state["slices"] = [np.s_[begin : begin + LENGTH] for begin in begins.tolist()]
        self._state["index"] = (begins[:, None] + np.arange(LENGTH)).reshape(-1)
        self._state["out"] = np.ones(RANGES * LENGTH, "<i4")
        self.run()
        if not np.array_equal(self._state["out"], self._state["index"]):
            raise ValueError("other values came")

    def run(self) -> None:
        """Read into the same array."""
        data, out = self._state["data"], self._state["out"]
        if self.how == "slices":
            data.request_slices(self._state["slices"], dest=out)
        elif self.how == "index":
            data.read_direct(out, self._state["index"])
        else:
            np.concatenate([data[part] for part in self._state["slices"]], out=out)


def multi_slice(site: Site) -> Iterator[Row]:
    """Read the ranges in both spellings."""
    path = site.file("slices.h5", write)
    with site.server() as server, Crew([ManyRanges("numpy", path)]) as local:
        for how, title in {"slices": "a list of slices", "index": "an index array"}.items():
            with Crew([ManyRanges(how, path, server.url)]) as ours:
                seconds = medians({"ours": ours.round, "numpy": local.round}, ROUNDS)
            speed = {name: RANGES * LENGTH * 4 / taken / 1e9 for name, taken in seconds.items()}
            title = f"multi-slice, {RANGES:,} ranges as {title}"
            yield Row(title, speed["ours"], "GB/s", speed["numpy"], ratio_at_least(0.3))
