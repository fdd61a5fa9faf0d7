"""Which processes there are and which have ended, from what the system tells (Linux)."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Iterator
from pathlib import Path


def session(leader: int) -> set[int]:
    """Processes of the session that `leader` began, zombies aside."""
    return {pid for pid, state, _, began in _processes() if began == leader and state != "Z"}


def children() -> set[int]:
    """Processes that this one started, zombies aside."""
    return {pid for pid, state, parent, _ in _processes() if parent == os.getpid() and state != "Z"}


def still_alive(pids: set[int], seconds: float) -> set[int]:
    """Those that have not ended after some time; returns as soon as all have."""
    deadline = time.monotonic() + seconds
    alive = set()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            with selectors.DefaultSelector() as selector:
                # A descriptor of a process is readable when it has ended.
                selector.register(descriptor, selectors.EVENT_READ)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    alive.add(pid)
        finally:
            os.close(descriptor)
    return alive


def send(pid: int, number: int) -> None:
    """Send a signal, unless the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _processes() -> Iterator[tuple[int, str, int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) is not None:
            yield int(entry.name), *found


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and session of a process; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1]), int(fields[3])
