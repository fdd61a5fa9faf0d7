"""Progress of long transfers, shown to people only: on a terminal, after a while."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Watch = Callable[[int], None]


@dataclass(slots=True)
class _Policy:
    """Process-wide: `disabled` None leaves it to whether there is a terminal."""

    disabled: bool | None = None
    delay: float = 2.0


_policy = _Policy()
_current: ContextVar[Watch | None] = ContextVar("ndstream_progress", default=None)


def disable_progress(disable: bool | None) -> None:
    """Never show progress (True), always (False), or only when standard error is a terminal (None, at first)."""
    _policy.disabled = disable


def set_progress_delay(delay: float) -> None:
    """Show progress only of what takes longer than this many seconds (2 at first)."""
    _policy.delay = delay


@contextmanager
def transfer(label: str, total: int | None) -> Iterator[Watch | None]:
    """Watch a transfer of `total` bytes; gives what is to be told the number of bytes that came, or None.

    A transfer inside of another counts for the outer one.
    """
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    if _policy.disabled or (_policy.disabled is None and not _has_terminal()):
        yield None
        return
    bar = _Bar(label, total)
    token = _current.set(bar)
    try:
        yield bar
    finally:
        _current.reset(token)
        bar.close()


class _Bar:
    """A bar that appears once the transfer has taken its time."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._due = time.monotonic() + _policy.delay
        self._shown: tuple[Progress, TaskID] | None = None

    def __call__(self, count: int) -> None:
        self._done += count
        if self._shown is not None:
            progress, task = self._shown
            progress.update(task, completed=self._done)
        elif time.monotonic() >= self._due:
            self._show()

    def close(self) -> None:
        """Take the bar away."""
        if self._shown is not None:
            self._shown[0].stop()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        # A file name may hold what rich takes for markup.
        task = progress.add_task(self._label.replace("[", r"\["), total=self._total, completed=self._done)
        progress.start()
        self._shown = (progress, task)


def _has_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
