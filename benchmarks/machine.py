"""What processes use: processor time and memory, from ``/proc``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    # A process or thread may end while it is looked at.
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and those below it have used."""
    ticks = 0
    for each in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def forget_peak(pid: int) -> None:
    """Let `peak_memory` begin anew."""
    for each in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            Path(f"/proc/{each}/clear_refs").write_text("5")


def memory(pid: int) -> int:
    """Bytes in memory now, of a process and those below it."""
    return _status(pid, "VmRSS:")


def peak_memory(pid: int) -> int:
    """Most bytes in memory since `forget_peak`, of a process and those below it, each at its own time."""
    return _status(pid, "VmHWM:")


def _status(pid: int, key: str) -> int:
    total = 0
    for each in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith(key))  # none of a zombie
    return total
