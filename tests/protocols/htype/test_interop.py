"""psi-mflow 1.0.0 and psi-bsread 2.0.1 understand us, and we them; they run in processes of their own."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from ndstream.core.packets import Buffer, Packet
from ndstream.protocols.htype.messages import BsreadMessage, Channel, Value
from ndstream.wire.multipart import Codecs

CODECS = Codecs()
TIMEOUT = 60_000


class Peer:
    """One of the originals, connected to both ends of ours."""

    def __init__(self, process: subprocess.Popen[bytes], out: zmq.Socket[bytes], back: zmq.Socket[bytes]) -> None:
        self._process, self._out, self._back = process, out, back

    def _ask(self, value: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(value, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def receive(self, frames: list[Buffer]) -> Any:
        """What the peer makes of a message of ours."""
        self._out.send_multipart(frames)
        return self._ask(None)

    def send(self, value: Any) -> Packet:
        """What we make of a message that the peer made of `value`."""
        assert self._ask(value) is None
        return CODECS.decode(self._back.recv_multipart())


@contextmanager
def started(name: str) -> Iterator[Peer]:
    with zmq.Context() as context, context.socket(zmq.PUSH) as out, context.socket(zmq.PULL) as back:
        for socket in (out, back):
            socket.linger = 0
            socket.sndtimeo = socket.rcvtimeo = TIMEOUT
        addresses = [f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}" for socket in (out, back)]
        command: list[str | Path] = [sys.executable, Path(__file__).with_name("peer.py"), name, *addresses]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            yield Peer(process, out, back)
        assert process.returncode == 0


def same(found: Any, expected: Any) -> None:
    """Compare data of messages, arrays by type, shape and elements; parts may be any buffer."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, np.ndarray):
        # numpy turns the bytes of what it pickles into the order of the machine.
        assert found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


NAMES = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)] + ["float32", "float64"]
MESSAGES: list[Any] = [
    *({"header": {"htype": "array-1.0", "frame": 3, "shape": [2, 3], "type": name},
       "data": [np.arange(6).reshape(2, 3).astype(name)]} for name in NAMES),
    {"header": {"htype": "raw-1.0", "note": "ü"}, "data": [b"abc"]},
    {"header": {"htype": "dseries_end-1.0", "series": 4}},
    {"header": {"htype": "dheader-1.0", "series": 4, "header_detail": "basic"}, "part_2": {"nimages": 3, "x": 0.5}},
    {"header": {"htype": "dheader-1.0", "series": 4, "header_detail": "all"}, "part_2": {"nimages": 3},
     "part_3": {"htype": "dflatfield-1.0", "shape": [2, 1], "type": "float32"}, "part_4_raw": bytes(8),
     "part_5": {"htype": "dpixelmask-1.0", "shape": [2, 1], "type": "uint32"}, "part_6_raw": bytes(8),
     "part_7": {"htype": "dcountrate_table-1.0", "shape": [2, 1], "type": "float32"}, "part_8_raw": bytes(8),
     "appendix": {"a": [1]}},
    {"header": {"htype": "dimage-1.0", "series": 4, "frame": 2, "hash": ""},
     "part_2": {"htype": "dimage_d-1.0", "shape": [2, 1], "type": "uint16", "encoding": "<", "size": 4},
     "part_3_raw": b"\1\0\2\0", "part_4": {"htype": "dconfig-1.0", "start_time": 1, "stop_time": 2, "real_time": 1}},
]  # fmt: skip
#: The original does not send these right: more than one blob, an empty segment, a header alone, an appendix.
OURS_ONLY: list[Any] = [
    {
        "header": {"htype": "array-1.0", "shape": [2], "type": "uint8"},
        "data": [np.zeros(2, "u1"), None, np.ones(2, "u1")],
    },
    {"header": {"htype": "array-1.0", "shape": [2], "type": "uint8"}, "data": []},
    {"header": {"htype": "raw-1.0"}, "data": [b"abc", None, b"d"]},
    {"header": {"htype": "dheader-1.0", "series": 4, "header_detail": "none"}},
    {**MESSAGES[-1], "appendix": {"a": 1}},
]


def test_mflow_understands_us_and_we_it() -> None:
    with started("mflow") as peer:
        for data in [*MESSAGES, *OURS_ONLY]:
            same(peer.receive(CODECS.encode(data)), data)
        for data in MESSAGES:
            packet = peer.send(data)
            same(packet.data, data)
            assert [bytes(part) for part in CODECS.encode(packet.data)] == packet.frames


COMPRESSIONS = ["none", "lz4", "bitshuffle_lz4"]
ARRAYS = {f"{name}-{shape}": np.arange(np.prod(shape)).reshape(shape).astype(name)
          for name in NAMES for shape in [(1,), (5,), (4, 3)]}  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bsread_understands_us_and_we_it(compression: str) -> None:
    values: dict[str, Any] = ARRAYS | {"big": np.arange(6, dtype=">u2").reshape(2, 3), "bool": np.array([True, False])}
    values |= {"text": "héllo", "none": None}
    channels: dict[str, Any] = {}
    for name, value in values.items():
        said: dict[str, Any] = {"type": "string" if isinstance(value, str) else "float64"}
        if isinstance(value, np.ndarray):
            said = {"type": value.dtype.name, "shape": list(value.shape[::-1])}
            # Between its own ends the original cannot do LZ4 with big-endian values.
            said["compression"] = compression if name != "big" or compression != "lz4" else "none"
            said["encoding"] = "big" if name == "big" else "little"
        channels[name] = said, value
    expected = {name: value[0] if np.shape(value) == (1,) else value for name, value in values.items()}
    with started("bsread") as peer:
        found = peer.send((None if compression == "none" else compression, channels, 77)).data
        assert (found.pulse_id, found.global_timestamp, found.global_timestamp_offset) == (77, 11, 22)
        same({name: value.value for name, value in found.data.items()}, expected)
        stamps = {name: (value.timestamp, value.timestamp_offset) for name, value in found.data.items()}
        assert stamps == {name: (None, None) if value is None else (11, 22) for name, value in values.items()}

        made = BsreadMessage(
            header={"htype": "bsr_m-1.1", "dh_compression": compression},
            data={name: Value(value, 3, 4) for name, value in values.items()},
            channels=[
                Channel(name=name, type=said["type"], shape=tuple(said.get("shape", [1])[::-1]),
                        encoding=said.get("encoding", "little"), compression=compression)
                for name, (said, _) in channels.items()
            ],
            pulse_id=78,
            global_timestamp=1,
            global_timestamp_offset=2,
        )  # fmt: skip
        sent = CODECS.encode(made)
        pulse_id, seconds, nanoseconds, hashed, theirs = peer.receive(sent)
        assert (pulse_id, seconds, nanoseconds, hashed) == (78, 1, 2, CODECS.decode(sent).data.hash)
        same({name: value for name, (value, _, _) in theirs.items()}, expected)
        assert all(value is None or (int(at), int(ns)) == (3, 4) for value, at, ns in theirs.values())
