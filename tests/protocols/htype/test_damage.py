"""Messages of every htype, damaged: each gives data or a typed error with its parts, and has no effect on the next."""

from __future__ import annotations

import hashlib
import json
import resource
import struct
from functools import cache
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndstream.core.packets import Buffer, Decoding
from ndstream.errors import MessageError
from ndstream.protocols.htype.messages import BsreadMessage, Channel, Value
from ndstream.wire.compression import pack, unpack
from ndstream.wire.multipart import Codecs

IMAGE = (np.arange(64 * 40, dtype="<u2") % 300).reshape(64, 40)


@cache
def messages() -> dict[str, list[bytes]]:
    """One good message of every kind."""
    codecs = Codecs()
    data: dict[str, Any] = {
        "array": {"header": {"htype": "array-1.0", "frame": 1}, "data": [IMAGE, None, IMAGE]},
        "chunk": {"header": {"htype": "chunk-1.0"}, "data": [IMAGE]},
        "raw": {"header": {"htype": "raw-1.0"}, "data": [b"ab", None]},
        "pilatus": {"header": {"htype": "pilatus-1.0", "filename": "a.cbf"}, "data": [b"###CBF"]},
        "end": {"header": {"htype": "dseries_end-1.0", "series": 1}},
        "basic": {"header": {"htype": "dheader-1.0", "series": 1}, "part_2": {"nimages": 5}, "appendix": {"a": [1]}},
        "all": {
            "header": {"htype": "dheader-1.0", "series": 1}, "part_2": {"x_pixels_in_detector": 40},
            "part_3": {"htype": "dflatfield-1.0"}, "part_4_raw": IMAGE.astype("<f4"),
            "part_5": {"htype": "dpixelmask-1.0"}, "part_6_raw": IMAGE.astype("<u4"),
            "part_7": {"htype": "dcountrate_table-1.0"}, "part_8_raw": IMAGE.astype("<f4"),
        },
        "start": {"header": {"htype": "stream2", "type": "start", "flatfield": {"1": pack(IMAGE, "bslz4")}}},
        "stream2": {
            "header": {"htype": "stream2", "type": "image", "image_id": 3},
            "data": {"1": pack(IMAGE, "bslz4"), "2": pack(IMAGE, "lz4-hdf5"), "3": IMAGE, "4": pack(IMAGE, "bszstd")},
        },
    }  # fmt: skip
    for encoding in ("<", "lz4<", "bs16-lz4<"):
        data[encoding] = {
            "header": {"htype": "dimage-1.0", "series": 1, "frame": 0}, "part_2": {"encoding": encoding},
            "part_3_raw": IMAGE, "part_4": {"htype": "dconfig-1.0"}, "appendix": b"text",
        }  # fmt: skip
    for compression in ("none", "lz4", "bitshuffle_lz4"):
        data[compression] = BsreadMessage(
            header={"htype": "bsr_m-1.1", "dh_compression": compression},
            data={"a": Value(1.5), "b": Value(IMAGE), "c": Value("text"), "d": Value(), "e": Value(IMAGE[:, 0])},
            channels=[Channel(name="b", type="uint16", shape=IMAGE.shape, compression=compression)],
            pulse_id=1, global_timestamp=2, global_timestamp_offset=3,
        )  # fmt: skip
    return {name: [bytes(part) for part in codecs.encode(value)] for name, value in data.items()}


KINDS = list(messages())
CODECS = Codecs()
KEEPING = Codecs(Decoding(compressed=True))


def look(codecs: Codecs, frames: list[Buffer]) -> None:
    """Decode a message and all that is in it, or find that it cannot be."""
    try:
        packet = codecs.decode(frames)
    except MessageError as error:
        assert list(error.parts) == frames
        return
    assert packet.position is None or packet.position.counter
    assert isinstance(packet.htype, str)
    try:
        for image in packet.images.values():
            unpack(image)
    except MessageError:
        pass  # so much for that
    codecs.encode(packet.data)


WORDS: list[Any] = [
    0,
    1,
    -1,
    1.5,
    None,
    "",
    "x",
    [],
    {},
    [[]],
    1 << 62,
    1 << 64,
    [1 << 60],
    [-1],
    [1.5],
    "object",
    "lz4",
    "big",
    True,
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS), st.data())
def test_damaged_messages_are_data_or_a_typed_error(kind: str, data: st.DataObject) -> None:
    frames: list[Buffer] = list(messages()[kind])
    match data.draw(st.sampled_from(["byte", "cut", "drop", "empty", "swap", "key", "more", "random"])):
        case "byte":
            at = data.draw(st.integers(0, len(frames) - 1))
            part = bytearray(frames[at])
            if part:
                part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
            frames[at] = part
        case "cut":
            at = data.draw(st.integers(0, len(frames) - 1))
            frames[at] = frames[at][: data.draw(st.integers(0, len(frames[at])))]
        case "drop":
            del frames[data.draw(st.integers(0, len(frames) - 1))]
        case "empty":
            frames[data.draw(st.integers(0, len(frames) - 1))] = b""
        case "swap":
            frames = data.draw(st.permutations(frames))
        case "key":
            described = [at for at, part in enumerate(frames) if bytes(part[:1]) == b"{"]
            if described:
                at = data.draw(st.sampled_from(described))
                header = json.loads(bytes(frames[at]))
                header[data.draw(st.sampled_from(sorted(header)))] = data.draw(st.sampled_from(WORDS))
                frames[at] = json.dumps(header).encode()
        case "more":
            frames.append(data.draw(st.binary(max_size=20)))
        case _:
            frames[data.draw(st.integers(0, len(frames) - 1))] = data.draw(st.binary(max_size=64))
    look(CODECS, frames)
    look(KEEPING, frames)
    look(CODECS, list(messages()[kind]))


HOSTILE: dict[str, list[Buffer]] = {
    "a shape of 2^60": [b'{"htype": "array-1.0", "type": "uint8", "shape": [1152921504606846976]}', b"x"],
    "a shape that overflows": [b'{"htype": "array-1.0", "type": "uint8", "shape": [4294967296, 4294967296]}', b"x"],
    "a number of 4000 digits": [b'{"htype": "array-1.0", "type": "uint8", "shape": [1%b]}' % (b"0" * 4000), b"x"],
    "a number of 40000 digits": [b'{"htype": "array-1.0", "type": "uint8", "shape": [1%b]}' % (b"0" * 40_000), b"x"],
    "100 000 parts": [b'{"htype": "raw-1.0"}', *[b""] * 100_000],
    "depth": [b'{"htype": "raw-1.0", "a": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"],
    "a long header": [b'{"htype": "raw-1.0", "a": "' + bytes(5 << 20) + b'"}'],
    "deep CBOR": [b"\xa1\x64type" + b"\x81" * 1_000_000],
    "long CBOR": [b"\xa1\x64type\x9b\0\0\x7f\xff\xff\xff\xff\xff"],
    "many items of CBOR": [b"\xa1\x64type\x9a\x00\x90\x00\x00" + b"\x80" * 0x900000],
    "an image of 4 GiB": [
        messages()["lz4<"][0], b'{"shape": [65536, 65536], "type": "uint8", "encoding": "lz4<"}', b"\xff" * 100, b"{}",
    ],
    "an image of 1 GiB": [
        messages()["lz4<"][0], b'{"shape": [32768, 32768], "type": "uint8", "encoding": "lz4<"}', b"\xff" * 100, b"{}",
    ],
}  # fmt: skip


def _bsread(size: int) -> list[Buffer]:
    described = json.dumps(
        {"channels": [{"name": "a", "type": "int8", "shape": [size], "compression": "lz4"}]}
    ).encode()
    hashed = hashlib.md5(described).hexdigest()
    first = {"htype": "bsr_m-1.1", "pulse_id": 1, "global_timestamp": {"sec": 1, "ns": 1}, "hash": hashed}
    return [json.dumps(first).encode(), described, struct.pack("<I", size) + b"\xff" * 100, bytes(16)]


HOSTILE["a value of 1 GiB"] = _bsread(1 << 30)
HOSTILE["a value of 4 GiB"] = _bsread((1 << 32) - 1)
_PACKED = cbor2.CBORTag(56500, ["bslz4", 1, struct.pack(">QI", 1 << 30, 8192) + b"\xff" * 100])
HOSTILE["a compressed array of 1 GiB"] = [cbor2.dumps({"type": "image", "data": {"1": _PACKED}})]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_take_no_memory(name: str) -> None:
    good = messages()["array"]
    CODECS.decode(good)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    look(CODECS, HOSTILE[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB
    assert len(CODECS.decode(good).data["data"]) == 3
