"""array-1.0, chunk-1.0 and raw-1.0."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndstream.errors import BadHeader, DecodeError
from ndstream.wire.compression import unpack
from ndstream.wire.multipart import Codecs

#: For tests in which nothing is to be remembered.
CODECS = Codecs()
TYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?", "c8", "c16"]
NAMES = [np.dtype(code).name for code in TYPES]


def message(header: dict[str, Any], *segments: bytes) -> list[bytes]:
    return [json.dumps({"htype": "array-1.0"} | header).encode(), *segments]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("key", ["endianness", "endianess"])
def test_every_type_is_read_in_both_byte_orders(name: str, order: str, key: str) -> None:
    expected = np.arange(6).reshape(2, 3).astype(np.dtype(name).newbyteorder("<" if order == "little" else ">"))
    data = CODECS.decode(message({"type": name, "shape": [2, 3], key: order}, expected.tobytes())).data
    np.testing.assert_array_equal(data["data"][0], expected)
    assert data["data"][0].dtype == expected.dtype


def test_without_a_byte_order_it_is_little_and_that_of_the_type_counts_most() -> None:
    plain, coded = (
        CODECS.decode(message({"type": name, "shape": [1], **order}, b"\1\0")).data["data"][0]
        for name, order in (("uint16", {}), (">u2", {"endianness": "little"}))
    )
    assert (plain.tolist(), coded.tolist()) == ([1], [256])


def test_segments_may_be_many_empty_or_none() -> None:
    codecs, header = Codecs(), {"type": "uint8", "shape": [2]}
    first, second, third = codecs.decode(message(header, b"ab", b"", b"cd")).data["data"]
    assert (first.tolist(), second, third.tolist()) == ([97, 98], None, [99, 100])
    assert codecs.decode(message({})).data == {"header": {"htype": "array-1.0"}, "data": []}
    assert codecs.decode(message({}, b"")).data["data"] == [None]
    scalar = codecs.decode(message({"type": "uint8", "shape": []}, b"a")).data["data"][0]
    assert (scalar.shape, scalar[()]) == ((), 97)


def test_arrays_are_views_writable_when_the_memory_is() -> None:
    header, memory = message({"type": "uint8", "shape": [2]})[0], bytearray(b"ab")
    (read_only,) = CODECS.decode([header, b"ab"]).data["data"]
    (writable,) = CODECS.decode([header, memoryview(memory)]).data["data"]
    assert not read_only.flags.writeable
    writable[0] = 0
    assert memory == b"\0b"


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"shape": [4]}, BadHeader),
        ({"type": "uint8"}, BadHeader),
        ({"type": "uint8", "shape": 4}, BadHeader),
        ({"type": "uint8", "shape": "4"}, BadHeader),
        ({"type": "uint8", "shape": [4.0]}, BadHeader),
        ({"type": "uint8", "shape": [-1]}, BadHeader),
        ({"type": "uint8", "shape": [-4, -1]}, BadHeader),
        ({"type": "uint8", "shape": [1] * 65}, BadHeader),
        ({"type": "uint8", "shape": [1 << 60]}, DecodeError),
        ({"type": "uint8", "shape": [1 << 32, 1 << 32]}, DecodeError),
        ({"type": "uint8", "shape": [1 << 70, 0]}, DecodeError),
        ({"type": "uint8", "shape": [3]}, DecodeError),
        ({"type": "uint8", "shape": [5]}, DecodeError),
        ({"type": "uint8", "shape": [0]}, DecodeError),
        ({"type": "O", "shape": [1]}, BadHeader),
        ({"type": "object", "shape": [1]}, BadHeader),
        ({"type": "i2,O", "shape": [1]}, BadHeader),
        ({"type": "(2,)i2", "shape": [1]}, BadHeader),
        ({"type": "V4", "shape": [1]}, BadHeader),
        ({"type": "S0", "shape": [4]}, DecodeError),
        ({"type": 7, "shape": [4]}, BadHeader),
        ({"type": [], "shape": [4]}, BadHeader),
        ({"type": "uint8", "shape": [4], "endianness": "middle"}, BadHeader),
        ({"type": "uint8", "shape": [4], "endianness": ["big"]}, BadHeader),
        ({"type": "uint8", "shape": [4], "encoding": "lz4"}, DecodeError),
        ({"type": "uint8", "shape": [4], "encoding": []}, DecodeError),
    ],
)
def test_what_makes_no_sense_is_an_error_that_has_the_parts(header: dict[str, Any], error: type[Exception]) -> None:
    frames = message(header, b"abcd")
    with pytest.raises(error) as caught:
        CODECS.decode(frames)
    assert list(caught.value.parts) == frames  # type: ignore[attr-defined]
    assert caught.value.htype == "array-1.0"  # type: ignore[attr-defined]
    assert type(caught.value) is error


@given(
    st.lists(
        hnp.arrays(
            st.sampled_from([np.dtype(order + code) for code in TYPES for order in "<>"]),
            st.just((2, 0, 3)) | hnp.array_shapes(min_dims=0, max_side=4),
        ),
        max_size=1,
    ).flatmap(lambda arrays: st.lists(st.sampled_from([*arrays, None]), max_size=4))
)
def test_what_is_sent_arrives(segments: list[Any]) -> None:
    codecs = CODECS
    parts = codecs.encode({"header": {"htype": "array-1.0", "frame": 3}, "data": segments})
    data = codecs.decode([bytes(part) for part in parts]).data
    assert len(data["data"]) == len(segments)
    for found, expected in zip(data["data"], segments, strict=True):
        if expected is None or not expected.size:
            assert found is None
        else:
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    assert codecs.encode(data) == parts


def test_a_contiguous_array_is_sent_from_its_own_memory() -> None:
    array = np.arange(6, dtype=">u2").reshape(2, 3)
    header, part = CODECS.encode({"header": {"htype": "array-1.0"}, "data": [array]})
    assert np.shares_memory(np.frombuffer(part, np.uint8), array)
    assert header == b'{"htype": "array-1.0", "shape": [2, 3], "type": "uint16", "endianness": "big"}'
    strided = CODECS.encode({"header": {"htype": "array-1.0"}, "data": [array.T]})[1]
    assert bytes(strided) == array.T.tobytes()


@pytest.mark.parametrize(
    ("header", "segment"),
    [
        ({"shape": [3]}, np.zeros(2)),
        ({"type": "uint8"}, np.zeros(2)),
        ({"endianness": "big"}, np.zeros(2)),
        ({}, np.zeros(2, object)),
        ({}, np.zeros(2, "i2,i4")),
        ({}, "text"),
        ({}, [1, 2]),
        ({"note": {1}}, b""),
    ],
)
def test_a_message_that_contradicts_itself_is_not_made(header: dict[str, Any], segment: Any) -> None:
    with pytest.raises(BadHeader):
        CODECS.encode({"header": {"htype": "array-1.0"} | header, "data": [segment]})


def test_the_older_chunk_has_its_fastest_axis_first() -> None:
    frames = [b'{"htype": "chunk-1.0", "shape": [3, 2], "type": "uint8"}', bytes(range(6))]
    data = CODECS.decode(frames).data
    assert data["data"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert CODECS.encode(data) == frames
    made = CODECS.encode({"header": {"htype": "chunk-1.0"}, "data": [np.zeros((2, 3), np.uint8)]})
    assert json.loads(bytes(made[0]))["shape"] == [3, 2]
    with pytest.raises(DecodeError):
        CODECS.decode([b'{"htype": "chunk-1.0", "shape": [3, 2], "type": "uint8", "cmpr": "lz4"}', bytes(6)])


def test_images_are_the_segments_that_are_there() -> None:
    packet = CODECS.decode(message({"type": ">u2", "shape": [2], "frame": 7}, b"\0\1\0\2", b""))
    assert list(packet.images) == ["0"]
    assert unpack(packet.images["0"]).tolist() == [1, 2]
    assert packet.position is not None
    assert (packet.position.counter, packet.position.number) == ("frame", 7)
    assert CODECS.decode(message({"frame": "7"})).position is None


@given(st.lists(st.binary(max_size=9), max_size=4))
@pytest.mark.parametrize("htype", ["raw-1.0", "pilatus-1.0"])
def test_raw_parts_are_left_as_they_are(htype: str, blobs: list[bytes]) -> None:
    frames = [json.dumps({"htype": htype, "frame": 1}).encode(), *blobs]
    packet = CODECS.decode(frames)
    assert packet.data == {"header": {"htype": htype, "frame": 1}, "data": [blob or None for blob in blobs]}
    assert CODECS.encode(packet.data) == frames
