"""Eiger stream V1: dheader-1.0, dimage-1.0, dseries_end-1.0."""

from __future__ import annotations

import json
from typing import Any

import lz4.block
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndstream.core.packets import Buffer, Image, Position
from ndstream.errors import BadHeader, DecodeError, MessageError, MissingPart
from ndstream.wire.compression import pack, unpack
from ndstream.wire.multipart import Codecs

CONFIGURATION = {"x_pixels_in_detector": 3, "y_pixels_in_detector": 2, "nimages": 5, "ntrigger": 2}
#: For tests that do not mind what others made it remember, and for those that never show it a header.
CODECS, WITHOUT_HEADERS = Codecs(), Codecs()
TABLES: list[bytes] = [
    b'{"htype": "dflatfield-1.0", "shape": [3, 2], "type": "float32"}', np.arange(6, dtype="<f4").tobytes(),
    b'{"htype": "dpixelmask-1.0", "shape": [3, 2], "type": "uint32"}', np.arange(6, dtype="<u4").tobytes(),
    b'{"htype": "dcountrate_table-1.0", "shape": [4, 2], "type": "float32"}', np.arange(8, dtype="<f4").tobytes(),
]  # fmt: skip
APPENDICES = [[], [b'{"note": [1, 2.5]}'], [b"[1, 2]"], [b"plain text"], [b"\x00\xff"], [b""], [b'{"half"'], [b"12"]]


def dheader(detail: str) -> list[Buffer]:
    first = b'{"htype": "dheader-1.0", "series": 7, "header_detail": "%b"}' % detail.encode()
    rest = [json.dumps(CONFIGURATION).encode(), *TABLES]
    return [first, *rest[: {"none": 0, "basic": 1, "all": 7}[detail]]]


def dimage(blob: Buffer, **description: Any) -> list[Buffer]:
    return [
        b'{"htype": "dimage-1.0", "series": 7, "frame": 4, "hash": "fc67f000d08fe6b380ea9434b8362d22"}',
        json.dumps({"htype": "dimage_d-1.0", **description, "size": len(blob)}).encode(),
        blob,
        b'{"htype": "dconfig-1.0", "start_time": 1, "stop_time": 2, "real_time": 1}',
    ]


@pytest.mark.parametrize("detail", ["none", "basic", "all"])
@pytest.mark.parametrize("appendix", APPENDICES)
def test_a_header_has_the_parts_of_its_detail_and_maybe_an_appendix(detail: str, appendix: list[bytes]) -> None:
    frames = [*dheader(detail), *appendix]
    data = CODECS.decode(frames).data
    keys = ["header", "part_2", "part_3", "part_4_raw", "part_5", "part_6_raw", "part_7", "part_8_raw"]
    assert list(data) == keys[: {"none": 1, "basic": 2, "all": 8}[detail]] + ["appendix"] * len(appendix)
    assert CODECS.encode(data) == frames
    if detail != "none":
        assert data["part_2"] == CONFIGURATION
    if appendix:
        expected = {0: {"note": [1, 2.5]}, 1: [1, 2]}.get(APPENDICES.index(appendix) - 1, appendix[0])
        assert data["appendix"] == expected


def test_the_tables_of_a_header_are_images() -> None:
    images = CODECS.decode(dheader("all")).images
    assert {name: unpack(image).tolist() for name, image in images.items()} == {
        "flatfield": [[0, 1, 2], [3, 4, 5]],
        "pixelmask": [[0, 1, 2], [3, 4, 5]],
        "countrate_table": [[0, 1, 2, 3], [4, 5, 6, 7]],
    }
    assert CODECS.decode(dheader("basic")).images == {}


@pytest.mark.parametrize("appendix", APPENDICES)
def test_an_image_is_handed_out_as_it_came(appendix: list[bytes]) -> None:
    blob = b"abcdef"
    frames = [*dimage(blob, shape=[3, 2], type="uint8", encoding="<"), *appendix]
    packet = CODECS.decode(frames)
    assert list(packet.data) == ["header", "part_2", "part_3_raw", "part_4", *["appendix"] * len(appendix)]
    assert packet.data["part_3_raw"] is blob
    assert CODECS.encode(packet.data) == frames


PIXELS = np.arange(70 * 40).reshape(40, 70) % 200


@pytest.mark.parametrize("code", ["u1", "u2", "u4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_encoding_is_read(code: str, order: str) -> None:
    image = PIXELS.astype(order + code)
    raw, bits = image.tobytes(), 8 * image.itemsize
    payloads: dict[str, Buffer] = {
        order: raw,
        f"lz4{order}": lz4.block.compress(raw, store_size=False),
        f"bs{bits}-lz4{order}": pack(image, "bslz4").payload,
        f"bs{bits}lz4{order}": pack(image, "bslz4").payload,
    }
    for encoding, payload in payloads.items():
        described = {"shape": [70, 40], "type": image.dtype.name, "encoding": encoding}
        found = WITHOUT_HEADERS.decode(dimage(payload, **described)).images["image"]
        assert (found.payload, found.dtype, found.shape) == (payload, image.dtype, (40, 70))
        np.testing.assert_array_equal(unpack(found), image)


@given(
    hnp.arrays(st.sampled_from([np.dtype(code) for code in ("u1", "<u2", "<u4")]), hnp.array_shapes(max_dims=3)),
    st.sampled_from(["<", "lz4<", "bs8-lz4<", "bs16-lz4<", "bs32-lz4<"]),
)
def test_arrays_are_compressed_as_the_description_says(image: Any, encoding: str) -> None:
    if image.nbytes % max(int("0" + "".join(filter(str.isdigit, encoding.partition("-")[0]))) // 8, 1):
        encoding = "lz4<"
    data = WITHOUT_HEADERS.decode(dimage(b"")).data
    data["part_2"] = {"htype": "dimage_d-1.0", "encoding": encoding}
    data["part_3_raw"] = image
    packet = WITHOUT_HEADERS.decode([bytes(part) for part in WITHOUT_HEADERS.encode(data)])
    np.testing.assert_array_equal(unpack(packet.images["image"]), image)
    assert packet.data["part_2"]["size"] == len(packet.data["part_3_raw"])
    data["part_3_raw"] = packet.images["image"]
    assert WITHOUT_HEADERS.encode(data) == packet.frames


def test_an_array_may_describe_itself() -> None:
    image = np.arange(6, dtype=np.uint16).reshape(2, 3)
    data = CODECS.decode(dimage(b"")).data | {"part_2": {"htype": "dimage_d-1.0"}, "part_3_raw": image}
    parts = CODECS.encode(data)
    description = {"htype": "dimage_d-1.0", "shape": [3, 2], "type": "uint16", "encoding": "<", "size": 12}
    assert json.loads(bytes(parts[1])) == description
    assert np.shares_memory(np.frombuffer(parts[2], np.uint8), image)
    tables = CODECS.decode(dheader("all")).data
    frames = CODECS.encode(tables | {"part_3": {"htype": "dflatfield-1.0"}, "part_4_raw": image.astype("f4")})
    assert frames[2:4] == TABLES[:2]
    assert json.loads(bytes(CODECS.encode({"header": {"htype": "dheader-1.0", "series": 1}})[0])) == {
        "htype": "dheader-1.0", "series": 1, "header_detail": "none"
    }  # fmt: skip


def test_images_with_height_first_are_told_by_the_pixels_of_the_detector() -> None:
    codecs, image = Codecs(), np.arange(6, dtype=np.uint8).reshape(2, 3)
    height_first = dimage(image.tobytes(), shape=[2, 3], type="uint8", encoding="<")
    stack = dimage(image.tobytes(), shape=[2, 3, 1], type="uint8", encoding="<")
    assert codecs.decode(height_first).images["image"].shape == (3, 2)
    codecs.decode(dheader("basic"))
    assert codecs.decode(height_first).images["image"].shape == (2, 3)
    assert codecs.decode(stack).images["image"].shape == (1, 2, 3)
    width_first = dimage(image.tobytes(), shape=[3, 2], type="uint8", encoding="<")
    assert codecs.decode(width_first).images["image"].shape == (2, 3)
    region = dimage(b"ab", shape=[2, 1], type="uint8", encoding="<")
    assert codecs.decode(region).images["image"].shape == (1, 2)


def test_headers_images_and_ends_have_their_place_in_a_series() -> None:
    codecs = Codecs()
    assert codecs.decode(dheader("all")).position == Position(counter="frame", series=7, event="start", expected=10)
    assert codecs.decode(dheader("none")).position == Position(counter="frame", series=7, event="start")
    assert codecs.decode(dimage(b"")).position == Position(counter="frame", series=7, number=4)
    end = [b'{"htype": "dseries_end-1.0", "series": 7}']
    packet = codecs.decode(end)
    assert packet.data == {"header": {"htype": "dseries_end-1.0", "series": 7}}
    assert packet.position == Position(counter="frame", series=7, event="end")
    assert codecs.encode(packet.data) == end


@pytest.mark.parametrize("count", range(1, 4))
def test_an_image_lacks_a_part(count: int) -> None:
    frames = dimage(b"", shape=[3, 2])[:count]
    with pytest.raises(MissingPart) as caught:
        CODECS.decode(frames)
    assert list(caught.value.parts) == frames
    with pytest.raises(MissingPart):
        CODECS.decode(dheader("all")[:7])
    with pytest.raises(MissingPart):
        CODECS.decode(dheader("basic")[:1])


@pytest.mark.parametrize(
    "header",
    [b'{"htype": "dheader-1.0"}', b'{"htype": "dheader-1.0", "header_detail": "some"}',
     b'{"htype": "dheader-1.0", "header_detail": ["all"]}'],
)  # fmt: skip
def test_a_header_of_unknown_detail_is_an_error(header: bytes) -> None:
    with pytest.raises(BadHeader):
        CODECS.decode([header, *dheader("all")[1:]])


@pytest.mark.parametrize(
    ("description", "error"),
    [
        ({"shape": [3, 2]}, BadHeader),
        ({"type": "uint8"}, BadHeader),
        ({"shape": [3, 2], "type": "object"}, BadHeader),
        ({"shape": [3, -2], "type": "uint8"}, BadHeader),
        ({"shape": [3.0, 2], "type": "uint8"}, BadHeader),
        ({"shape": [1 << 30, 1 << 30], "type": "uint8"}, DecodeError),
        ({"shape": [1 << 16, 1 << 15], "type": "uint32", "encoding": "lz4<"}, DecodeError),
        ({"shape": [3, 2], "type": "uint8", "encoding": "bs8<"}, DecodeError),
        ({"shape": [3, 2], "type": "uint8", "encoding": "zip<"}, DecodeError),
        ({"shape": [3, 2], "type": "uint8", "encoding": None}, DecodeError),
        ({"shape": [3, 2], "type": "uint8", "encoding": "bs8-lz4<"}, DecodeError),
        ({"shape": [3, 2], "type": "uint16", "encoding": "<"}, DecodeError),
    ],
    ids=range(12),
)
def test_an_image_described_wrongly_is_there_as_it_came(description: dict[str, Any], error: type[MessageError]) -> None:
    packet = CODECS.decode(dimage(b"abcdef", **description))
    assert packet.data["part_3_raw"] == b"abcdef"
    with pytest.raises(error):
        unpack(packet.images["image"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"part_3_raw": None},
        {"part_3_raw": "text"},
        {"part_4": None},
        {"part_2": b"{}"},
        {"part_3_raw": np.zeros((2, 2), np.uint8)},
        {"part_3_raw": np.zeros((2, 3), np.uint16)},
        {"part_3_raw": np.zeros((2, 3), "f8"), "part_2": {"encoding": "bs8-lz4<", "type": "uint8"}},
        {"part_3_raw": np.zeros((1, 3), np.uint8), "part_2": {"encoding": "bs16-lz4<"}},
        {"part_3_raw": np.zeros((1, 3), np.uint8), "part_2": {"encoding": "zip"}},
        {"part_3_raw": np.zeros((1, 3), np.uint8), "part_2": {"type": 7}},
        {"part_3_raw": Image(payload=b"", encoding="lz4-hdf5", shape=(0,), dtype=np.dtype("u1")), "part_2": {}},
        {"part_3_raw": Image(payload=b"", encoding="bslz4", shape=(0,), dtype=np.dtype("f8")), "part_2": {}},
    ],
    ids=range(12),
)
def test_an_image_that_contradicts_itself_is_not_made(wrong: dict[str, Any]) -> None:
    data = CODECS.decode(dimage(bytes(6), shape=[3, 2], type="uint8", encoding="<")).data
    with pytest.raises((BadHeader, DecodeError)):
        CODECS.encode(data | wrong)


def test_appendices_may_be_text() -> None:
    data = CODECS.decode(dimage(b"")).data
    assert CODECS.encode(data | {"appendix": "größer"})[-1] == "größer".encode()
