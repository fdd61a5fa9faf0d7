"""Stream V2 of Dectris; cbor2 makes the messages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ndstream.core.counters import Counters
from ndstream.core.limits import Limits
from ndstream.core.packets import Decoding, Encoding, Image, Position
from ndstream.errors import BadHeader, DecodeError, MessageError
from ndstream.wire.cbor import Tag
from ndstream.wire.compression import pack, unpack
from ndstream.wire.multipart import Codecs

CODECS = Codecs()
KEEPING = Codecs(Decoding(compressed=True))
TYPED = {
    64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: "u1", 69: "<u2", 70: "<u4", 71: "<u8", 72: "i1", 73: ">i2",
    74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8", 80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4",
    86: "<f8",
}  # fmt: skip
ALGORITHMS: dict[str, Encoding] = {"bslz4": "bslz4", "lz4": "lz4-hdf5", "bszstd": "bszstd"}
PIXELS = np.arange(40 * 60).reshape(40, 60) % 100


def tag_of(array: NDArray[Any]) -> int:
    return next(tag for tag, code in TYPED.items() if np.dtype(code) == array.dtype)


def tagged(array: NDArray[Any], algorithm: str = "", shape: int = 40) -> cbor2.CBORTag:
    """Array as Dectris sends it."""
    content: Any = array.tobytes("F" if shape == 1040 else "C")
    if algorithm:
        flat = np.frombuffer(content, array.dtype)
        width = 0 if algorithm == "lz4" else array.itemsize
        content = cbor2.CBORTag(56500, [algorithm, width, bytes(pack(flat, ALGORITHMS[algorithm]).payload)])
    return cbor2.CBORTag(shape, [list(array.shape), cbor2.CBORTag(tag_of(array), content)])


def image(data: Any, **more: Any) -> bytes:
    message = {"type": "image", "series_id": 3, "series_unique_id": "01H", "image_id": 7, "real_time": [1, 1000]}
    return cbor2.dumps(message | more | {"data": data})


def start(**more: Any) -> bytes:
    zone = timezone(timedelta(hours=2))
    return cbor2.dumps(
        {
            "type": "start",
            "arm_date": datetime(2026, 5, 4, 3, 2, 1, 123456, zone),
            "beam_center_x": 1.5,
            "channels": ["threshold_1"],
            "countrate_correction_lookup_table": cbor2.CBORTag(70, np.arange(5, dtype="<u4").tobytes()),
            "flatfield": {"threshold_1": tagged(PIXELS.astype("<f4"), "lz4")},
            "goniometer": {"omega": {"increment": 0.1, "start": 0.0}},
            "image_dtype": "uint16",
            "number_of_images": 100,
            "pixel_mask": {"threshold_1": tagged(PIXELS.astype("<u4"), "bslz4")},
            "series_id": 3,
            "series_unique_id": "01H",
            "user_data": None,
        }
        | more
    )


@pytest.mark.parametrize(("tag", "code"), TYPED.items())
def test_every_type_of_array_is_read(tag: int, code: str) -> None:
    array = PIXELS.astype(code)
    data = {
        "plain": cbor2.CBORTag(40, [[40, 60], cbor2.CBORTag(tag, array.tobytes())]),
        "columns": cbor2.CBORTag(1040, [[40, 60], cbor2.CBORTag(tag, array.tobytes("F"))]),
        "flat": cbor2.CBORTag(tag, array.tobytes()),
    }
    found = CODECS.decode([image(data)]).data["data"]
    for name, expected in {"plain": array, "columns": array, "flat": array.reshape(-1)}.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == array.dtype
    assert not found["plain"].flags.writeable


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("code", ["u1", "<u2", "<u4", ">u2"])
def test_every_compression_is_read(algorithm: str, code: str) -> None:
    array = PIXELS.astype(code)
    frames = [image({"a": tagged(array, algorithm), "columns": tagged(array, algorithm, 1040)})]
    found = CODECS.decode(frames).data["data"]
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["columns"], array)
    kept = KEEPING.decode([image({"a": tagged(array, algorithm)})])
    came = kept.data["data"]["a"]
    assert (came.encoding, came.shape, came.dtype) == (ALGORITHMS[algorithm], (40, 60), array.dtype)
    assert kept.images == {"a": came}
    np.testing.assert_array_equal(unpack(came), array)


def test_a_start_has_its_tables_in_the_header() -> None:
    packet = CODECS.decode([start()])
    header = packet.header
    assert (packet.htype, header["type"], packet.data["data"]) == ("stream2", "start", {})
    assert header["arm_date"].isoformat() == "2026-05-04T03:02:01.123456+02:00"
    assert header["goniometer"] == {"omega": {"increment": 0.1, "start": 0.0}}
    np.testing.assert_array_equal(header["flatfield"]["threshold_1"], PIXELS)
    np.testing.assert_array_equal(header["countrate_correction_lookup_table"], range(5))
    assert list(packet.images) == [
        "countrate_correction_lookup_table", "flatfield/threshold_1", "pixel_mask/threshold_1"
    ]  # fmt: skip
    kept = KEEPING.decode([start()])
    assert [found.encoding for found in kept.images.values()] == ["none", "lz4-hdf5", "bslz4"]


def test_starts_images_and_ends_have_their_place_in_a_series() -> None:
    assert CODECS.decode([start()]).position == Position(counter="image_id", series="01H", event="start", expected=100)
    assert CODECS.decode([image({})]).position == Position(counter="image_id", series="01H", number=7)
    assert CODECS.decode([image({}, image_id="x")]).position is None
    end = cbor2.dumps({"type": "end", "series_id": 3})
    assert CODECS.decode([end]).position == Position(counter="image_id", series=3, event="end")
    assert CODECS.decode([cbor2.dumps({"type": "calibration", "series_id": [3]})]).position is None
    assert CODECS.decode([cbor2.dumps({"type": "end", "series_id": [3]})]).position == Position(
        counter="image_id", event="end"
    )


def test_what_is_unknown_is_kept() -> None:
    frame = cbor2.dumps({"type": "metadata", "magic_number": 7, "x": cbor2.CBORTag(4711, [1]), "htype": "raw-1.0"})
    packet = CODECS.decode([frame])
    assert packet.header == {"htype": "stream2", "type": "metadata", "magic_number": 7, "x": Tag(4711, [1])}
    again = cbor2.loads(bytes(CODECS.encode(packet.data)[0]))
    assert again["x"].tag == 4711


@pytest.mark.parametrize("text", ["2026-05-04T03:02:01.123456789Z", "yesterday"])
def test_dates_that_python_cannot_hold_stay_text(text: str) -> None:
    frame = cbor2.dumps({"type": "start", "arm_date": cbor2.CBORTag(0, "@")}).replace(
        b"\x61@", cbor2.dumps(text)
    )  # fmt: skip
    packet = CODECS.decode([frame])
    assert packet.header["arm_date"] == Tag(0, text)
    assert CODECS.encode(packet.data) == [frame]


def test_arrays_may_be_lists_of_numbers_and_bytes_may_be_compressed() -> None:
    raw = bytes(pack(np.arange(100, dtype=np.uint8), "bslz4").payload)
    packed = cbor2.CBORTag(56500, ["bslz4", 1, raw])
    found = CODECS.decode([image({"a": cbor2.CBORTag(40, [[2, 2], [1, 2, 3, 4]])}, user_data=[packed])]).data
    assert found["data"]["a"].tolist() == [[1, 2], [3, 4]]
    assert found["header"]["user_data"] == [bytes(range(100))]


DTYPES = st.sampled_from([np.dtype(code) for code in TYPED.values()])
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, max_side=5))
CHANNELS = st.dictionaries(st.sampled_from(["", "1", "µ"]), ARRAYS, max_size=2)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(CHANNELS, st.sampled_from([*ALGORITHMS.values(), "none"]))
def test_what_is_sent_arrives(data: dict[str, NDArray[Any]], encoding: Encoding) -> None:
    header = {"htype": "stream2", "type": "image", "image_id": np.int64(5), "note": {"a": [1.5, None, True, b"x"]}}
    images = {channel: pack(array, encoding) for channel, array in data.items()}
    for sent in (data, images):
        parts = CODECS.encode({"header": header, "data": sent})
        found = CODECS.decode(parts).data
        assert found["header"] == header
        assert found["data"].keys() == data.keys()
        for channel, array in data.items():
            np.testing.assert_array_equal(found["data"][channel], array)
            assert found["data"][channel].dtype == array.dtype
        kept = KEEPING.decode(parts).data
        assert CODECS.encode(kept) == parts
    assert next(iter(cbor2.loads(bytes(parts[0]), tag_hook=lambda *_: None))) == "type"


@pytest.mark.parametrize(
    "message",
    [
        {"type": 5},
        {"kind": "image"},
        {"type": "image", "data": []},
    ],
)
def test_a_message_without_sense_is_an_error(message: Any) -> None:
    frames = [cbor2.dumps(message)]
    with pytest.raises(BadHeader) as caught:
        CODECS.decode(frames)
    assert (list(caught.value.parts), caught.value.htype) == (frames, "stream2")


RAW = bytes(pack(np.zeros(8, np.uint8), "bslz4").payload)
BAD_ARRAYS: list[tuple[int, Any]] = [
    (69, b"abc"),
    (69, "text"),
    (69, [1, 2]),
    (40, b"abc"),
    (40, [[2], b"ab"]),
    (40, [[2, 2], cbor2.CBORTag(64, b"abc")]),
    (40, [[-2, -2], cbor2.CBORTag(64, b"abcd")]),
    (40, [[2.0, 2], cbor2.CBORTag(64, b"abcd")]),
    (40, [[1 << 32, 1 << 32], cbor2.CBORTag(64, b"abcd")]),
    (40, [2, cbor2.CBORTag(64, b"ab")]),
    (40, [[1], [1 << 70]]),
    (40, [[1], ["a"]]),
    (40, [[4], cbor2.CBORTag(40, [[2, 2], cbor2.CBORTag(64, b"abcd")])]),
    (56500, b"abc"),
    (56500, ["zip", 1, RAW]),
    (56500, ["bslz4", -1, RAW]),
    (56500, ["bslz4", 1.0, RAW]),
    (56500, ["bslz4", 1, "text"]),
    (56500, ["bslz4", 1, b""]),
    (56500, ["bslz4", 3, RAW]),
    (56500, ["bslz4", 1, RAW[:-1]]),
    (56500, ["bslz4", 1, b"\xff" * 16]),
    (56500, ["bslz4", 1, b"\0\0\0\0\x30\0\0\0\0\0\x20\0"]),
    (56500, ["lz4", 0, b"\0\0\0\0\x30\0\0\0\x30\0\0\0\0\0\0\1a"]),
    (69, cbor2.CBORTag(56500, ["bslz4", 1, bytes(pack(np.zeros(9, np.uint8), "bslz4").payload)])),
]


@pytest.mark.parametrize(("tag", "content"), BAD_ARRAYS, ids=range(len(BAD_ARRAYS)))
def test_an_array_that_is_none_is_an_error(tag: int, content: Any) -> None:
    value: Any = cbor2.CBORTag(tag, content)
    with pytest.raises((BadHeader, DecodeError)):
        CODECS.decode([image({"a": value})])


def test_arrays_of_one_message_together_are_limited() -> None:
    small = Codecs(Decoding(limits=Limits(message_array=10_000), counters=Counters()))
    array = tagged(np.zeros((8, 1000), "u1"), "bszstd")
    assert small.decode([image({"a": array})]).data["data"]["a"].shape == (8, 1000)
    with pytest.raises(DecodeError, match="message_array"):
        small.decode([image({"a": array, "b": array})])
    assert small.decode([image({"a": array})]).data["data"]["a"].shape == (8, 1000)


@pytest.mark.parametrize(
    "data",
    [
        {"header": {"htype": "stream2"}},
        {"header": {"htype": "stream2", "type": "image"}},
        {"header": {"htype": "stream2", "type": "image"}, "data": {"a": np.zeros(2, bool)}},
        {"header": {"htype": "stream2", "type": "image"}, "data": {"a": np.zeros(2, "i2,i2")}},
        {"header": {"htype": "stream2", "type": "image"}, "data": {"a": pack(np.zeros(2), "lz4")}},
        {"header": {"htype": "stream2", "type": "start", "a": object()}},
        {"header": {"htype": "stream2", "type": "start", "a": np.complex128(1)}},
    ],
    ids=range(7),
)
def test_what_cannot_be_said_is_not_sent(data: Any) -> None:
    with pytest.raises(MessageError):
        CODECS.encode(data)


def test_an_image_that_was_kept_is_sent_as_it_came() -> None:
    frames = [image({"a": tagged(PIXELS.astype("<u2"), "bslz4")})]
    packet = KEEPING.decode(frames)
    assert isinstance(packet.data["data"]["a"], Image)
    assert CODECS.encode(packet.data) == frames
