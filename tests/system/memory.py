"""How much more memory a server takes than before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ndstream.testing.fixtures import LocalServer


@dataclass
class Growth:
    """Bytes by which the peak of a server and its workers was above what they had before."""

    bytes: int = 0


@contextmanager
def growth(server: LocalServer) -> Iterator[Growth]:
    """Watch a server; the result is there when the context ends."""
    processes = _family(server.process.pid)
    before = sum(_status(pid, "VmRSS:") for pid in processes)
    for pid in processes:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    found = Growth()
    yield found
    found.bytes = sum(_status(pid, "VmHWM:") for pid in _family(server.process.pid)) - before


def _family(pid: int) -> list[int]:
    found = [pid]
    with suppress(FileNotFoundError, ProcessLookupError):  # a worker may end while it is looked at
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def _status(pid: int, key: str) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key):
                return 1024 * int(line.split()[1])
    return 0
