"""Finding the codec of a message, reading and writing headers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ndstream.core.limits import Limits
from ndstream.core.packets import Buffer, Codec, Decoding
from ndstream.errors import BadHeader, DecodeError, MessageError, MissingPart, UnknownHtype
from ndstream.wire.multipart import Codecs, decode_header, encode_header


class Counting(Codec):
    """Remembers how many messages it has seen."""

    def __init__(self, options: Decoding) -> None:
        self.seen = 0

    def decode(self, header: dict[str, Any], frames: Sequence[Buffer]) -> Any:
        self.seen += 1
        return {"header": header, "seen": self.seen}

    def encode(self, data: Any) -> list[Buffer]:
        return [encode_header(data["header"])]


def test_a_codec_is_made_once_for_each_stream_and_serves_all_its_htypes() -> None:
    factories = {"one": Counting, "two": Counting}
    here, there = Codecs(factories=factories), Codecs(factories=factories)
    seen = [codecs.decode([b'{"htype": "%b"}' % name]).data["seen"] for codecs, name in (
        (here, b"one"), (here, b"two"), (there, b"one"), (here, b"one")
    )]  # fmt: skip
    assert seen == [1, 2, 1, 3]


def test_a_packet_says_what_it_is() -> None:
    frames = [b'{"htype": "one", "a": 1}']
    packet = Codecs(factories={"one": Counting}).decode(frames)
    assert (packet.htype, packet.header, packet.frames) == ("one", {"htype": "one", "a": 1}, frames)
    assert (packet.images, packet.position) == ({}, None)


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([], MissingPart),
        ([b""], BadHeader),
        ([b"\0"], BadHeader),
        ([b"not json"], BadHeader),
        ([b'{"htype": "raw-1.0"'], BadHeader),
        ([b'["htype"]'], BadHeader),
        ([b"NaN"], BadHeader),
        ([b'"htype"'], BadHeader),
        ([b'\xff{"htype": "raw-1.0"}'], BadHeader),
        ([b'{"htype": "raw-1.0", "a": "\xff"}'], BadHeader),
        ([b'{"htype": "raw-1.0", "a": %b}' % (b"[" * 65 + b"]" * 65)], BadHeader),
        ([b"[" * 100_000], BadHeader),
        ([b'{"htype": "raw-1.0", "a": "%b"}' % bytes(1 << 22)], BadHeader),
        ([b'{"a": 1}'], UnknownHtype),
        ([b'{"htype": "unheard-1.0"}'], UnknownHtype),
        ([b'{"htype": "stream2"}'], BadHeader),
        ([b'{"htype": 7}'], BadHeader),
        ([b'{"htype": ["raw-1.0"]}'], BadHeader),
        ([b'{"htype": null}'], BadHeader),
        ([b'{"htype": "raw-1.0"}', *[b""] * 100_000], DecodeError),
    ],
    ids=range(20),
)
def test_a_message_that_is_none_is_an_error_that_has_the_parts(frames: list[Buffer], error: type[MessageError]) -> None:
    codecs = Codecs()
    codecs.decode([b'{"htype": "raw-1.0"}'])
    with pytest.raises(error) as caught:
        codecs.decode(frames)
    assert type(caught.value) is error
    assert list(caught.value.parts) == frames
    assert codecs.decode([b'{"htype": "raw-1.0"}', b"next"]).data["data"] == [b"next"]


def test_long_parts_are_refused() -> None:
    codecs = Codecs(Decoding(limits=Limits(message_part=64)))
    codecs.decode([b'{"htype": "raw-1.0"}', bytes(64)])
    with pytest.raises(DecodeError, match="message_part is 64"):
        codecs.decode([b'{"htype": "raw-1.0"}', bytes(65)])


@pytest.mark.parametrize("size", [10, 1000])
def test_short_and_long_headers_are_read_alike(size: int) -> None:
    header: dict[str, Any] = {"htype": "raw-1.0", "text": "é" * size, "deep": [{"a": [[]]}], "nothing": None}
    assert Codecs().decode([encode_header(header)]).header == header
    assert Codecs().decode([memoryview(json.dumps(header, ensure_ascii=False).encode())]).header == header


def test_numbers_that_json_does_not_have_are_read_and_written_as_python_does() -> None:
    part = encode_header({"htype": "raw-1.0", "low": -math.inf, "none": math.nan})
    assert part == b'{"htype": "raw-1.0", "low": -Infinity, "none": NaN}'
    header = Codecs().decode([part]).header
    assert header["low"] == -math.inf
    assert math.isnan(header["none"])


def test_values_of_numpy_are_written_as_plain_ones() -> None:
    part = encode_header({"shape": np.array([2, 3]), "frame": np.int64(4), "gain": np.float32(0.5)})
    assert part == b'{"shape": [2, 3], "frame": 4, "gain": 0.5}'


def test_depth_counts_lists_and_maps_and_no_brackets_in_text() -> None:
    limits = Limits(message_depth=3)
    assert decode_header(b'{"a": {"b": [1]}, "c": "[[[[[[[[{{{{"}', limits)["c"] == "[[[[[[[[{{{{"
    with pytest.raises(BadHeader, match="more than 3 deep"):
        decode_header(b'{"a": {"b": [[]]}}', limits)


@pytest.mark.parametrize("data", [None, [], {}, {"header": {}}, {"header": []}, {"header": {"htype": "unheard-1.0"}}])
def test_data_without_a_known_htype_cannot_be_encoded(data: Any) -> None:
    with pytest.raises(UnknownHtype):
        Codecs().encode(data)
    with pytest.raises(KeyError):
        Codecs().encode(data)
