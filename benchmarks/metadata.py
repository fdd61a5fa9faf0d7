"""Metadata rows: a walk over many datasets with attributes, and the index of many chunks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import h5py

from benchmarks.crew import Crew
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Row, ratio_at_most

ROUNDS = 5
GROUPS, EACH = 100, 100
CHUNKS = 8192


def write(path: Path) -> None:
    """Write groups of datasets with two attributes each, and a dataset of many chunks."""
    with h5py.File(path, "w") as file:
        for group in range(GROUPS):
            for number in range(EACH):
                dataset = file.create_dataset(f"group {group}/dataset {number}", (100, 3), "<f4")
                dataset.attrs["unit"] = "m/s"
                dataset.attrs["scale"] = 1.5


def write_chunks(path: Path) -> None:
    """Write a dataset of many chunks."""
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (CHUNKS, 64), "<f4", chunks=(1, 64), compression="gzip")[...] = 1


@dataclass
class Walk:
    """Walk over every dataset: shape, type and attributes. Each copy of the file is walked over `times` times."""

    directory: Path
    url: str | None
    times: int
    _copies: Iterator[int] = field(default_factory=count)

    def prepare(self) -> None:
        """Load what is needed."""
        import ndstream

        ndstream.disable_progress(True)

    def run(self) -> list[float]:
        """Walk over a new copy; seconds that each time took."""
        import time

        # Nobody has looked into this copy yet: neither the server nor the library knows anything of it.
        path = self.directory / f"walk {'remote' if self.url else 'local'} {next(self._copies)}.h5"
        shutil.copyfile(self.directory / "metadata.h5", path)
        taken = []
        for _ in range(self.times):
            begin = time.perf_counter()
            seen = self._walk(path)
            taken.append(time.perf_counter() - begin)
            if seen != GROUPS * EACH:
                raise ValueError(f"{seen} datasets were seen")
        path.unlink()
        return taken

    def _walk(self, path: Path) -> int:
        import ndstream

        if self.url is None:
            with h5py.File(path) as file:
                return _walk(file)
        return _walk(ndstream.open(self.url, path.name).root)


def _walk(root: Any) -> int:
    seen = 0
    for group in root.values():
        for dataset in group.values():
            if dataset.shape == (100, 3) and dataset.dtype == "f4" and len(dict(dataset.attrs)) == 2:
                seen += 1
    return seen


@dataclass
class FirstRow:
    """Read one row of a dataset of many chunks in a file that nobody has looked into."""

    directory: Path
    url: str | None
    _copies: Iterator[int] = field(default_factory=count)

    def prepare(self) -> None:
        """Load what is needed."""
        import ndstream

        ndstream.disable_progress(True)

    def run(self) -> float:
        """Open and read; seconds it took."""
        import time

        import ndstream

        path = self.directory / f"chunks {'remote' if self.url else 'local'} {next(self._copies)}.h5"
        shutil.copyfile(self.directory / "many.h5", path)
        begin = time.perf_counter()
        if self.url is None:
            with h5py.File(path) as file:
                dataset = file["data"]
                found: list[Any] = []
                dataset.id.chunk_iter(found.append)
                row = dataset[17]
        else:
            row = ndstream.open(self.url, path.name, data_size_limit=0)["data"][17]
        seconds = time.perf_counter() - begin
        if not (row == 1).all():
            raise ValueError("other values came")
        path.unlink()
        return seconds


def metadata(site: Site) -> Iterator[Row]:
    """Walk first and again; index chunks."""
    site.file("metadata.h5", write)
    site.file("many.h5", write_chunks)
    with site.server() as server:
        remote, local = Walk(site.directory, server.url, 2), Walk(site.directory, None, 1)
        with Crew([remote]) as ours, Crew([local]) as h5py_walk:
            again: list[float] = []

            def turn() -> float:
                first, second = ours.results()[0]
                again.append(second)
                return float(first)

            seconds = medians({"ours": turn, "h5py": lambda: float(h5py_walk.results()[0][0])}, ROUNDS)
        name = f"metadata of {GROUPS * EACH:,} datasets"
        repeated = sorted(again[1:])[len(again[1:]) // 2]
        yield Row(f"{name}, first walk", seconds["ours"] * 1e3, "ms", seconds["h5py"] * 1e3, ratio_at_most(1.2))
        yield Row(f"{name}, another client", repeated * 1e3, "ms", seconds["h5py"] * 1e3, ratio_at_most(0.1))
        remote_row, local_row = FirstRow(site.directory, server.url), FirstRow(site.directory, None)
        with Crew([remote_row]) as ours, Crew([local_row]) as h5py_row:
            turns = {"ours": lambda: float(ours.results()[0]), "h5py": lambda: float(h5py_row.results()[0])}
            seconds = medians(turns, ROUNDS)
        title = f"chunk index: open, first row of {CHUNKS:,} chunks"
        yield Row(title, seconds["ours"] * 1e3, "ms", seconds["h5py"] * 1e3, None)
