from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.core.limits import DEFAULT_LIMITS
from ndstream.errors import InvalidRequest, TooLarge
from ndstream.protocols.hdfstream import codec
from ndstream.protocols.hdfstream.codec import parse_body, parse_query
from ndstream.protocols.hdfstream.messages import INT32_MAX, Request

LIMITS = replace(DEFAULT_LIMITS, path_length=10)


def body(value: Any) -> Request:
    return parse_body(msgpack.packb(value), LIMITS)


def query(**parameters: str) -> Request:
    return parse_query(urlencode(parameters).encode(), LIMITS)


def pairs(*entries: tuple[Any, Any]) -> bytes:
    """A map with entries as given, repeated ones too."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(len(entries))
    for key, value in entries:
        packer.pack(key)
        packer.pack(value)
    return bytes(packer.bytes())


def test_one_byte_asks_what_the_path_is() -> None:
    assert parse_body(b"\x80", LIMITS) == Request(None, 0, INT32_MAX, None)
    assert parse_query(b"", LIMITS) == Request(None, 0, INT32_MAX, None)


@given(st.text(max_size=2), st.integers(0, INT32_MAX), st.integers(0, INT32_MAX))
def test_both_spellings_of_a_request_mean_the_same(name: str, depth: int, limit: int) -> None:
    name = name.replace("\0", "")
    assert (
        body({"object": name, "max_depth": depth, "data_size_limit": limit})
        == query(object=name, max_depth=str(depth), data_size_limit=str(limit))
        == Request(name, depth, limit, None)
    )


def test_a_slice_in_either_spelling() -> None:
    for request in (
        body({"object": "x", "slice": [[1, 2]]}),
        body({"object": "x", "slice": "1:3"}),
        query(object="x", slice="1:3"),
    ):
        assert request.slices is not None
        assert request.slices.extents == ((1, 2),)


naturals = st.integers(0, (1 << 64) - 1)
boxes = st.lists(st.tuples(naturals, naturals) | st.tuples(st.integers(-2, 2), st.floats() | st.none()), max_size=34)


@given(name=st.text(max_size=4), box=boxes, backwards=st.booleans())
def test_a_box_alone_is_read_as_with_a_depth(name: str, box: list[Any], backwards: bool) -> None:
    asked = {"object": name, "slice": box}
    found: list[Any] = []
    for more in ({}, {"max_depth": 0}):
        each = asked | more
        try:
            request = body(dict(reversed(each.items())) if backwards else each)
            found.append((request.object, request.depth, request.limit, request.slices and request.slices.extents))
        except InvalidRequest as error:
            found.append((type(error), str(error)))
    assert found[0] == found[1]


def test_a_limit_of_a_body_may_be_long_that_of_a_query_not() -> None:
    assert body({"data_size_limit": 2**40}).limit == 2**40
    with pytest.raises(InvalidRequest):
        query(data_size_limit=str(2**31))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\xc0",
        b"\x90",
        b"\x80\x80",
        b"\x81",
        b"\x81\xa6object",
        b"\xc1",
        b"\x81\xa6object\xa2\xff\xfe",
        pairs(("object", "x"), ("object", "x")),
        pairs(("max_depth", 0), ("max_depth", 0)),
        pairs(("object", "x"), ("max_depth", 1), ("data_size_limit", 1), ("slice", "0"), ("object", "x")),
        pairs(("object", "x"), ("max_depth", 1), ("data_size_limit", 1), ("slice", "0"), ("more", 1)),
        pairs(("max_data_size", 1)),
        pairs((1, 1)),
        pairs((b"object", "x")),
        pairs(("object", b"x")),
        pairs(("object", 1)),
        pairs(("object", None)),
        pairs(("object", "x\0")),
        pairs(("object", "x" * 11)),
        pairs(("object", "ä" * 6)),
        pairs(("max_depth", -1)),
        pairs(("max_depth", 2**31)),
        pairs(("max_depth", 1.0)),
        pairs(("max_depth", True)),
        pairs(("data_size_limit", -1)),
        pairs(("data_size_limit", 2**63)),
        pairs(("slice", "0")),
        pairs(("slice", [[0, 1]])),
        pairs(("object", "x"), ("slice", [[0]])),
        pairs(("object", "x"), ("slice", "3:1")),
        pairs(("object", "x")) + b"\0",
        b"\x81\xa5slice" + b"\x91" * 5000 + b"\xc0",
    ],
    ids=repr,
)
def test_a_body_that_is_wrong_is_refused_with_the_words_of_the_original(wrong: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^Unable to decode request: "):
        parse_body(wrong, LIMITS)


@given(st.binary(max_size=60))
def test_garbage_is_a_request_or_refused(garbage: bytes) -> None:
    try:
        parse_body(garbage, LIMITS)
    except InvalidRequest:
        return


def test_maps_may_announce_their_length_in_any_form() -> None:
    entries = pairs(("object", "x"))[1:]
    assert parse_body(b"\xde\x00\x01" + entries, LIMITS).object == "x"
    assert parse_body(b"\xdf\x00\x00\x00\x01" + entries, LIMITS).object == "x"


@pytest.mark.parametrize(
    "wrong",
    [
        "max_depth=x",
        "max_depth=",
        "max_depth=-1",
        "max_depth=1.0",
        "max_depth=%C2%B2",
        "data_size_limit=99999999999",
        "object=x%00",
        "object=%FF",
        "object=xxxxxxxxxxx",
        "slice=0",
        "object=x&slice=a",
    ],
)
def test_a_query_that_is_wrong_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_query(wrong.encode(), LIMITS)


def test_a_query_may_hold_anything_else() -> None:
    assert parse_query(b"object=x&max_data_size=7&y&object=z&=&;", LIMITS) == Request("x", 0, INT32_MAX, None)


def test_too_long_a_name_is_told_from_a_malformed_one() -> None:
    with pytest.raises(TooLarge):
        body({"object": "x" * 11})
    assert query(object="ä" * 10).object == "ä" * 10  # a query counts characters


def test_documents_are_cut_at_their_holes() -> None:
    holes = codec.make_holes(["a", "b"])
    whole = codec.encode({"first": holes["a"], "second": 1, "third": holes["b"]})
    pieces = [bytes(piece) for piece in codec.cut(whole, holes.values())]
    assert msgpack.unpackb(pieces[0] + b"\x01" + pieces[1] + b"\xc0" + pieces[2]) == {
        "first": 1,
        "second": 1,
        "third": None,
    }


@pytest.mark.parametrize("count", [0, 3, 20, 70_000])
@pytest.mark.parametrize("extended", [False, True])
def test_elements_can_be_encoded_bit_by_bit(count: int, extended: bool) -> None:
    elements = [f"{n}" for n in range(count)]
    whole = codec.begin_elements((count,), count, extended=extended)
    whole += b"".join(codec.encode_elements(elements[start : start + 1000]) for start in range(0, count, 1000))
    whole += codec.end_elements(extended=extended)
    wanted = {"vlen": True, "shape": [count], "data": elements} | ({"elements": True} if extended else {})
    assert list(msgpack.unpackb(whole).items()) == list(wanted.items())


def test_no_more_elements_than_msgpack_can_count() -> None:
    with pytest.raises(TooLarge):
        codec.begin_elements((1 << 32,), 1 << 32, extended=False)
