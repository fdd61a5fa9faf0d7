"""A server in a process of its own, as a user would start it."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ndstream.errors import ServiceError, TimedOut
from ndstream.testing import processes

# Seconds; longer than anything takes on a machine that is busy with other tests.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
LEFTOVER_TIMEOUT = 5.0


class LocalServer:
    """``ndstream serve``, ready when this object exists; a ``with`` block ends it.

    Parameters
    ----------
    *arguments : str or Path
        What stands behind ``ndstream serve`` on the command line.
    log : Path, optional
        File for its standard error stream, which else is that of this process.
    directory : Path, optional
        Where it runs.
    environment : mapping, optional
        Its environment; that of this process if not given.

    Attributes
    ----------
    url : str
        Base address, without a trailing slash.
    port : int
    streams : dict of str to int
        Ports of protocols over TCP, by name.
    log : Path
        As given; the null device when the error stream is that of this process.
    process : subprocess.Popen
        It began a session, so that all its processes can be found.

    Raises
    ------
    ServiceError
        It ended instead of announcing its address.
    TimedOut
        It said nothing for half a minute.
    """

    def __init__(
        self,
        *arguments: str | Path,
        log: Path | None = None,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = Path(os.devnull) if log is None else log
        command = [sys.executable, "-m", "ndstream", "serve", *map(str, arguments)]
        errors = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self.process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, start_new_session=True,
            )  # fmt: skip
        finally:
            if errors is not None:
                os.close(errors)
        try:
            self.streams: dict[str, int] = {}
            self.url = self._announced()
        except BaseException:
            self.kill()
            raise
        self.port = int(self.url.rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Stay until the server ends by itself.

        Raises
        ------
        ServiceError
            It ended by a failure.
        """
        if code := self.process.wait():
            raise ServiceError(f"the server ended with {code}")

    def stop(self) -> int:
        """End the server in good order.

        Returns
        -------
        int
            Its exit code.

        Raises
        ------
        TimedOut, ServiceError
            It did not end, or left processes behind; they are killed.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimedOut(f"the server did not end in {STOP_TIMEOUT:.0f} s:\n{self.output()}") from None
        finally:
            self._close()
        left = processes.still_alive(processes.session(self.process.pid), LEFTOVER_TIMEOUT)
        self._kill_session()
        if left:
            raise ServiceError(f"the server left processes behind: {left}\n{self.output()}")
        return code

    def kill(self) -> None:
        """End the server and all its processes at once."""
        self._kill_session()
        self.process.kill()
        self.process.wait()
        self._close()

    def output(self) -> str:
        """What the server logged so far; empty without a log of its own."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _announced(self) -> str:
        """Wait for the line that tells the URL."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(self.process.stdout.fileno(), 4096)
                seen += piece
                found = re.search(rb"(https?://\S+?)/?\r?\n", seen)
                if found is not None:
                    told = re.findall(rb"^ndstream: (\w+) at \w+://\S+:(\d+)", seen, re.MULTILINE)
                    self.streams = {name.decode(): int(port) for name, port in told}
                    return found[1].decode()
                if not piece:
                    said = f"{seen.decode(errors='replace')}\n{self.output()}".strip()
                    raise ServiceError(f"the server did not start; it said:\n{said}")
        raise TimedOut(f"the server was not ready after {START_TIMEOUT:.0f} seconds:\n{self.output()}")

    def _kill_session(self) -> None:
        pids = processes.session(self.process.pid)
        for pid in pids:
            processes.send(pid, signal.SIGKILL)
        processes.still_alive(pids, STOP_TIMEOUT)

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()
