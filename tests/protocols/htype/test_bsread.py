"""bsr_m-1.0 and bsr_m-1.1."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import lz4.block
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndstream.core.counters import Counters
from ndstream.core.packets import Buffer, Decoding, Image, Position
from ndstream.errors import BadHeader, DecodeError, MessageError, MissingPart
from ndstream.protocols.htype.messages import BsreadMessage, Channel, Value
from ndstream.wire.compression import pack, unpack
from ndstream.wire.multipart import Codecs

#: For tests in which nothing is to be remembered.
CODECS = Codecs()
STAMP = struct.pack("<QQ", 11, 22)
TYPES = ["bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]


def message(channels: Any, *parts: Buffer, prepared: bytes | None = None, **header: Any) -> list[Buffer]:
    described = json.dumps({"htype": "bsr_d-1.1", "channels": channels}).encode() if prepared is None else prepared
    first = {
        "htype": "bsr_m-1.1",
        "pulse_id": 5,
        "global_timestamp": {"sec": 1, "ns": 2},
        "hash": hashlib.md5(described).hexdigest(),
    }
    return [json.dumps(first | header).encode(), described, *parts]


def decode(*arguments: Any, **options: Any) -> BsreadMessage:
    found: BsreadMessage = CODECS.decode(message(*arguments, **options)).data
    return found


def value(part: Buffer, **channel: Any) -> Any:
    """Value of one channel, decoded."""
    return decode([{"name": "a", **channel}], part, STAMP).data["a"].value


def test_the_bytes_of_a_known_message() -> None:
    # Sent by psi-bsread 2.0.1, from the specification.
    channels = [
        {"name": "one", "type": "int64"},
        {"name": "three", "type": "uint16", "shape": [3, 2], "encoding": "big"},
        {"name": "four"},
    ]
    three, big = bytes.fromhex("0000 0001 0002 0003 0004 0005"), struct.pack(">QQ", 11, 22)
    found = decode(channels, b"\1" + bytes(7), STAMP, three, big, b"", b"")
    one, grid, four = found.data["one"], found.data["three"], found.data["four"]
    assert (one.value, type(one.value), one.timestamp, one.timestamp_offset) == (1, np.int64, 11, 22)
    assert (grid.value.tolist(), grid.timestamp, grid.timestamp_offset) == ([[0, 1, 2], [3, 4, 5]], 11, 22)
    assert (four.value, four.timestamp, four.timestamp_offset) == (None, None, None)
    assert (found.pulse_id, found.global_timestamp, found.global_timestamp_offset) == (5, 1, 2)
    assert found.hash == hashlib.md5(found.frames[1]).hexdigest()
    assert [channel.shape for channel in found.channels] == [(1,), (2, 3), (1,)]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("shape", [(1,), (4,), (3, 2)])
def test_every_type_is_read_in_both_byte_orders(name: str, order: str, shape: tuple[int, ...]) -> None:
    expected = (
        np.arange(np.prod(shape)).reshape(shape).astype(np.dtype(name).newbyteorder("<" if order == "little" else ">"))
    )
    said = {"type": name, "shape": list(shape[::-1]), "encoding": order}
    found = value(expected.tobytes(), **said)
    np.testing.assert_array_equal(found, expected[0] if shape == (1,) else expected)
    assert found.dtype.newbyteorder("=") == np.dtype(name)
    packed = pack(expected, "lz4").payload
    for length in ("<I", ">I"):
        found = value(struct.pack(length, expected.nbytes) + packed, compression="lz4", **said)
        np.testing.assert_array_equal(found, expected[0] if shape == (1,) else expected)
    found = value(pack(expected, "bslz4").payload, compression="bitshuffle_lz4", **said)
    np.testing.assert_array_equal(found, expected[0] if shape == (1,) else expected)


@pytest.mark.parametrize(
    ("alias", "code"),
    [("double", "f8"), ("float", "f4"), ("integer", "i4"), ("long", "i4"), ("ulong", "u4"), ("short", "i2"),
     ("ushort", "u2"), ("Float64", "f8"), ("UInt16", "u2")],
)  # fmt: skip
def test_older_names_of_types_are_known(alias: str, code: str) -> None:
    found = value(np.array([7], code).tobytes(), type=alias)
    assert (found, found.dtype) == (7, np.dtype(code))


def test_defaults() -> None:
    assert value(np.array([0.5]).tobytes()) == 0.5
    assert value(np.array([0.5]).tobytes(), type=None, encoding=None, compression=None) == 0.5
    assert decode([]).data == {}
    assert decode(None).data == {}


@pytest.mark.parametrize("text", ["", "héllo", "x" * 300])
def test_text(text: str) -> None:
    raw = text.encode()
    block = lz4.block.compress(raw, store_size=False)
    assert value(raw, type="string") == text
    assert value(struct.pack("<I", len(raw)) + block, type="string", compression="lz4") == text
    assert value(struct.pack(">I", len(raw)) + block, type="string", compression="lz4") == text
    packed = pack(np.frombuffer(raw, np.uint8), "bslz4").payload
    assert value(packed, type="string", compression="bitshuffle_lz4") == text


def test_older_headers_are_read() -> None:
    frames = message([{"name": "a"}], bytes(8), STAMP, htype="bsr_m-1.0", global_timestamp={"epoch": 3, "ns": 4})
    found = Codecs().decode(frames).data
    assert (found.global_timestamp, found.global_timestamp_offset, found.data["a"].value) == (3, 4, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_timestamp": None},
        {"global_timestamp": {"sec": 1}},
        {"global_timestamp": {"ns": 1}},
        {"global_timestamp": {"sec": 1.5, "ns": 1}},
        {"global_timestamp": 5},
        {"pulse_id": None},
        {"pulse_id": "5"},
        {"pulse_id": 5.0},
        {"prepared": b"no json"},
        {"prepared": b"[]"},
        {"prepared": b'{"channels": {}}'},
        {"prepared": b'{"channels": [5]}'},
        {"prepared": b'{"channels": [{"type": "int8"}]}'},
        {"prepared": b'{"channels": [{"name": 7}]}'},
    ],
    ids=range(14),
)
def test_a_header_without_sense_is_an_error(wrong: dict[str, Any]) -> None:
    frames = message([], **wrong)
    with pytest.raises(BadHeader) as caught:
        Codecs().decode(frames)
    assert list(caught.value.parts) == frames


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_values_are_missing_from_the_end(count: int) -> None:
    frames = message([{"name": "a"}, {"name": "b"}], bytes(8), STAMP, bytes(8), STAMP)
    with pytest.raises(MissingPart):
        Codecs().decode(frames[:count])


@pytest.mark.parametrize("compression", ["none", "lz4", "LZ4", "bitshuffle_lz4"])
def test_the_data_header_may_be_compressed(compression: str) -> None:
    raw = json.dumps({"channels": [{"name": f"channel-{number}"} for number in range(50)]}).encode()
    array = np.frombuffer(raw, np.uint8)
    prepared = {
        "none": raw,
        "lz4": struct.pack("<I", len(raw)) + pack(array, "lz4").payload,
        "LZ4": struct.pack(">I", len(raw)) + pack(array, "lz4").payload,
        "bitshuffle_lz4": bytes(pack(array, "bslz4").payload),
    }[compression]
    found = decode([], *[bytes(8), STAMP] * 50, prepared=prepared, dh_compression=compression)
    assert len(found.data) == 50


@pytest.mark.parametrize(
    ("compression", "prepared"),
    [
        ("zip", b"{}"),
        ("lz4", b"{}"),
        ("lz4", b"\0\0\0\1{}"),
        ("lz4", struct.pack("<I", 0xFFFFFFFF) + b"x"),
        ("bitshuffle_lz4", struct.pack(">QI", 1 << 50, 8192)),
        ("bitshuffle_lz4", b"{}"),
        ("lz4", struct.pack("<I", 5 << 20) + lz4.block.compress(bytes(5 << 20), store_size=False)),
    ],
    ids=range(7),
)
def test_a_data_header_that_cannot_be_decompressed_is_an_error(compression: str, prepared: bytes) -> None:
    with pytest.raises(DecodeError):
        decode([], prepared=prepared, dh_compression=compression)


def test_a_bad_data_header_fails_its_own_message_only() -> None:
    codecs, channels = Codecs(), [{"name": "a"}]
    good = message(channels, bytes(8), STAMP)
    bad = message(channels, bytes(8), STAMP)
    bad[1] = b"?" * len(bad[1])
    for frames in (good, bad, good):
        fresh = Codecs() if frames is bad else codecs
        if frames is bad:
            with pytest.raises(BadHeader):
                fresh.decode(bad)
            assert fresh.decode(good).data.data["a"].value == 0
        else:
            assert fresh.decode(frames).data.data["a"].value == 0


def test_the_data_header_is_parsed_again_only_when_its_hash_changes() -> None:
    codecs = Codecs()
    first = message([{"name": "a"}], bytes(8), STAMP)
    changed = message([{"name": "b"}], bytes(8), STAMP)
    found = [codecs.decode(frames).data for frames in (first, first, changed, changed, first)]
    assert [data.format_changed for data in found] == [True, False, True, False, True]
    assert found[0].channels is found[4].channels
    unhashed = message([{"name": "a"}], bytes(8), STAMP, hash=None)
    assert [codecs.decode(unhashed).data.hash for _ in range(2)] == [None, None]


BAD_CHANNELS: list[tuple[dict[str, Any], Buffer]] = [
    ({"type": "object"}, bytes(8)),
    ({"type": "complex64"}, bytes(8)),
    ({"type": 5}, bytes(8)),
    ({"encoding": "middle"}, bytes(8)),
    ({"shape": [2]}, bytes(8)),
    ({"shape": [-1]}, bytes(8)),
    ({"shape": [1.0]}, bytes(8)),
    ({"shape": 1}, bytes(8)),
    ({"shape": [1 << 60]}, bytes(8)),
    ({"shape": [1 << 40, 1 << 40]}, bytes(8)),
    ({}, bytes(7)),
    ({}, b""),
    ({"type": "string"}, b"\xff"),
    ({"compression": "zip"}, bytes(8)),
    ({"compression": "lz4"}, bytes(8)),
    ({"compression": "lz4"}, b"a"),
    ({"compression": "lz4", "shape": [1 << 26]}, struct.pack("<I", 1 << 29) + b"abcd"),
    ({"compression": "lz4"}, struct.pack("<I", 8) + b"\x90"),
    ({"compression": "bitshuffle_lz4"}, bytes(8)),
    ({"compression": "bitshuffle_lz4"}, struct.pack(">QI", 1 << 40, 8192)),
    ({"compression": "bitshuffle_lz4", "type": "string"}, struct.pack(">QI", 1 << 29, 8192)),
]


@pytest.mark.parametrize(("channel", "part"), BAD_CHANNELS, ids=range(len(BAD_CHANNELS)))
def test_a_value_that_cannot_be_decoded_is_none_and_counted(channel: dict[str, Any], part: Buffer) -> None:
    counters = Counters()
    codecs = Codecs(Decoding(counters=counters))
    channels = [{"name": "good"}, {"name": "bad", **channel}, {"name": "text", "type": "string"}]
    for _ in range(2):
        found = codecs.decode(message(channels, bytes(8), STAMP, part, STAMP, b"x", STAMP)).data
        assert [found.data[name].value for name in ("good", "bad", "text")] == [0.0, None, "x"]
        assert (found.data["bad"].timestamp, found.data["bad"].timestamp_offset) == (11, 22)
    assert list(counters) == [("undecodable_values", "bad", 2)]


def test_timestamps_may_be_missing_or_broken() -> None:
    counters = Counters()
    channels = [{"name": "a"}, {"name": "b"}]
    found = Codecs(Decoding(counters=counters)).decode(message(channels, bytes(8), b"", bytes(8), b"short")).data
    assert (found.data["a"].value, found.data["a"].timestamp) == (0.0, None)
    assert (found.data["b"].value, found.data["b"].timestamp) == (None, None)
    assert counters["undecodable_values", "b"] == 1


def test_names_without_end_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndstream.protocols.htype.bsread._NAMED", 3)
    counters = Counters()
    codecs = Codecs(Decoding(counters=counters))
    for number in range(6):
        codecs.decode(message([{"name": str(number)}], b"?", STAMP))
    assert [label for _, label, _ in counters] == ["0", "1", "2", ""]
    assert counters["undecodable_values", ""] == 3


def test_arrays_are_views_of_the_parts() -> None:
    memory = bytearray(16)
    decode([{"name": "a", "shape": [2]}], memory, STAMP).data["a"].value[:] = 1
    assert memory == np.ones(2).tobytes()


COMPRESSIONS = ["none", "lz4", "bitshuffle_lz4"]
ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(order + np.dtype(name).str[1:]) for name in TYPES for order in "<>"]),
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=9),
)
VALUES = st.tuples(ARRAYS | st.text(max_size=20) | st.none(), st.sampled_from(COMPRESSIONS))


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(["", "a", "ü", "X:Y"]), VALUES, max_size=3),
    st.sampled_from(COMPRESSIONS),
    st.sampled_from(["bsr_m-1.0", "bsr_m-1.1"]),
)
def test_what_is_sent_arrives(values: dict[str, tuple[Any, str]], dh_compression: str, htype: str) -> None:
    channels = [
        Channel(name=name, type=sent.dtype.name, shape=sent.shape, compression=compression,
                encoding="big" if sent.dtype.str[0] == ">" else "little")
        if isinstance(sent, np.ndarray)
        else Channel(name=name, type="string" if isinstance(sent, str) else "float64", compression=compression)
        for name, (sent, compression) in values.items()
    ]  # fmt: skip
    made = BsreadMessage(
        header={"htype": htype, "dh_compression": dh_compression},
        data={name: Value(sent, 3, number) for number, (name, (sent, _)) in enumerate(values.items())},
        channels=channels,
        pulse_id=9,
        global_timestamp=1,
        global_timestamp_offset=2,
    )
    parts = CODECS.encode(made)
    packet = CODECS.decode([bytes(part) for part in parts])
    found = packet.data
    assert (packet.htype, found.pulse_id, found.global_timestamp, found.global_timestamp_offset) == (htype, 9, 1, 2)
    assert found.hash == hashlib.md5(parts[1]).hexdigest()
    for number, (name, (sent, compression)) in enumerate(values.items()):
        value = found.data[name]
        if isinstance(sent, np.ndarray):
            np.testing.assert_array_equal(value.value, sent[0] if sent.shape == (1,) else sent)
            assert compression != "lz4" or found.channels[number].encoding == "little"
        else:
            assert value.value == sent
        assert sent is None or (value.timestamp, value.timestamp_offset) == (3, number)
    assert CODECS.encode(found) == packet.frames
    found.frames = ()
    assert [bytes(part) for part in CODECS.encode(found)][1:] == packet.frames[1:]


def test_channels_are_described_by_their_values() -> None:
    values = {"i": 1, "f": 0.5, "b": True, "t": "x", "a": np.zeros((2, 3), ">u2"), "s": np.float32(1), "n": None}
    made = BsreadMessage(
        data={name: Value(value) for name, value in values.items()}, pulse_id=1, global_timestamp=4,
        global_timestamp_offset=5,
    )  # fmt: skip
    parts = CODECS.encode(made)
    assert np.shares_memory(np.frombuffer(parts[10], np.uint8), values["a"])
    assert json.loads(bytes(parts[1]))["channels"][4] == {
        "name": "a", "type": "uint16", "shape": [3, 2], "encoding": "big"
    }  # fmt: skip
    found = CODECS.decode(parts).data
    for name, value in values.items():
        np.testing.assert_array_equal(found.data[name].value, value)
        assert value is None or (found.data[name].timestamp, found.data[name].timestamp_offset) == (4, 5)


@pytest.mark.parametrize(
    ("channel", "value"),
    [
        (Channel(name="a", type="int8"), 300),
        (Channel(name="a", type="uint8"), -1),
        (Channel(name="a", type="int8"), 0.5),
        (Channel(name="a", type="int8"), np.int16(1)),
        (Channel(name="a", type="int8"), "x"),
        (Channel(name="a", type="string"), 1),
        (Channel(name="a", type="zzz"), 1),
        (Channel(name="a", encoding="middle"), 1),
        (Channel(name="a", shape=(2,)), 1.0),
        (Channel(name="a", compression="zip"), 1.0),
        (Channel(name="b"), object()),
        (Channel(name="b"), 1j),
        (Channel(name="b"), np.zeros(2, "i2,i2")),
        (Channel(name="a"), pack(np.zeros(1), "bslz4")),
        (Channel(name="b"), pack(np.zeros(1), "lz4-hdf5")),
    ],
    ids=range(15),
)
def test_a_message_that_contradicts_itself_is_not_made(channel: Channel, value: Any) -> None:
    made = BsreadMessage(
        data={"a": Value(value)}, channels=[channel], pulse_id=1, global_timestamp=1, global_timestamp_offset=1
    )
    with pytest.raises(MessageError):
        CODECS.encode(made)


def test_timestamps_beyond_64_bits_are_not_sent() -> None:
    made = BsreadMessage(data={"a": Value(1.0, 1 << 64)}, pulse_id=1, global_timestamp=1, global_timestamp_offset=1)
    with pytest.raises(BadHeader):
        CODECS.encode(made)
    with pytest.raises(BadHeader):
        CODECS.encode({"header": {"htype": "bsr_m-1.1"}})


@pytest.mark.parametrize("compressed", [False, True])
def test_images_are_the_values_as_they_came(compressed: bool) -> None:
    array = np.arange(300, dtype="<i4") % 7
    codecs = Codecs(Decoding(compressed=compressed))
    sent = {name: Value(array) for name in ("plain", "l", "b")} | {
        "scalar": Value(1),
        "text": Value("x"),
        "none": Value(),
    }
    channels = [
        Channel(name="l", type="int32", shape=(300,), compression="lz4"),
        Channel(name="b", type="int32", shape=(300,), compression="bitshuffle_lz4"),
    ]
    made = BsreadMessage(data=sent, channels=channels, pulse_id=1, global_timestamp=1, global_timestamp_offset=1)
    packet = codecs.decode([bytes(part) for part in codecs.encode(made)])
    assert {name: image.encoding for name, image in packet.images.items()} == {
        "l": "lz4",
        "b": "bslz4",
        "plain": "none",
    }
    for image in packet.images.values():
        np.testing.assert_array_equal(unpack(image), array)
    assert isinstance(packet.data.data["l"].value, Image) is compressed
    assert isinstance(packet.data.data["plain"].value, np.ndarray)
    packet.data.frames = ()
    assert [bytes(part) for part in codecs.encode(packet.data)][1:] == packet.frames[1:]


def test_the_place_of_a_message_is_its_pulse() -> None:
    assert Codecs().decode(message([])).position == Position(counter="pulse_id", number=5)
