"""Peers that send garbage, lie, or are too slow: they are cut off, and nobody else notices (C2)."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
from tests.protocols.rpc.conftest import Served, StartServed
from tests.protocols.rpc.peer import Peer, extended, frame, packed

import ndstream
from ndstream.config import Config, ServerSettings, StreamSettings
from ndstream.core.ports import Service
from ndstream.errors import ConfigError, ConnectionLost
from ndstream.server.auth import Authenticator
from ndstream.server.streams import open_streams
from ndstream.server.users import UserFile
from ndstream.stores.hdf5.journal import recover
from ndstream.stores.hdf5.making import make_file
from ndstream.stores.memory import MemoryStore
from ndstream.testing import processes
from ndstream.testing.server import LocalServer


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
@pytest.mark.parametrize("sent", [1000, (64 << 10) - 4, 64 << 10, 300_000])
def test_lengths_that_no_frame_has(served: Served, witness: Peer, length: int, sent: int) -> None:
    with Peer(served.port) as peer:
        peer.hello()
        peer.socket.sendall(length.to_bytes(4, "big") + bytes(sent))
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


def test_requests_that_name_no_command(served: Served) -> None:
    with Peer(served.port) as peer:
        for request in ({}, {"command": 7}, {"path": "/x"}, {"command": "write"}, {"command": "insert", "path": "/x"}):
            assert peer.ask(**request)["status"] == "error"


@pytest.mark.parametrize("greeted", [False, True])
def test_who_says_that_it_asks_no_more_gets_its_replies(served: Served, group: str, greeted: bool) -> None:
    with Peer(served.port) as peer:
        if greeted:
            peer.hello()
            peer.send(packed(command="follow", id="endless"))
        ids = [{"id": number} if greeted else {} for number in range(10)]
        for number, ident in enumerate(ids):
            peer.send(packed(command="write", path=f"{group}/{number}", data=[number], **ident))
        peer.socket.shutdown(socket.SHUT_WR)
        replies = []
        while payload := peer.receive():
            replies.append(msgpack.unpackb(payload))
    written = [reply for reply in replies if "event" not in reply and reply.get("id") != "endless"]
    assert [reply["status"] for reply in written] == ["success"] * 10
    assert sorted(reply.get("id", 0) for reply in written) == ([*range(10)] if greeted else [0] * 10)


def test_half_a_frame_changes_nothing(served: Served, witness: Peer) -> None:
    whole = frame(packed(command="write", path="/half", data=np.arange(100_000)))
    with Peer(served.port) as peer:
        peer.socket.sendall(whole[: len(whole) // 2])
    assert witness.ask(command="read", path="/half") == {"status": "not_found"}


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
        write, read = asyncio.run(_killed_while_asked(served))
        while peer.receive():
            acknowledged += 1
    recover(served.path)
    with h5py.File(served.path) as file:
        found = file["rows"][:, 0].tolist()
        assert (file["rows"][:] == file["rows"][:, :1]).all()
    assert found == list(range(len(found)))
    assert len(found) >= acknowledged
    assert isinstance(write, ConnectionLost)
    assert "whether it was carried out is unknown" in str(write)
    assert isinstance(read, ConnectionLost)
    assert "unknown" not in str(read)


async def _killed_while_asked(served: Served) -> list[Any]:
    """What becomes of requests of a client whose server is killed."""
    client = ndstream.HDF5Client(port=served.port, unwrap=True)
    await client.connect()
    served.server.process.send_signal(signal.SIGSTOP)
    asked = [asyncio.create_task(client.append("/other", np.zeros(9))), asyncio.create_task(client.read("/other"))]
    await asyncio.sleep(0)
    served.server.kill()
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x82\xa7command\xa4read\xa4path\xa2\xff\xfe",
        b'{"command": "read", "path": "/\xff"}',
        b'{"command": "read", "path": "/\\ud800"}',
        b'{"command": "read", "path": "/x", "id": "\\udfff"}',
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_text_that_is_no_unicode(served: Served, witness: Peer, payload: bytes, greeted: bool) -> None:
    with Peer(served.port) as peer:
        if greeted:
            peer.hello()
        peer.send(payload)
        assert peer.reply()["status"] == "error"
        assert peer.receive() == b""


def test_a_disk_that_is_full_is_told_and_old_data_stay(served: Served, group: str) -> None:
    with Peer(served.port) as peer:
        peer.hello()
        peer.ask(command="write", path=f"{group}/old", data=np.arange(100))
        owners = [pid for pid in processes.session(served.server.process.pid) if b"hdf5.owner" in _command(pid)]
        assert owners
        usual = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in owners}
        full = served.path.stat().st_size + (1 << 20)
        for pid in owners:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, usual[pid][1]))
        try:
            new = np.random.default_rng(1).random(1 << 20)
            reply = peer.ask(command="write", path=f"{group}/new", data=new)
            assert (reply["status"], reply["code"]) == ("error", "storage")
            np.testing.assert_array_equal(peer.data(f"{group}/old"), np.arange(100))
        finally:
            for pid in owners:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, usual[pid])
        assert peer.ask(command="read", path=f"{group}/new")["status"] == "not_found"
        assert peer.ask(command="write", path=f"{group}/new", data=new)["status"] == "success"


def test_paths_do_not_lead_out_of_the_file(read_only: Served) -> None:
    with Peer(read_only.port) as peer:
        peer.hello()
        for name in ("/out", "/virtual"):
            reply = peer.ask(command="read", path=name)
            assert reply["status"] != "success" or np.asarray(reply["data"]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("public", [False, True])
def test_other_machines_are_not_meant_unless_it_is_said(tmp_path: Path, public: bool) -> None:
    make_file(tmp_path / "data.h5")
    config = Config(
        server=ServerSettings(host="0.0.0.0"),
        roots={"data.h5": tmp_path / "data.h5"},
        streams={"rpc": StreamSettings(port=0, public=public)},
    )
    users = Authenticator(UserFile(tmp_path / "users"), {})
    try:
        if public:
            (stream,) = open_streams(config, Service(store=MemoryStore()), users)
            stream.close()
        else:
            with pytest.raises(ConfigError, match=r"rpc\.port: other machines could reach it"):
                open_streams(config, Service(store=MemoryStore()), users)
    finally:
        users.close()


def test_a_file_that_does_not_exist_is_made_and_an_orderly_end_lets_go(tmp_path: Path) -> None:
    with LocalServer("--writable", tmp_path / "new.h5", "--port", "0", "--rpc-port", "0") as server:
        port = server.streams["rpc"]
        with Peer(port) as peer, Peer(port) as follower:
            follower.hello()
            follower.send(packed(command="follow", id=1))
            assert peer.ask(command="write", path="/a", data=[1, 2])["status"] == "success"
            assert server.stop() == 0
            assert peer.receive() == b""
    with h5py.File(tmp_path / "new.h5") as file:
        assert file["a"][:].tolist() == [1, 2]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def nd(kind: Any, shape: list[int], data: bytes = b"") -> dict[bytes, Any]:
    return {b"nd": True, b"type": kind, b"kind": b"V" * isinstance(kind, list), b"shape": shape, b"data": data}


def nested(levels: int, count: list[Any]) -> Any:
    kind: Any = "<i4"
    for _ in range(levels):
        kind = [["a", kind, *count]]
    return kind


@pytest.mark.parametrize(
    "value",
    [
        nd([["a", "<i4"], ["a", "<i4"]], [1], bytes(8)),
        nd([["a\0b", "<i4"]], [1], bytes(4)),
        nd(nested(400, []), [1], bytes(4)),
        nd([["a", "<i4", [1 << 40]]], [1], bytes(4)),
        nd([["a", "<i4", [1 << 30]]], [0]),
        nd("|S2000000000", [0]),
        nd("<i4", [0, 1 << 61]),
        nd("<i4", [0, 1 << 40, 1 << 40]),
        nd("<i4", [1] * 33, bytes(4)),
        nd("|S0", [400_000_000]),
        nd([["a", "|S0"], ["b", "|u1"]], [1], bytes(1)),
        nd("<i4", [-1], bytes(4)),
        {b"__ndarray__": [b""] * 1000, b"dtype": "|S1000000", b"shape": [1000]},
    ],
)
def test_arrays_that_are_none(served: Served, value: Any) -> None:
    with Peer(served.port) as peer:
        peer.send(msgpack.packb({"command": "write", "path": "/none", "data": value}))
        reply = peer.reply()
        assert reply["status"] == "error"
        assert "internal" not in reply["message"]
        assert peer.ask(command="get_config")["status"] == "success"
        assert peer.ask(command="read", path="/none") == {"status": "not_found"}


@pytest.mark.parametrize("kind", ["<U1", ">U1", [["a", "<U1"]]])
def test_scalars_that_are_no_characters(served: Served, kind: Any) -> None:
    wrong = {b"nd": False, b"type": kind, b"data": b"\xff" * 4}
    with Peer(served.port) as peer:
        for request in ({"path": wrong}, {"path": "/none", "data": wrong}, {"path": "/none", "compression": wrong}):
            peer.send(msgpack.packb({"command": "write", **request}))
            reply = peer.reply()
            assert reply["status"] == "error"
            assert "internal" not in reply["message"]


@pytest.mark.parametrize(
    "value",
    [
        {"$nd": [], "dtype": "str", "shape": [0, 1 << 61]},
        {"$nd": [], "dtype": {"vlen": "<i4"}, "shape": [0, 1 << 61]},
        {"$nd": [[b""]] * 1000, "dtype": {"vlen": "|S1000000"}, "shape": [1000]},
        {"$nd": 0, "dtype": "<i4", "shape": [0, 1 << 61]},
        {"$nd": 0, "dtype": nested(15, [[(1 << 31) - 1]]), "shape": [0]},
        {"$nd": 0, "dtype": {"vlen": nested(400, [])}, "shape": [0]},
    ],
)
def test_extended_arrays_that_are_none(served: Served, value: dict[str, Any]) -> None:
    bodies = [b""] if value["$nd"] == 0 else []
    with Peer(served.port) as peer:
        peer.hello()
        for _ in range(2):
            peer.send(extended({"command": "write", "path": "/none", "data": value, "id": 1}, *bodies))
            assert peer.reply()["code"] in ("bad_request", "too_large")


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"dtype": [["a", "<i4", [1 << 30]]], "shape": [1]}, "too_large"),
        ({"dtype": nested(15, [[(1 << 31) - 1]]), "shape": [0]}, "too_large"),
        ({"dtype": "<f8", "shape": [1 << 62, 8]}, "too_large"),
        ({"dtype": "<f8", "shape": [1 << 60]}, "too_large"),
        ({"dtype": {"enum": "<i1", "members": {"A": 300}}, "shape": [1]}, "bad_request"),
        ({"dtype": {"enum": "<u1", "members": {"A": -1}}, "shape": [1]}, "bad_request"),
        ({"dtype": {"enum": "<i1", "members": {"A": 3, "B": 3}}, "shape": [1]}, "bad_request"),
        ({"dtype": {"enum": "<i1", "members": {}}, "shape": [1]}, "bad_request"),
        ({"dtype": [["a\0b", "<i4"]], "shape": [1]}, "bad_request"),
        ({"dtype": np.zeros(2), "shape": [1]}, "bad_request"),
        ({"dtype": [["a", np.zeros(2)]], "shape": [1]}, "bad_request"),
    ],
)
def test_datasets_that_hdf5_could_not_open_are_not_made(
    served: Served, greeted: Peer, group: str, how: dict[str, Any], code: str
) -> None:
    reply = greeted.ask(command="create_dataset", path="/unopened", id=1, **how)
    assert (reply["id"], reply["code"]) == (1, code)
    assert greeted.ask(command="stat", path="/unopened")["code"] == "not_found"


def test_nor_is_one_resized_to_that(greeted: Peer, group: str) -> None:
    path = f"{group}/grows"
    made = {"command": "create_dataset", "path": path, "dtype": "<f8", "shape": [1], "maxshape": [None]}
    assert greeted.ask(**made)["status"] == "success"
    assert greeted.ask(command="resize", path=path, shape=[1 << 63])["code"] == "bad_request"
    assert greeted.ask(command="stat", path=path)["shape"] == [1]


def test_an_array_that_is_not_packed_leaves_its_gaps_behind(peer: Peer, group: str) -> None:
    values = np.array([(1, 2.5), (3, 4.5)], np.dtype([("a", "i1"), ("b", "<f8")], align=True))
    assert ["", "|V7"] in [list(entry) for entry in values.dtype.descr]
    assert peer.ask(command="write", path=group, data=values)["status"] == "success"
    found = peer.data(group)
    assert found.dtype == np.dtype([("a", "|i1"), ("b", "<f8")])
    assert found.tolist() == values.tolist()
