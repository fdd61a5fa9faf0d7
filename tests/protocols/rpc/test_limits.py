"""What a connection may take: memory, time, places (C2, C3; acceptance 15, 19, 21)."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import zlib
from contextlib import ExitStack
from typing import Any

import h5py
import numpy as np
import pytest
from tests.protocols.rpc.conftest import StartOwn
from tests.protocols.rpc.hosted import hosted
from tests.protocols.rpc.peer import FEATURES, Peer, extended, frame, packed, taken_apart

import ndstream
from ndstream.core.limits import KiB, MiB
from ndstream.errors import Busy, ConnectionLost
from ndstream.protocols.rpc.intake import Intake
from ndstream.protocols.rpc.values import to_stored
from ndstream.stores.memory import Array
from ndstream.transports.tcp import Link

ROWS = np.arange(10 * 65_536, dtype="<i4").reshape(-1, 64)
ZEROS = np.zeros((1 << 20) + 1)


def test_a_frame_that_comes_drop_by_drop_is_cut() -> None:
    with hosted(frame_timeout=60.0) as host, Peer(host.port) as idle, Peer(host.port) as slow:
        slow.socket.sendall(b"\x00\x00\x10\x00\x81")
        host.until(lambda: any(one.link.frames.partial for one in host.connections))
        host.check()
        # However long this machine has been up: the time of a frame begins with its connection.
        assert len(host.connections) == 2
        host.check(later=70)
        host.check(later=140)
        assert slow.receive() == b""
        assert idle.ask(command="get_config")["status"] == "success"


def test_a_long_frame_that_goes_on_is_not_cut() -> None:
    payload = packed(command="write", path="/x", data=np.zeros(1 << 18))
    whole = frame(payload)
    with hosted(frame_timeout=60.0) as host, Peer(host.port) as peer:
        for start in range(0, len(whole), 1 << 19):
            peer.socket.sendall(whole[start : start + (1 << 19)])
            host.check()
        assert peer.reply()["status"] == "success"


def test_more_connections_than_there_may_be() -> None:
    async def one_too_many(port: int) -> None:
        with pytest.raises(Busy):
            await ndstream.HDF5Client(port=port).ping()

    with hosted(connections=2) as host, Peer(host.port) as first, Peer(host.port) as second:
        assert first.ask(command="get_config") == second.ask(command="get_config")
        with Peer(host.port) as third:
            assert third.reply()["code"] == "busy"
            assert third.receive() == b""
        asyncio.run(one_too_many(host.port))
        assert first.ask(command="get_config")["status"] == "success"


def test_who_does_not_read_is_not_read_either() -> None:
    """Replies that are not taken stop what makes them, and requests beyond `in_flight` stay with who sends them."""
    with hosted({"x": Array(ZEROS)}, in_flight=4) as host, Peer(host.port) as peer, Peer(host.port) as other:
        peer.hello()
        (greedy,) = [one for one in host.connections if one._session is not None]
        for number in range(40):
            peer.send(packed(command="read", path="/x", id=number))
        host.until(lambda: greedy.link.unsent and greedy._held)
        assert other.ask(command="get_config")["status"] == "success"
        assert host.call(lambda: len(greedy._open)) <= 4
        # One reply is on its way, none is made meanwhile.
        assert host.call(greedy.link.transport.get_write_buffer_size) < 2 * ZEROS.nbytes
        assert sorted(peer.reply()["id"] for _ in range(40)) == list(range(40))


def test_what_is_not_taken_of_streams_is_not_read() -> None:
    with hosted({"x": Array(ZEROS)}, piece=4 * MiB) as host, Peer(host.port) as peer, Peer(host.port) as other:
        peer.hello()
        (greedy,) = [one for one in host.connections if one._session is not None]
        for number in range(20):
            peer.send(packed(command="read", path="/x", stream=True, id=number))
        host.until(lambda: greedy.link.unsent and len(greedy._open) == 20)
        assert other.ask(command="get_config")["status"] == "success"
        # What the kernel takes without being read is less than two pieces more.
        assert host.call(lambda: host.store.alive) <= 2
        assert len(host.store.given) < 5
        ends = 0
        while ends < 20:
            ends += "status" in peer.reply()
        host.until(lambda: not host.app.replies.used and not host.store.alive)


def test_replies_have_a_limit_together_and_who_blocks_others_is_cut() -> None:
    with (
        hosted({"x": Array(ZEROS), "y": Array(ROWS)}, replies=10 * MiB) as host,
        Peer(host.port) as slow,
        Peer(host.port) as other,
    ):
        slow.send(packed(command="read", path="/x"))
        host.until(lambda: any(one.link.unsent for one in host.connections))
        host.check()
        host.check(later=100)
        assert len(host.connections) == 2
        other.send(packed(command="read", path="/y"))
        host.until(lambda: host.app.replies.wanted)
        assert len(host.store.given) == len(range(0, ZEROS.nbytes, 8 * MiB))
        with Peer(host.port) as third:
            assert third.ask(command="get_config")["status"] == "success"
        host.check(later=100)
        np.testing.assert_array_equal(other.reply()["data"], ROWS)


def test_nobody_waits_behind_long_replies() -> None:
    long = np.zeros(5 * MiB)
    with (
        hosted({"x": Array(long), "y": Array(ROWS)}, replies=64 * MiB) as host,
        Peer(host.port) as slow,
        Peer(host.port) as waiting,
        Peer(host.port) as other,
    ):
        slow.send(packed(command="read", path="/x"))
        host.until(lambda: any(one.link.unsent for one in host.connections))
        waiting.send(packed(command="read", path="/x"))
        host.until(lambda: host.app.replies.wanted)
        np.testing.assert_array_equal(other.data("/y"), ROWS)


@pytest.mark.parametrize("made", [True, False])
def test_nothing_is_left_of_connections_that_are_gone(made: bool) -> None:
    """Not even what only a garbage collection would find, be it on its way or still in the making."""
    gc.collect()
    gc.disable()
    try:
        with hosted({"x": Array(ZEROS)}, piece=64 * KiB, frame=16 * MiB) as host:
            if not made:
                host.call(host.store.pieces.clear)
            with ExitStack() as peers:
                for number in range(8):
                    peer = peers.enter_context(Peer(host.port))
                    if number % 2:
                        peer.hello()
                        peer.send(packed(command="read", path="/x", stream=True, id=1))
                        peer.send(packed(command="read", path="/x", stream=True, id=2))
                    else:
                        peer.send(packed(command="read", path="/x"))
                if made:
                    host.until(lambda: sum([one.link.unsent for one in host.connections]) == 8)
                host.until(lambda: host.store.alive >= 8)
            # Who asks no more is answered still: that nobody listens shows when something is sent.
            host.call(host.store.pieces.set)
            host.until(lambda: not host.connections and not host.store.alive)
            assert host.app.replies.used == 0
    finally:
        gc.enable()


def test_frames_that_are_worked_on_count_too() -> None:
    payloads = [packed(command="write", path=f"/{number}", data=np.zeros(75_000), id=number) for number in range(6)]
    with hosted(frame=1 * MiB, frames=1 * MiB) as host, Peer(host.port) as peer, Peer(host.port) as other:
        peer.hello()
        (one,) = [one for one in host.connections if one._session is not None]
        host.call(host.store.gate.clear)
        peer.socket.settimeout(0.0)
        sent = memoryview(b"".join(map(frame, payloads)))
        while sent and not host.call(lambda: host.app.intake.holds(one.link)):
            try:
                sent = sent[peer.socket.send(sent[: 64 * KiB]) :]
            except BlockingIOError:
                continue
        # What the kernel took for us is not read.
        host.until(lambda: host.app.intake.holds(one.link))
        assert host.call(lambda: host.app.intake.total) <= 3 * MiB
        assert host.call(lambda: len(one._open)) < len(payloads)
        peer.socket.settimeout(60.0)
        assert other.ask(command="get_config")["status"] == "success"
        host.call(host.store.gate.set)
        peer.socket.sendall(sent)
        assert sorted(peer.reply()["id"] for _ in payloads) == list(range(6))
        host.until(lambda: host.app.intake.total == 0)


def test_requests_that_grow_in_memory_are_taken_apart_as_others_end() -> None:
    """A message of many small values takes a hundred times as much as its frame."""
    values: list[Any] = [[]] * 100_000
    with hosted(frame=1 * MiB) as host, Peer(host.port) as peer:
        peer.hello()
        (one,) = [one for one in host.connections if one._session is not None]
        host.call(host.store.gate.clear)
        for number in range(8):
            peer.send(packed(command="write", path="/x", data=values, id=number))
        host.until(lambda: one._open and len(one._waiting) + len(one._open) >= 7)
        host.until(lambda: one._unpacked > MiB)
        assert host.call(lambda: len(one._open)) == 1
        host.call(host.store.gate.set)
        assert [peer.reply()["id"] for _ in range(8)] == list(range(8))
        host.until(lambda: one._unpacked == 0)


def test_what_is_longer_than_it_can_be_is_not_looked_at() -> None:
    with hosted(operations=2) as host, Peer(host.port) as peer, Peer(host.port) as other:
        assert "hello" in other.hello(token="x" * 100_000)["message"]
        peer.hello()
        assert peer.ask(command="list", after="/" * 5000)["code"] == "bad_request"
        assert peer.ask(command="batch", commands=[{"command": "none"}] * 2)["code"] == "bad_request"
        assert peer.ask(command="batch", commands=[{"command": "none"}] * 3)["code"] == "too_large"


class Counted(Link):
    """Notes whether it is held."""

    def __init__(self) -> None:
        super().__init__(1, lambda payloads: None, lambda error: None)
        self.held = 0

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1


def test_the_oldest_frame_goes_on_when_nothing_else_would() -> None:
    intake = Intake(100)
    first, second, third = Counted(), Counted(), Counted()
    intake.note(first, 40, 0)
    intake.note(second, 50, 0)
    intake.note(first, 60, 0)
    intake.note(second, 60, 0)
    assert (first.held, second.held) == (0, 1)
    intake.note(third, 0, 70)
    intake.note(first, 70, 0)
    # Now there is something that ends by itself.
    assert (first.held, second.held, intake.holds(first)) == (1, 1, True)
    intake.note(third, 0, 0)
    assert (first.held, second.held) == (0, 1)
    intake.note(first, 0, 0)
    assert (second.held, intake.total) == (0, 60)
    intake.note(second, 0, 0)
    assert intake.total == 0


def test_a_stream_comes_in_pieces_that_are_all_of_it() -> None:
    with hosted({"x": Array(ROWS)}, frame=256 * KiB) as host, Peer(host.port) as peer:
        peer.hello()
        whole = peer.ask(command="read", path="/x")
        assert whole["code"] == "too_large"
        assert whole["details"] == {"nbytes": ROWS.nbytes, "limit": 256 << 10}
        peer.send(packed(command="read", path="/x", stream=True, id=1))
        found: list[np.ndarray[Any, Any]] = []
        more = True
        while more:
            payload = peer.receive()
            assert len(payload) <= 256 << 10
            fields, more = taken_apart(payload) if payload[0] == 0xC1 else ({}, False)
            if more:
                assert fields["start"] == sum([len(piece) for piece in found])
                found.append(fields["data"])
        np.testing.assert_array_equal(np.concatenate(found), ROWS.reshape(-1))


@pytest.mark.parametrize("together", [True, False])
def test_a_stream_is_cancelled(together: bool) -> None:
    """Also before it has begun; either way it has one end, and nothing comes behind that."""
    with hosted({"x": Array(ROWS)}, frame=256 * KiB) as host, Peer(host.port) as peer:
        peer.hello()
        asked = frame(packed(command="read", path="/x", stream=True, id=2))
        cancel = frame(packed(command="cancel", target=2, id=3))
        seen: list[dict[str, Any]] = []
        if together:
            peer.socket.sendall(asked + cancel)
        else:
            peer.socket.sendall(asked)
            seen.append(peer.reply())
            peer.socket.sendall(cancel)
        peer.send(packed(command="ping", id=4))
        while not {2, 3, 4} <= {reply["id"] for reply in seen if "status" in reply}:
            seen.append(peer.reply())
        ends = {reply["id"]: reply for reply in seen if "status" in reply}
        assert len([reply for reply in seen if reply["id"] == 2 and "status" in reply]) == 1
        assert ends[2].get("code") == "cancelled" or (not together and ends[2]["status"] == "success")
        if together:
            assert ends[3]["cancelled"] is True
        assert peer.ask(command="ping", id=5) == {"id": 5, "status": "success"}


def test_what_writes_is_not_cancelled() -> None:
    with hosted() as host, Peer(host.port) as peer:
        peer.hello()
        host.call(host.store.gate.clear)
        peer.send(packed(command="write", path="/x", data=[1], id=1))
        assert peer.ask(command="cancel", target=1, id=2)["cancelled"] is False
        host.call(host.store.gate.set)
        assert peer.reply() == {"id": 1, "status": "success"}


@pytest.mark.parametrize("target", [None, [1], {"a": 1}, 1.5])
def test_cancel_of_what_is_no_id(target: Any) -> None:
    with hosted() as host, Peer(host.port) as peer:
        peer.hello()
        assert peer.ask(command="cancel", target=target, id=1)["code"] == "bad_request"
        assert peer.ask_json(command="cancel", target=7, id="x") == {"id": "x", "status": "success", "cancelled": False}
        assert peer.ask(command="ping") == {"status": "success"}


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_longer_than_a_frame(compress: bool) -> None:
    values = np.random.default_rng(1).integers(0, 1000, (2000, 300)).astype("<i4")
    texts = np.array([f"text {number}" * (number % 40) for number in range(5000)])

    async def work(port: int) -> None:
        async with ndstream.HDF5Client(port=port, unwrap=True, compress=compress) as client:
            await client.write("/long", values, compression="gzip")
            np.testing.assert_array_equal(await client.read("/long"), values)
            np.testing.assert_array_equal(await client.read("/long", np.s_[5:1500:3]), values[5:1500:3])
            for start in range(0, 5000, 500):
                await client.append("/texts", texts[start : start + 500])
            np.testing.assert_array_equal(await client.read("/texts"), texts)

    with hosted(frame=256 * KiB) as host:
        asyncio.run(work(host.port))


def test_a_lost_connection_tells_which_writes_are_unknown() -> None:
    async def work(port: int, lose: Any) -> None:
        client = ndstream.HDF5Client(port=port, unwrap=True)
        await client.connect()
        asked = [asyncio.create_task(client.append("/x", np.zeros(9))), asyncio.create_task(client.read("/x"))]
        await asyncio.to_thread(lose)
        write, read = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(write, ConnectionLost)
        assert "whether it was carried out is unknown" in str(write)
        assert isinstance(read, ConnectionLost)
        assert "unknown" not in str(read)
        assert await client.ping() is None
        await client.close()

    with hosted() as host:

        def lose() -> None:
            host.until(lambda: any(len(one._open) == 2 for one in host.connections))
            for one in host.connections:
                host.call(one.link.abort)

        host.call(host.store.gate.clear)
        asyncio.run(work(host.port, lose))


def test_values_are_counted_before_memory_is_taken_for_them() -> None:
    with hosted(values=1000) as host, Peer(host.port) as peer:
        many: list[Any] = [{}] * 1000
        assert peer.ask(command="write", path="/x", data=[1.0] * 900)["status"] == "success"
        assert "values" in peer.ask(command="write", path="/x", data=many)["message"]
        assert "values" in peer.ask_json(command="write", path="/x", data=many)["message"]
        assert peer.ask_json(command="write", path="/x", data=['"a,b,c"' * 200])["status"] == "success"
    with hosted(values=1000) as host, Peer(host.port) as peer:
        peer.hello()
        for ask in (peer.ask, peer.ask_json):
            told = ask(command="write", path="/x", data=[[0] * 999, [0]], id=7)
            assert (told["id"], told["code"]) == (7, "too_large")
        peer.send(extended({"command": "write", "path": "/x", "data": many, "id": "a"}))
        told = peer.reply()
        assert (told["id"], told["code"]) == ("a", "too_large")
        assert peer.ask(command="write", path="/x", data=np.zeros(5000), id=8)["status"] == "success"


def scalar(kind: str, data: bytes) -> dict[bytes, Any]:
    """Scalar as msgpack-numpy spells it."""
    return {b"nd": False, b"type": kind, b"data": data}


@pytest.mark.parametrize(
    "bomb",
    [
        ["x" * 60_000] + [""] * 60_000,
        [scalar("<U20000", b"x\0\0\0" * 20_000), *["a"] * 2000],
        [scalar("|V80000", bytes(80_000))] + [scalar("|V1", b"a")] * 2000,
        [np.full(100, "x" * 4000), *[np.full(100, "a")] * 100],
        ["a", *[1.5] * 300_000],
    ],
)
def test_text_that_would_take_far_more_as_an_array(bomb: list[Any]) -> None:
    with hosted() as host, Peer(host.port) as peer:
        assert "fewer" in peer.ask(command="write", path="/x", data=bomb)["message"]
        assert peer.ask(command="write", path="/x", data=bomb[:20])["status"] == "success"


def test_lists_of_bytes_are_no_array_on_the_way_either() -> None:
    tracemalloc.start()
    try:
        assert to_stored([[b"x" * 20_000], [b""] * 2000]).serialized
        assert tracemalloc.get_traced_memory()[1] < 10 * MiB
    finally:
        tracemalloc.stop()


def test_lists_that_would_be_much_longer_than_an_array_are_not_made() -> None:
    members = {"rows": Array(np.zeros((1 << 20, 0))), "long": Array(np.full(300 * KiB, 200, "u1"))}
    with hosted(members, frame=1 * MiB) as host, Peer(host.port) as peer:
        assert "shape" in peer.ask_json(command="read", path="/rows")["message"]
        assert "more than 1048576 bytes" in peer.ask_json(command="read", path="/long")["message"]
        assert peer.data("/rows").shape == (1 << 20, 0)
        assert len(peer.data("/long")) == 300 * KiB


def test_texts_are_counted_as_they_are_read(start_own: StartOwn) -> None:
    """What is said of them beforehand is how many there are."""
    texts = np.full(64, "x" * 100_000, h5py.string_dtype())
    served = start_own({"texts": texts}, limits={"frame": "1 MiB"})
    with Peer(served.port) as peer:
        assert "elements of more than" in peer.ask(command="read", path="/texts")["message"]
    with Peer(served.port) as peer:
        peer.hello()
        assert peer.ask(command="read", path="/texts")["code"] == "too_large"
        assert peer.ask(command="read", path="/texts", selection=[[0, 2]], max_bytes=150_000)["code"] == "too_large"
        assert peer.data("/texts", selection=[[0, 2]]).tolist() == texts[:2].tolist()


@pytest.mark.parametrize("codec", [None, "zlib"])
def test_the_arrays_of_a_message_take_no_more_than_a_frame_together(codec: str | None) -> None:
    """However often a body is meant, and whatever it becomes."""
    raw = bytes(900 * KiB)
    one = {"$nd": 0, "dtype": "|u1", "shape": [len(raw)]} | ({"codec": codec, "nbytes": len(raw)} if codec else {})
    body = zlib.compress(raw) if codec else raw
    with hosted(frame=1 * MiB) as host, Peer(host.port) as peer:
        peer.hello(features=[*FEATURES, "zlib"])
        for count, code in {3: None, 75: "too_large"}.items():
            peer.send(extended({"command": "write", "path": "/x", "data": [one] * count, "id": 1}, body))
            assert peer.reply().get("code") == code
        assert peer.ask(command="read", path="/x", max_bytes=0)["details"]["nbytes"] == 3 * len(raw)


def test_neither_do_rows_in_lists() -> None:
    rows = {b"__ndarray__": ["a"], b"dtype": "|S300000", b"shape": [1]}
    with hosted(frame=1 * MiB) as host, Peer(host.port) as peer:
        assert peer.ask(command="write", path="/x", data=[rows] * 3)["status"] == "success"
        assert "frame" in peer.ask(command="write", path="/x", data=[rows] * 224)["message"]


@pytest.mark.parametrize("fill", [["a"] * 2000, np.full(2000, "a"), [np.full(2000, "a")]])
def test_a_fill_value_is_one_element(fill: Any) -> None:
    with hosted() as host, Peer(host.port) as peer:
        told = peer.ask(command="create_dataset", path="/x", dtype="|S50000", shape=[1], fillvalue=fill)
        assert told["status"] == "error"
        assert "internal" not in told["message"]


def test_drained_servers_end_streams_and_close() -> None:
    with ExitStack() as peers:
        with hosted() as host:
            follower, writer = peers.enter_context(Peer(host.port)), peers.enter_context(Peer(host.port))
            follower.hello()
            follower.send(packed(command="follow", id=1))
            assert follower.ask(command="ping", id=2)["status"] == "success"
            host.call(host.store.gate.clear)
            writer.send(packed(command="write", path="/x", data=[1]))
            host.until(lambda: any(one._reader is not None for one in host.connections))
        # The server is gone: it has answered what was under way, and ended what has no end.
        assert writer.reply()["status"] == "success"
        assert writer.receive() == follower.receive() == b""
