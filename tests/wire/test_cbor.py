"""CBOR, with cbor2 as oracle."""

from __future__ import annotations

import math
import struct
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.errors import BadHeader, DecodeError
from ndstream.wire.cbor import Tag, decode, encode

KEYS = st.text(max_size=8) | st.integers(-(1 << 64), (1 << 64) - 1) | st.binary(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes | bytearray, **limits: Any) -> Any:
    return decode(data, **{"items": 10_000, "depth": 64} | limits)


def plain(value: Any) -> Any:
    """Value in which views are bytes, and numbers that equal none are a word."""
    match value:
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case float() if math.isnan(value):
            return "nan"
        case memoryview():
            return bytes(value)
        case Tag(number, inner):
            return number, plain(inner)
    return value


@given(VALUES)
def test_others_and_we_understand_each_other(value: Any) -> None:
    assert plain(read(cbor2.dumps(value))) == plain(value)
    assert plain(read(cbor2.dumps(value, canonical=True))) == plain(value)
    assert plain(cbor2.loads(b"".join(encode(value)))) == plain(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    try:
        value = read(data)
    except DecodeError:
        return
    assert plain(read(b"".join(encode(value)))) == plain(value)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("5f 42 0102 41 03 ff", b"\1\2\3"),
        ("7f 62 6162 61 63 ff", "abc"),
        ("9f 01 9f 02 ff ff", [1, [2]]),
        ("bf 61 61 01 ff", {"a": 1}),
        ("f7", None),
        ("f9 3e00", 1.5),
        ("fa 3fc00000", 1.5),
        ("c1 18 64", Tag(1, 100)),
        ("d9 0102 c6 01", Tag(258, Tag(6, 1))),
        ("a1 01 02", {1: 2}),
        ("a1 41 61 02", {b"a": 2}),
    ],
)
def test_forms_that_others_may_send(data: str, value: Any) -> None:
    assert read(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    "data",
    ["", "18", "1c", "1f", "3f", "df", "ff", "41", "61", "61 ff", "81", "a1 01", "9f 01", "81 ff", "a1 ff", "bf 01 ff",
     "5f 61 61 ff", "5f 5f ff ff", "7f 41 61 ff", "5f 41 61", "f8 20", "e0", "c1", "c1 ff", "00 00", "a1 80 01",
     "a1 f6 01", "a1 a0 01",
     "bb ffffffffffffffff", "9b ffffffffffffffff", "5b ffffffffffffffff", "7b 7fffffffffffffff"],
)  # fmt: skip
def test_what_is_no_cbor_is_an_error(data: str) -> None:
    with pytest.raises(DecodeError):
        read(bytes.fromhex(data))


def test_byte_strings_are_views() -> None:
    memory = bytearray(b"\x82\x43abc\x01")
    view = read(memory)[0]
    view[0] = ord("x")
    assert memory == b"\x82\x43xbc\x01"


def test_long_byte_strings_are_written_as_views_and_short_ones_are_not() -> None:
    array = np.zeros(10_000, np.uint8)
    parts = encode({"a": [array.data, b"short"]})
    assert len(parts) == 3
    assert np.shares_memory(np.frombuffer(parts[1], np.uint8), array)
    assert cbor2.loads(b"".join(parts)) == {"a": [bytes(10_000), b"short"]}


def test_items_text_and_depth_are_limited_and_byte_strings_are_not() -> None:
    assert len(read(b"\x5a" + struct.pack(">I", 20_000) + bytes(20_000), items=1)) == 20_000
    assert read(b"\x83\1\2\3", items=4) == [1, 2, 3]
    assert read(b"\x81" * 3 + b"\1", depth=3) == [[[1]]]
    for data, limits in (
        (b"\x83\1\2\3", {"items": 3}),
        (b"\x9f\1\2\3\xff", {"items": 3}),
        (b"\x64abcd", {"items": 4}),
        (b"\x7f\x64abcd\xff", {"items": 4}),
        (b"\x81" * 4 + b"\1", {"depth": 3}),
        (b"\xa1\1" * 4 + b"\1", {"depth": 3}),
        (b"\xc1" * 4 + b"\1", {"depth": 3}),
        (b"\x81" * 100_000, {}),
        (b"\x9a\x7f\xff\xff\xff", {}),
    ):
        with pytest.raises(DecodeError):
            read(data, **limits)


def test_tags_are_resolved_from_within() -> None:
    assert read(b"\xc1\x81\xc2\5", untag=lambda number, value: (number, value)) == (1, [(2, 5)])


def test_what_has_no_form_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (object(), {1, 2}, 1 << 64, [1j], circle, {"a": np.float32(1)}):
        with pytest.raises(BadHeader):
            encode(value)
    assert b"".join(encode(np.float32(1), float)) == cbor2.dumps(1.0)
