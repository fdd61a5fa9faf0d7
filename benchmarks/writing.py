"""Writing rows: durable appends, compressed data, and how soon others hear of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.crew import Crew
from benchmarks.load import Load
from benchmarks.rounds import medians
from benchmarks.served import Site
from benchmarks.table import Row, at_most, ratio_at_least
from ndstream.core.dtypes import from_numpy
from ndstream.core.operations import Append, Payload
from ndstream.protocols.native.messages import Batch
from ndstream.testing.fixtures import local_servers

ROUNDS = 5
# The budgets were set as 500 rows a second of one client and 5,000 of 16, with a limit of 6,000. Disks differ.
ALONE, TOGETHER = ratio_at_least(500 / 6000), ratio_at_least(5000 / 6000)
ROW = 4096
CLIENTS = 16
ROWS = 1600  # of one round
FRAMES = (64, 512, 512)  # float32: chunks of 1 MiB
EVENTS = 300
LONG = 50_000  # chunks of a dataset that grows for long


def writing(site: Site) -> Iterator[Row]:
    """Append rows with one client and with 16; write compressed; follow."""
    folder = site.directory / "writing"
    folder.mkdir()
    with h5py.File(folder / "rows.h5", "w", libver="latest") as file:
        file.create_dataset("rows", (0, ROW // 4), "<i4", maxshape=(None, ROW // 4), chunks=(16, ROW // 4))
    with local_servers() as start:
        server = start(folder, writable={"/": []})
        yield from _rows(server.port, folder)
        yield _opened(server.url, folder)
        yield _compressed(server.url, folder)
        yield from _events(server.url)


def _rows(port: int, folder: Path) -> Iterator[Row]:
    payload = Payload(dtype=from_numpy(np.dtype("<i4")), shape=(1, ROW // 4), data=bytes(ROW))
    body = msgspec.msgpack.encode(Batch(operations=(Append(name="/rows", data=payload),)))
    head = (
        "POST /v1/write/rows.h5 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-msgpack\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    request = [head.encode() + body]
    for clients, rows, budget in ((1, ROWS // 4, ALONE), (CLIENTS, ROWS, TOGETHER)):
        with Crew([Load(port, request, clients, rows // clients)]) as ours, Crew([RawAppend(folder, rows)]) as raw:
            seconds = medians({"ours": ours.round, "limit": raw.round}, ROUNDS)
        name = f"write durable 4 KB rows, {clients} client{'s' * (clients > 1)}"
        yield Row(name, rows / seconds["ours"], "/s", rows / seconds["limit"], budget)


def _opened(url: str, folder: Path) -> Row:
    rows = ROWS // 4
    with Crew([OpenedAppend(url, rows)]) as ours, Crew([RawAppend(folder, rows)]) as raw:
        seconds = medians({"ours": ours.round, "limit": raw.round}, ROUNDS)
    name = "write durable 4 KB rows through ndstream.open"
    return Row(name, rows / seconds["ours"], "/s", rows / seconds["limit"], ALONE)


def _compressed(url: str, folder: Path) -> Row:
    with Crew([OpenedWrite(url)]) as ours, Crew([LocalWrite(folder)]) as local:
        seconds = medians({"ours": ours.round, "limit": local.round}, 3)
    nbytes = int(np.prod(FRAMES)) * 4
    speed = {key: nbytes / taken / 1e9 for key, taken in seconds.items()}
    return Row("write compressed, gzip-4+shuffle", speed["ours"], "GB/s", speed["limit"], ratio_at_least(8))


def _events(url: str) -> Iterator[Row]:
    """How long after its answer another client is told of an append, and has the row."""
    late = _delays(url, "events.h5", lambda file: file.follow())
    yield Row("growing file, event after the answer, p99", 1e3 * float(np.quantile(late, 0.99)), "ms", None, at_most(5))
    for chunks in (0, LONG):
        late = _delays(url, f"rows-{chunks}.h5", lambda file: file["rows"].follow(), chunks)
        what = f", behind {chunks:,} chunks" if chunks else ""
        yield Row(f"growing file, row in hand after the answer{what}, p50", 1e3 * float(np.median(late)), "ms")


def _delays(url: str, name: str, follow: Callable[[Any], Iterator[Any]], chunks: int = 0) -> NDArray[np.float64]:
    """Seconds from the answer to an append until somebody who follows has it; below zero when that is earlier."""
    import ndstream

    ndstream.disable_progress(True)
    seen: SimpleQueue[float] = SimpleQueue()
    last = threading.Event()

    def hear() -> None:
        for _ in follow(ndstream.open(url, name)):
            seen.put(time.perf_counter())
            if last.is_set():
                return

    late = []
    with ndstream.open(url, name, mode="a") as file:
        length = 1 if chunks else 16
        rows = file.create_dataset("rows", (0, ROW // 4), "<i4", maxshape=(None, ROW // 4), chunks=(length, ROW // 4))
        for start in range(0, chunks, 4096):
            rows.append(np.zeros((min(4096, chunks - start), ROW // 4), "<i4"))
        follower = threading.Thread(target=hear)
        follower.start()
        row = np.zeros((1, ROW // 4), "<i4")
        while not _heard(seen, 0.05):
            rows.append(row)
        while _heard(seen, 1.0):
            pass  # of the appends before, while nobody followed for sure
        for _ in range(EVENTS):
            rows.append(row)
            answered = time.perf_counter()
            late.append(seen.get() - answered)
        last.set()
        rows.append(row)
        follower.join()
    return np.array(late)


def _heard(seen: SimpleQueue[float], seconds: float) -> bool:
    """Whether something comes within that time."""
    try:
        seen.get(timeout=seconds)
    except Empty:
        return False
    return True


@dataclass
class RawAppend:
    """Append rows to a plain file, each made durable."""

    folder: Path
    rows: int
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Open a file, and append once."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._state["file"] = os.open(self.folder / f"raw-{os.getpid()}", flags, 0o600)
        self.run()

    def run(self) -> None:
        """Append."""
        for _ in range(self.rows):
            os.write(self._state["file"], bytes(ROW))
            os.fdatasync(self._state["file"])


@dataclass
class OpenedAppend:
    """Append rows through our client."""

    url: str
    rows: int
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Open, and append once."""
        import ndstream

        ndstream.disable_progress(True)
        self._state["file"] = file = ndstream.open(self.url, "rows.h5", mode="a")
        self._state["rows"] = file["rows"]
        self.run()

    def run(self) -> None:
        """Append, each row when the one before is durable."""
        row = np.zeros((1, ROW // 4), "<i4")
        for _ in range(self.rows):
            self._state["rows"].append(row)


def frames() -> Any:
    """Smooth floats."""
    random = np.random.default_rng(1)
    return np.cumsum(random.normal(size=FRAMES), axis=2).round(2).astype("<f4")


@dataclass
class OpenedWrite:
    """Write frames through our client; the server compresses them."""

    url: str
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make a dataset, and write it once."""
        import ndstream

        ndstream.disable_progress(True)
        file = ndstream.open(self.url, "compressed.h5", mode="a")
        how = {"chunks": (1, *FRAMES[1:]), "compression": "gzip", "compression_opts": 4, "shuffle": True}
        self._state = {"file": file, "frames": frames()}
        self._state["dataset"] = file.create_dataset("frames", FRAMES, "<f4", **how)
        self.run()
        if not np.array_equal(self._state["dataset"][3], self._state["frames"][3]):
            raise ValueError("other frames came back")

    def run(self) -> None:
        """Write."""
        self._state["dataset"][...] = self._state["frames"]


@dataclass
class LocalWrite:
    """Write the same frames with h5py."""

    folder: Path
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make a dataset, and write it once."""
        file = h5py.File(self.folder / "local.h5", "w", libver="latest")
        how = {"chunks": (1, *FRAMES[1:]), "compression": "gzip", "compression_opts": 4, "shuffle": True}
        self._state = {"file": file, "frames": frames()}
        self._state["dataset"] = file.create_dataset("frames", FRAMES, "<f4", **how)
        self.run()

    def run(self) -> None:
        """Write, and make durable."""
        self._state["dataset"][...] = self._state["frames"]
        self._state["file"].flush()
        os.fsync(self._state["file"].id.get_vfd_handle())
