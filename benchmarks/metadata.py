"""Metadata rows: a walk over many datasets with attributes, and the index of many chunks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import h5py

from benchmarks.crew import Crew
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Budget, Row, ratio_at_most

ROUNDS = 5
GROUPS, EACH = 100, 100
CHUNKS = 8192
MiB = 1 << 20


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
    """Walk over every dataset: shape, type and attributes; `data` bytes of each may come along."""

    directory: Path
    url: str | None
    data: int = 0
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
        for walk in self._walks(path):
            begin = time.perf_counter()
            seen = walk()
            taken.append(time.perf_counter() - begin)
            if seen != GROUPS * EACH:
                raise ValueError(f"{seen} datasets were seen")
        path.unlink()
        return taken

    def _walks(self, path: Path) -> Iterator[Callable[[], int]]:
        """The first walk; that of another client; that of the same one again."""
        import ndstream

        if self.url is None:
            with h5py.File(path) as file:
                yield lambda: _walk(file)
            return
        for _ in range(2):
            file = ndstream.open(self.url, path.name, data_size_limit=self.data)
            yield lambda: _walk(file.root)  # noqa: B023 - called before the next
        yield lambda: _walk(file.root)


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
        yield from _walks(site, server.url)
        remote_row, local_row = FirstRow(site.directory, server.url), FirstRow(site.directory, None)
        with Crew([remote_row]) as ours, Crew([local_row]) as h5py_row:
            turns = {"ours": lambda: float(ours.results()[0]), "h5py": lambda: float(h5py_row.results()[0])}
            seconds = medians(turns, ROUNDS)
        title = f"chunk index: open, first row of {CHUNKS:,} chunks"
        yield Row(title, seconds["ours"] * 1e3, "ms", seconds["h5py"] * 1e3, None)


def _walks(site: Site, url: str) -> Iterator[Row]:
    name = f"metadata of {GROUPS * EACH:,} datasets"
    yield from _walk_rows(name, Walk(site.directory, url), Walk(site.directory, None), ratio_at_most(1.2))
    yield from _walk_rows(f"{name} and data", Walk(site.directory, url, data=MiB), Walk(site.directory, None), None)


def _walk_rows(name: str, remote: Walk, local: Walk, budget: Budget | None) -> Iterator[Row]:
    later: list[list[float]] = []
    with Crew([remote]) as ours, Crew([local]) as h5py_walk:

        def first() -> float:
            seconds, *others = ours.results()[0]
            later.append(others)
            return float(seconds)

        seconds = medians({"ours": first, "h5py": lambda: float(h5py_walk.results()[0][0])}, ROUNDS)
    limit = seconds["h5py"] * 1e3
    another, again = (median(times) * 1e3 for times in zip(*later[1:], strict=True))
    yield Row(f"{name}, first walk", seconds["ours"] * 1e3, "ms", limit, budget)
    yield Row(f"{name}, another client", another, "ms", limit)
    yield Row(f"{name}, repeated", again, "ms", limit, ratio_at_most(0.1))
