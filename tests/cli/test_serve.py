"""What ``ndstream serve`` looks at before it says that it serves."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from tests.protocols.rpc.peer import Peer

from ndstream.errors import ServiceError
from ndstream.testing.server import LocalServer


def refusal(tmp_path: Path, *arguments: str | Path) -> str:
    """Last line of a server that does not start."""
    with pytest.raises(ServiceError) as caught:
        LocalServer(*arguments, "--port", "0", log=tmp_path / "log")
    return str(caught.value).splitlines()[-1]


def make(path: Path) -> Path:
    with h5py.File(path, "w", libver="v110") as file:
        file["a"] = [1, 2, 3]
    return path


def test_the_file_of_a_directory_is_made(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    arguments = ("--writable", tmp_path / "served", "--rpc-file", "new.h5", "--rpc-port", "0", "--port", "0")
    with LocalServer(*arguments) as server, Peer(server.streams["rpc"]) as peer:
        assert h5py.is_hdf5(tmp_path / "served/new.h5")
        assert peer.ask(command="write", path="/a", data=[1])["status"] == "success"


@pytest.mark.parametrize("name", ["new.H5", "new.hdf", "new.nxs"])
@pytest.mark.parametrize("inside", [True, False])
def test_which_files_are_made_is_told(tmp_path: Path, name: str, inside: bool) -> None:
    where = (tmp_path, "--rpc-file", name) if inside else (tmp_path / name,)
    told = refusal(tmp_path, "--writable", *where, "--rpc-port", "0")
    assert told == f"ndstream: {tmp_path / name}: no such file; one is made only if its name ends with .h5 or .hdf5"


@pytest.mark.parametrize("content", [b"", b"no HDF5 file"])
def test_what_is_no_hdf5_file_is_not_served_over_tcp(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    told = refusal(tmp_path, tmp_path / "x.h5", "--rpc-port", "0")
    assert told.startswith("ndstream: rpc.file: x.h5 cannot be served over TCP: not a readable HDF5 file")
    assert "cannot be served over TCP" in refusal(tmp_path, tmp_path, "--rpc-file", "gone.h5", "--rpc-port", "0")


def test_a_file_without_a_port_is_a_mistake(tmp_path: Path) -> None:
    assert "--rpc-port" in refusal(tmp_path, tmp_path, "--rpc-file", "x.h5")


def test_a_file_that_another_server_writes_is_not_served_for_writing(tmp_path: Path) -> None:
    path = make(tmp_path / "own.h5")
    with LocalServer("--writable", path, "--port", "0", "--rpc-port", "0") as first:
        with Peer(first.streams["rpc"]) as peer:
            assert peer.ask(command="write", path="/b", data=[1])["status"] == "success"
        assert "own.h5 is being written by another process" in refusal(tmp_path, "--writable", path)


def test_a_file_that_another_program_writes_is_busy(tmp_path: Path) -> None:
    path = make(tmp_path / "own.h5")
    with h5py.File(path, "r+", libver="v110"):
        assert refusal(tmp_path, "--writable", path) == "ndstream: own.h5 is open for writing in another program"
        with LocalServer(path, "--port", "0", "--rpc-port", "0") as server, Peer(server.streams["rpc"]) as peer:
            peer.hello()
            assert peer.ask(command="read", path="/a")["code"] == "busy"
