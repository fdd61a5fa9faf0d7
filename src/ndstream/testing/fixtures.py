"""pytest fixtures: a real server for tests of clients, and watchmen for what a test leaves behind.

pytest loads this module wherever ndstream is installed, so it imports the standard library only::

    def test_lists_what_is_served(ndstream_server, tmp_path):
        server = ndstream_server(tmp_path, limits={"requests_per_user": 2})
        assert len(ndstream.open(server.url)) == 0
"""

from __future__ import annotations

import gc
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

# Seconds; longer than anything takes on a machine that is busy with other tests.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
LEFTOVER_TIMEOUT = 5.0


class LocalServer:
    """A server in a process of its own, ready when this object exists.

    Attributes
    ----------
    url : str
        Base address, without a trailing slash.
    port : int
    process : subprocess.Popen
    log : Path
        What the server wrote to its standard error stream.
    """

    def __init__(self, paths: Sequence[str | Path], sections: Mapping[str, Mapping[str, Any]], home: Path) -> None:
        config = home / "server.toml"
        config.write_text(_toml(sections), encoding="utf-8")
        self.log = home / "server.log"
        # Nothing of the user who runs the tests: neither their settings nor their users.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NDSTREAM_")}
        environment["XDG_CONFIG_HOME"] = str(home)
        command = [sys.executable, "-m", "ndstream", "serve", *map(str, paths), "--config", str(config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        try:
            self.url = self._announced()
        except BaseException:
            self.kill()
            raise
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """End the server in good order.

        Returns
        -------
        int
            Its exit code.

        Raises
        ------
        AssertionError
            It did not end, or left processes behind; they are killed.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end in {STOP_TIMEOUT:.0f} s:\n{self.output()}") from None
        finally:
            self._close()
        left = _still_alive(_session(self.process.pid), LEFTOVER_TIMEOUT)
        self._kill_session()
        assert not left, f"the server left processes behind: {left}\n{self.output()}"
        return code

    def kill(self) -> None:
        """End the server and all its processes at once."""
        self._kill_session()
        self.process.kill()
        self.process.wait()
        self._close()

    def output(self) -> str:
        """What the server logged so far."""
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
                    return found[1].decode()
                if not piece:
                    break
        raise AssertionError(f"the server did not start; it said:\n{seen.decode(errors='replace')}\n{self.output()}")

    def _kill_session(self) -> None:
        pids = _session(self.process.pid)
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        _still_alive(pids, STOP_TIMEOUT)

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()


class ServerFactory(Protocol):
    """What the fixture `ndstream_server` gives."""

    def __call__(
        self, *paths: str | Path, port: int = 0, server: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]
    ) -> LocalServer:
        """Start a server and wait until it answers.

        Parameters
        ----------
        *paths : str or Path
            What to serve, as ``ndstream serve`` takes it.
        port : int
            0 picks a free one.
        server, **sections
            Sections of the configuration file, such as ``limits={"workers": 1}``.
        """
        ...


@contextmanager
def local_servers() -> Iterator[ServerFactory]:
    """Give a function that starts servers, and end them all when the context ends.

    Raises
    ------
    AssertionError
        When the context ends: a server did not end, or left processes behind.
    """
    servers: list[LocalServer] = []
    with tempfile.TemporaryDirectory(prefix="ndstream-test-") as directory:

        def start(
            *paths: str | Path,
            port: int = 0,
            server: Mapping[str, Any] | None = None,
            **sections: Mapping[str, Any],
        ) -> LocalServer:
            home = Path(directory, str(len(servers)))
            home.mkdir()
            settings = {"host": "127.0.0.1", "port": port, **(server or {})}
            servers.append(LocalServer(paths, {"server": settings, **sections}, home))
            return servers[-1]

        try:
            yield start
        finally:
            failures = [failure for server in servers if (failure := _failure(server)) is not None]
        assert not failures, "\n".join(failures)


@pytest.fixture
def ndstream_server() -> Iterator[ServerFactory]:
    """Start servers on loopback for the time of a test; it fails when one of them leaves processes behind."""
    with local_servers() as start:
        yield start


@pytest.fixture(scope="module")
def ndstream_module_server() -> Iterator[ServerFactory]:
    """Start servers on loopback for all tests of a module."""
    with local_servers() as start:
        yield start


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves files, sockets or child processes open."""
    files, children = _open_files(), _children()
    yield
    new = _open_files().keys() - files.keys()
    if new:
        # What only waits for the garbage collector is not left open.
        gc.collect()
        after = _open_files()
        new = after.keys() - files.keys()
        left = sorted(after[key] for key in new)
        assert not left, f"left open: {left}"
    orphans = _still_alive(_children() - children, LEFTOVER_TIMEOUT)
    assert not orphans, f"left running: {orphans}"


def _failure(server: LocalServer) -> str | None:
    try:
        server.stop()
    except AssertionError as error:
        return str(error)
    return None


def _toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Spell a configuration: JSON's text, numbers, booleans and lists are TOML's too."""
    lines = []
    for section, settings in sections.items():
        lines.append(f"[{section}]")
        for name, value in settings.items():
            plain = str(value) if isinstance(value, Path) else value
            lines.append(f"{json.dumps(name, ensure_ascii=False)} = {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _open_files() -> dict[tuple[str, str], str]:
    """Descriptors of this process with what they are; pseudo files of the event loop aside."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        # The descriptor that lists the directory itself, and what the interpreter keeps for good once it used it.
        if not target.startswith(("/proc/", "/dev/")):
            found[entry.name, target] = f"{target} (descriptor {entry.name})"
    return found


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and session of a process; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1]), int(fields[3])


def _processes() -> Iterator[tuple[int, str, int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) is not None:
            yield int(entry.name), *found


def _session(leader: int) -> set[int]:
    """Processes of the session that `leader` began, zombies aside."""
    return {pid for pid, state, _, session in _processes() if session == leader and state != "Z"}


def _children() -> set[int]:
    return {pid for pid, state, parent, _ in _processes() if parent == os.getpid() and state != "Z"}


def _still_alive(pids: set[int], seconds: float) -> set[int]:
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


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
