"""Servers that all tests of the directory share; each test keeps to a group of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest
from tests.protocols.rpc.peer import Peer

from ndstream.stores.hdf5.making import make_file
from ndstream.testing.fixtures import LocalServer, ServerFactory, local_servers

TOKEN = "let me in"


@dataclass(frozen=True)
class Served:
    """A file that is served over framed TCP."""

    server: LocalServer
    path: Path

    @property
    def port(self) -> int:
        return self.server.streams["rpc"]


StartServed = Callable[..., Served]
StartOwn = Callable[..., Served]


def start_served(start: ServerFactory, folder: Path, **sections: Any) -> Served:
    path = folder / "data.h5"
    make_file(path)
    settings = {"writable": {"/": []}} | sections | {"rpc": {"port": 0} | sections.get("rpc", {})}
    return Served(start(path, **settings), path)


@pytest.fixture(scope="session")
def start_shared() -> Iterator[ServerFactory]:
    """Start servers for all tests."""
    with local_servers() as start:
        yield start


@pytest.fixture(scope="session")
def served(start_shared: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """For tests that keep to a group of their own."""
    return start_served(start_shared, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def guarded(start_shared: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that asks for `TOKEN`."""
    folder = tmp_path_factory.mktemp("guarded")
    secret = folder / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    return start_served(start_shared, folder, rpc={"token_file": str(secret)})


@pytest.fixture(scope="session")
def read_only(start_shared: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that writes nothing, of a file that points to another one, outside."""
    folder = tmp_path_factory.mktemp("outer")
    secret = str(folder / "secret.h5")
    with h5py.File(secret, "w") as file:
        file["secret"] = [1, 2, 3]
    path = folder / "served" / "data.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["inside"] = [7]
        file["out"] = h5py.ExternalLink(secret, "/secret")
        layout = h5py.VirtualLayout((3,), "<i8")
        layout[:] = h5py.VirtualSource(secret, "secret", (3,))
        file.create_virtual_dataset("virtual", layout)
    return Served(start_shared(path, rpc={"port": 0}), path)


@pytest.fixture
def own_served(ndstream_server: ServerFactory, tmp_path: Path) -> StartServed:
    """Start a server that the test has for itself."""
    return lambda **sections: start_served(ndstream_server, tmp_path, **sections)


@pytest.fixture
def start_own(ndstream_server: ServerFactory, tmp_path: Path) -> StartOwn:
    """Start a server of datasets that nobody writes, which the test has for itself."""

    def start(datasets: Mapping[str, Any], **sections: Any) -> Served:
        path = tmp_path / "data.h5"
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                file[name] = values
        return Served(ndstream_server(path, rpc={"port": 0}, **sections), path)

    return start


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
