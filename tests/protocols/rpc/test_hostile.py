"""Peers that send garbage, lie, or are too slow: they are cut off, and nobody else notices (C2)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import msgpack
import numpy as np
import pytest
from tests.protocols.rpc.conftest import Served, StartServed
from tests.protocols.rpc.peer import Peer, extended, frame, packed

from ndstream.testing import processes


@pytest.fixture
def witness(served: Served) -> Iterator[Peer]:
    """Another connection, which must go on working."""
    with Peer(served.port) as peer:
        peer.ask(command="write", path="/witness", data=[1, 2, 3])
        yield peer
        assert peer.data("/witness").tolist() == [1, 2, 3]


DEEP = b"\x81\xa1x" + b"\x91" * 10_000 + b"\xc0"
WIDE = b"\xdf" + (70_000).to_bytes(4, "big") + b"".join(msgpack.packb(str(n)) + b"\xc0" for n in range(70_000))


@pytest.mark.parametrize(
    "payload",
    [b"GET / HTTP/1.1", b"\x00\x01", b"\xff" * 100, b"\x82\xa1", b"{not json", b"[1, 2]", DEEP, WIDE, b"\xc1"],
    ids=["http", "zeros", "ones", "half", "json", "list", "deep", "wide", "extended"],
)
def test_garbage_is_refused_and_cut_off(served: Served, witness: Peer, payload: bytes) -> None:
    with Peer(served.port) as peer:
        peer.send(payload)
        assert peer.reply()["status"] == "error"
        assert peer.receive() == b""


@pytest.mark.parametrize("length", [0, (1 << 32) - 1, (256 << 20) + 1])
def test_lengths_that_no_frame_has(served: Served, witness: Peer, length: int) -> None:
    with Peer(served.port) as peer:
        peer.hello()
        peer.socket.sendall(length.to_bytes(4, "big") + b"more than nothing" * 1000)
        reply = peer.reply()
        if length:
            assert (reply["code"], reply["details"]) == ("frame_too_large", {"limit": 256 << 20})
        else:
            assert reply["code"] == "bad_frame"
        assert peer.receive() == b""


@pytest.mark.parametrize(
    "payload",
    [
        extended({"command": "ping"})[:-1],
        extended({"command": "ping"}) + b"x" * 9,
        extended({"command": "write", "path": "/x", "bodies": [5]}),
        extended({"command": "write", "path": "/x", "bodies": [-1]}),
        b"\xc1\x02" + extended({"command": "ping"})[2:],
        extended({"command": "ping"}, flags=2),
    ],
)
def test_extended_frames_that_do_not_add_up(served: Served, witness: Peer, payload: bytes) -> None:
    with Peer(served.port) as peer:
        peer.hello()
        peer.send(payload)
        assert peer.reply()["code"] == "bad_frame"
        assert peer.receive() == b""


@pytest.mark.parametrize("path", ["", "a" * 5000, "a\0b", 7, None, ["a"]])
def test_paths_that_are_none(served: Served, path: object) -> None:
    with Peer(served.port) as peer:
        commands = ["read", "write", "append", "delete"]
        for command in [*commands, "create_group", "list"] if path else commands:
            assert peer.ask(command=command, path=path, data=[1])["status"] in ("error", "not_found")
        assert peer.ask(command="get_config")["status"] == "success"


def test_text_that_is_no_utf8(served: Served, witness: Peer) -> None:
    with Peer(served.port) as peer:
        peer.send(b"\x82\xa7command\xa4read\xa4path\xa2\xff\xfe")
        assert peer.reply()["status"] == "error"


def test_requests_that_name_no_command(served: Served) -> None:
    with Peer(served.port) as peer:
        for request in ({}, {"command": 7}, {"path": "/x"}, {"command": "write"}, {"command": "insert", "path": "/x"}):
            assert peer.ask(**request)["status"] == "error"


def test_half_a_frame_changes_nothing(served: Served, witness: Peer) -> None:
    whole = frame(packed(command="write", path="/half", data=np.arange(100_000)))
    with Peer(served.port) as peer:
        peer.socket.sendall(whole[: len(whole) // 2])
    assert witness.ask(command="read", path="/half") == {"status": "not_found"}


def test_a_frame_that_comes_drop_by_drop_is_cut(own_served: StartServed) -> None:
    served = own_served(limits={"frame_timeout": 1.0})
    with Peer(served.port) as idle, Peer(served.port) as peer:
        peer.socket.sendall(b"\x00\x00\x10\x00\x81")
        assert peer.receive() == b""
        assert idle.ask(command="get_config")["status"] == "success"


def test_more_connections_than_there_may_be(own_served: StartServed) -> None:
    served = own_served(limits={"connections": 2})
    with Peer(served.port) as first, Peer(served.port) as second:
        assert first.ask(command="get_config") == second.ask(command="get_config")
        with Peer(served.port) as third:
            assert third.reply()["status"] == "error"
            assert third.receive() == b""
        assert first.ask(command="get_config")["status"] == "success"


def test_who_does_not_read_is_not_read_either(own_served: StartServed) -> None:
    """Requests beyond `in_flight` stay in the socket of the peer, replies that are not taken stop what makes them."""
    served = own_served(limits={"in_flight": 4})
    with Peer(served.port) as peer, Peer(served.port) as other:
        peer.hello()
        peer.ask(command="write", path="/x", data=np.zeros(1 << 20))
        peer.socket.settimeout(1.0)
        request = frame(packed(command="read", path="/x"))
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 4_000_000:
                peer.socket.sendall(request * 1000)
                sent += 1000
        assert other.ask(command="get_config")["status"] == "success"


def test_a_client_that_is_killed_half_way(served: Served, witness: Peer) -> None:
    script = (
        "import socket, sys, time\n"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "s.sendall(b'\\x00\\x10\\x00\\x00' + b'\\x83' + b'x' * 1000)\n"
        "print('sent', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(served.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"sent\n"
        client.kill()
    assert witness.ask(command="get_config")["status"] == "success"


def test_a_server_that_is_killed_has_kept_what_it_acknowledged(own_served: StartServed) -> None:
    served = own_served()
    acknowledged = 0
    with Peer(served.port) as peer:
        peer.hello()
        for number in range(200):
            peer.send(packed(command="append", path="/rows", data=np.full((1, 4096), number, "<i4"), id=number))
        while acknowledged < 20:
            assert peer.reply()["status"] == "success"
            acknowledged += 1
        served.server.kill()
        while peer.receive():
            acknowledged += 1
    from ndstream.stores.hdf5.journal import recover

    recover(served.path)
    with h5py.File(served.path) as file:
        found = file["rows"][:, 0].tolist()
        assert (file["rows"][:] == file["rows"][:, :1]).all()
    assert found == list(range(len(found)))
    assert len(found) >= acknowledged


def test_a_disk_that_is_full_is_told_and_old_data_stay(own_served: StartServed, tmp_path: Path) -> None:
    served = own_served()
    with Peer(served.port) as peer:
        peer.hello()
        peer.ask(command="write", path="/old", data=np.arange(100))
        owners = [pid for pid in processes.session(served.server.process.pid) if b"hdf5.owner" in _command(pid)]
        import resource

        for pid in owners:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        reply = peer.ask(command="write", path="/new", data=np.random.default_rng(1).random(1 << 20))
        assert (reply["status"], reply["code"]) == ("error", "storage")
        np.testing.assert_array_equal(peer.data("/old"), np.arange(100))
    with h5py.File(served.path, "r", locking=False) as file:
        assert "new" not in file


def test_paths_do_not_lead_out_of_the_file(own_served: StartServed, tmp_path: Path) -> None:
    with h5py.File(tmp_path.parent / "secret.h5", "w") as file:
        file["secret"] = [1, 2, 3]
    served = own_served()
    with h5py.File(served.path, "r+") as file:
        file["out"] = h5py.ExternalLink(str(tmp_path.parent / "secret.h5"), "/secret")
        layout = h5py.VirtualLayout((3,), "<i8")
        layout[:] = h5py.VirtualSource(str(tmp_path.parent / "secret.h5"), "secret", (3,))
        file.create_virtual_dataset("virtual", layout)
    with Peer(served.port) as peer:
        peer.hello()
        for name in ("/out", "/virtual"):
            reply = peer.ask(command="read", path=name)
            assert reply["status"] != "success" or np.asarray(reply["data"]).tolist() == [0, 0, 0]


def test_other_machines_are_not_meant_unless_it_is_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w"):
        pass
    command = [sys.executable, "-m", "ndstream", "serve", str(tmp_path / "data.h5"), "--port", "0", "--rpc-port", "0"]
    done = subprocess.run([*command, "--host", "0.0.0.0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "rpc.port: other machines could reach it" in done.stderr


def test_a_file_that_does_not_exist_is_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ndstream", "serve", "--writable", str(tmp_path / "new.h5")]
    with subprocess.Popen([*command, "--port", "0", "--rpc-port", "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        told = [server.stdout.readline(), server.stdout.readline()]
        port = int(told[0].rpartition(":")[2])
        with Peer(port) as peer:
            assert peer.ask(command="write", path="/a", data=[1, 2])["status"] == "success"
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    with h5py.File(tmp_path / "new.h5") as file:
        assert file["a"][:].tolist() == [1, 2]


def test_a_server_that_ends_lets_requests_end(own_served: StartServed) -> None:
    served = own_served()
    with Peer(served.port) as peer, Peer(served.port) as follower:
        follower.hello()
        follower.send(packed(command="follow", id=1))
        peer.ask(command="write", path="/x", data=[1])
        assert served.server.stop() == 0
        assert peer.receive() == b""


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
