"""A server in a process of its own, as a user would start it."""

from __future__ import annotations

import re
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ndstream.errors import ServiceError, TimedOut

_READY = 30.0
_END = 15.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at `url`."""

    url: str
    process: subprocess.Popen[str]

    def wait(self) -> None:
        """Stay until the server ends.

        Raises
        ------
        ServiceError
            When it ended by a failure.
        """
        # Ctrl-C in a terminal reaches the server as well, and it may be faster: that is an orderly end.
        if code := self.process.wait():
            raise ServiceError(f"the server ended with {code}")


@contextmanager
def serving(*arguments: str, directory: Path | None = None) -> Iterator[Running]:
    """Run ``ndstream serve`` with these arguments, in `directory`, while the block lasts.

    Raises
    ------
    ServiceError, TimedOut
        When the server ends, or says nothing for half a minute, instead of announcing its address.
    """
    command = [sys.executable, "-m", "ndstream", "serve", *arguments]
    with subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Running(_announced(process), process)
        finally:
            process.terminate()
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()


def _announced(process: subprocess.Popen[str]) -> str:
    """Address that the server announces in its first line."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(_READY):
            raise TimedOut(f"the server was not ready after {_READY:.0f} seconds")
    line = process.stdout.readline()
    match = re.search(r"https?://\S+", line)
    if match is None:
        raise ServiceError(f"the server ended with {process.wait(_END)}" if not line else f"the server says: {line}")
    return match[0].rstrip("/")
