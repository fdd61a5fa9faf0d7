"""pytest fixtures: a real server for tests of clients, and watchmen for what a test leaves behind.

pytest loads this module wherever ndstream is installed, so it imports nothing that is slow to load::

    def test_lists_what_is_served(ndstream_server, tmp_path):
        server = ndstream_server(tmp_path, limits={"requests_per_user": 2})
        assert len(ndstream.open(server.url)) == 0
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from ndstream.errors import NDStreamError, ServiceError
from ndstream.testing import processes
from ndstream.testing.server import LEFTOVER_TIMEOUT, LocalServer

__all__ = ["LocalServer", "ServerFactory", "local_servers", "ndstream_module_server", "ndstream_server", "no_leaks"]


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
    ServiceError
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
            servers.append(_start(paths, {"server": settings, **sections}, home))
            return servers[-1]

        try:
            yield start
        finally:
            failures = [failure for server in servers if (failure := _failure(server)) is not None]
        if failures:
            raise ServiceError("\n".join(failures))


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
    files, children = _open_files(), processes.children()
    yield
    new = _open_files().keys() - files.keys()
    if new:
        # What only waits for the garbage collector is not left open.
        gc.collect()
        after = _open_files()
        new = after.keys() - files.keys()
        left = sorted(after[key] for key in new)
        assert not left, f"left open: {left}"
    orphans = processes.still_alive(processes.children() - children, LEFTOVER_TIMEOUT)
    assert not orphans, f"left running: {orphans}"


def _start(paths: Iterable[str | Path], sections: Mapping[str, Mapping[str, Any]], home: Path) -> LocalServer:
    config = home / "server.toml"
    config.write_text(_toml(sections), encoding="utf-8")
    # Nothing of the user who runs the tests: neither their settings nor their users.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NDSTREAM_")}
    environment["XDG_CONFIG_HOME"] = str(home)
    return LocalServer(*paths, "--config", config, log=home / "server.log", environment=environment)


def _failure(server: LocalServer) -> str | None:
    try:
        server.stop()
    except NDStreamError as error:
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
