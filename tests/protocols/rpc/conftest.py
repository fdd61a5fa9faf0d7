"""A served file of its own for each test, on one server for all tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.rpc.peer import Peer

from ndstream.stores.hdf5.blank import make_blank
from ndstream.testing.fixtures import LocalServer, ServerFactory


@dataclass(frozen=True)
class Served:
    """A file that is served over framed TCP."""

    server: LocalServer
    path: Path

    @property
    def port(self) -> int:
        return self.server.streams["rpc"]


StartServed = Callable[..., Served]


def start_served(start: ServerFactory, folder: Path, **sections: Any) -> Served:
    path = folder / "data.h5"
    make_blank(path)
    settings = {"writable": {"/": []}} | sections | {"rpc": {"port": 0} | sections.get("rpc", {})}
    return Served(start(path, **settings), path)


@pytest.fixture(scope="module")
def served(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """For tests that keep to a group of their own."""
    return start_served(ndstream_module_server, tmp_path_factory.mktemp("served"))


@pytest.fixture
def own_served(ndstream_server: ServerFactory, tmp_path: Path) -> StartServed:
    """Start a server that the test has for itself."""
    return lambda **sections: start_served(ndstream_server, tmp_path, **sections)


@pytest.fixture
def peer(served: Served) -> Iterator[Peer]:
    """A connection without hello."""
    with Peer(served.port) as connection:
        yield connection


@pytest.fixture
def greeted(served: Served) -> Iterator[Peer]:
    """A connection that said hello."""
    with Peer(served.port) as connection:
        assert connection.hello()["status"] == "success"
        yield connection


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    """Path of a group that only this test writes to."""
    return f"/{request.node.name.replace('/', '_')}"
