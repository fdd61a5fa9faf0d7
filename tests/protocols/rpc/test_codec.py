"""Both ends of the codec joined in memory, and whatever else may come: data or a typed error, nothing else."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.protocols.rpc.peer import extended, packed, taken_apart

from ndstream.core.limits import KiB
from ndstream.errors import NDStreamError, UnsupportedDType
from ndstream.protocols.rpc import codec
from ndstream.protocols.rpc.messages import LARGEST_ID, RESERVED, Form, Read
from ndstream.protocols.rpc.operations import arguments_of
from ndstream.wire.framing import Buffer, Frames, frame_head

kinds = st.sampled_from(["|b1", "|u1", "<i2", "<i4", "<i8", "<u8", "<f4", "<f8", "<c16", "|S3", "<U4"])
arrays = kinds.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)))
plain = st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False) | st.text(max_size=8)
keys = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=6)


def through(fields: dict[str, Any], form: Form, *, compress: bool = False) -> dict[str, Any]:
    payload = b"".join(map(bytes, codec.pack(fields, form, compress=compress)))
    unpacked = codec.unpack(payload, extended=True)
    assert unpacked.form is form
    return codec.restore(unpacked, codec.Agreed(frozenset({"zlib"})))


@settings(max_examples=100)
@given(array=arrays, form=st.sampled_from([Form.MSGPACK, Form.EXTENDED]), compress=st.booleans())
def test_arrays_come_through_every_form(array: np.ndarray[Any, Any], form: Form, compress: bool) -> None:
    found = through({"data": array, "other": [array, {"deep": array}]}, form, compress=compress)
    for each in (found["data"], found["other"][0], found["other"][1]["deep"]):
        assert each.shape == array.shape
        np.testing.assert_array_equal(each, array)


@settings(max_examples=100)
@given(
    value=st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)),
    form=st.sampled_from(Form),
)
def test_plain_values_come_through_every_form(value: Any, form: Form) -> None:
    if isinstance(value, dict) and "$nd" in value:
        return
    assert through({"data": value}, form) == {"data": value}


numbered = hnp.arrays("<f8", hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)) | hnp.arrays(
    "<U2", 5, elements=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=2)
)


@settings(max_examples=100)
@given(
    value=st.recursive(
        plain | numbered, lambda inner: st.lists(inner, max_size=9) | st.dictionaries(keys, inner, max_size=3)
    )
)
def test_json_in_pieces_is_json(value: Any) -> None:
    whole = codec.pack({"data": value}, Form.JSON)
    with patch.object(codec, "_STRETCH", 0), patch.object(codec, "_TOGETHER", 2):
        assert codec.pack({"data": value}, Form.JSON) == whole


@pytest.mark.parametrize("value", [np.arange(1e5), np.zeros((2, 300, 1000), "u1"), [[1.5] * 10**5], {"a": [1] * 10**5}])
def test_no_piece_of_json_is_long(value: Any) -> None:
    """While one is made, nothing else runs."""
    assert max(map(len, codec._json_pieces({"data": value}))) < 256 * KiB


def test_keys_with_a_dollar_are_doubled() -> None:
    payload = b"".join(map(bytes, codec.pack({"data": {"$nd": 1, "$$x": 2}}, Form.EXTENDED)))
    assert taken_apart(payload)[0] == {"data": {"$$nd": 1, "$$$x": 2}}
    assert through({"data": {"$nd": 1, "$$x": 2}}, Form.EXTENDED) == {"data": {"$nd": 1, "$$x": 2}}


def test_bodies_are_views_at_multiples_of_eight() -> None:
    array = np.arange(1000, dtype="<f8")
    payload = codec.pack({"a": array[:3], "b": array}, Form.EXTENDED)
    assert np.shares_memory(np.frombuffer(payload[-1], "u1"), array)
    assert sum(map(len, payload[:-1])) % 8 == 0


@settings(max_examples=300)
@given(payload=st.binary(min_size=1, max_size=60) | st.binary(max_size=60).map(lambda rest: b"\xc1\x01\0\0" + rest))
def test_anything_is_data_or_a_typed_error(payload: bytes) -> None:
    try:
        unpacked = codec.unpack(payload, extended=True)
        codec.request_of(
            codec.restore(unpacked, codec.Agreed()), unpacked.form, codec.ident_of(unpacked.fields.get("id"))
        )
    except NDStreamError:
        pass


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_payload_that_is_cut_is_a_typed_error(cut: int) -> None:
    reference = {"$nd": 0, "dtype": "<i4", "shape": [3]}
    whole = extended({"command": "write", "data": reference}, bytes(12))
    with pytest.raises(NDStreamError):
        codec.restore(codec.unpack(whole[:-cut], extended=True), codec.Agreed())


def test_what_comes_behind_a_fault_is_thrown_away() -> None:
    frames = Frames(100)
    sent = frame_head(5) + b"hello" + frame_head(101) + bytes(200_000)
    found: list[Buffer] = []
    while sent:
        place = frames.buffer()
        assert len(place)
        count = min(len(place), len(sent))
        place[:count], sent = sent[:count], sent[count:]
        found += frames.received(count)
    assert found == [b"hello"]
    assert frames.fault is not None
    assert not frames.partial


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 200_000), max_size=6), pieces=st.lists(st.integers(1, 90_000), min_size=1, max_size=9)
)
def test_frames_are_cut_wherever_they_arrive(sizes: list[int], pieces: list[int]) -> None:
    payloads = [bytes([number % 251 + 1]) * size for number, size in enumerate(sizes)]
    stream = b"".join(frame_head(len(payload)) + payload for payload in payloads)
    frames, at = Frames(1 << 20), 0
    found: list[Buffer] = []
    while at < len(stream):
        buffer = frames.buffer()
        count = min(len(buffer), pieces[len(found) % len(pieces)], len(stream) - at)
        buffer[:count] = stream[at : at + count]
        found += frames.received(count)
        at += count
    assert [bytes(payload) for payload in found] == payloads
    assert not frames.partial


@settings(max_examples=200)
@given(
    array=arrays.filter(lambda array: array.nbytes and array.dtype.kind != "U"),
    form=st.sampled_from([Form.MSGPACK, Form.EXTENDED]),
    ident=st.none() | st.integers(0, LARGEST_ID) | st.text(max_size=16),
)
def test_a_mould_makes_what_pack_makes(array: np.ndarray[Any, Any], form: Form, ident: Any) -> None:
    fields: dict[str, Any] = {"status": "success", "data": array}
    if form is Form.EXTENDED:
        fields["shape"] = list(array.shape)
    named = fields if ident is None else {"id": ident, **fields}
    mould = codec.Mould(fields | {"data": np.zeros_like(array)}, form, array.nbytes)
    filled = mould.filled(memoryview(array.tobytes()), ident)
    assert b"".join(filled) == b"".join(codec.pack(named, form))


numbers = st.integers(-(1 << 63), (1 << 64) - 1)
entries = st.none() | st.integers(-3, 1 << 40) | st.just("...") | st.lists(st.none() | numbers, max_size=3)
odd = entries | st.booleans() | st.floats() | st.binary(max_size=2) | st.just({"i": [1]}) | st.just([[1]])


@settings(max_examples=300)
@given(
    asked=st.fixed_dictionaries(
        {},
        optional={
            "command": st.sampled_from(["read", "write", None]),
            "path": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5) | st.none() | numbers,
            "id": st.none() | st.integers(-1, 1 << 60) | st.text(max_size=70) | st.floats(),
            "selection": st.none() | st.lists(entries, max_size=3) | st.lists(odd, max_size=3),
            "max_bytes": st.none() | numbers,
            "stream": st.none() | st.booleans(),
            "selections": st.none() | st.just([]),
            "other": st.none(),
        },
    )
)
def test_a_plain_read_is_what_the_long_way_finds(asked: dict[str, Any]) -> None:
    payload = msgspec.msgpack.encode(asked)
    plain = codec.plain_read(payload)
    if plain is None:
        return
    unpacked = codec.unpack(payload, extended=True)
    ident = codec.ident_of(unpacked.fields.get("id"))
    found = codec.request_of(codec.restore(unpacked, codec.Agreed()), unpacked.form, ident)
    read = arguments_of(found.command, found.arguments, known_only=False)
    assert isinstance(read, Read)
    assert (plain.id, plain.path, plain.selection, plain.max_bytes) == (
        ident,
        read.path,
        read.selection,
        read.max_bytes,
    )
    assert read.stream is (plain.stream is True)
    assert read.selections is None
    assert plain.is_bare is all(unpacked.fields.get(key) is None for key in RESERVED)


@pytest.mark.parametrize("read", [{}, {"id": 3}, {"selection": [[1, 2], None]}, {"selection": [4, "..."], "id": "x"}])
def test_ordinary_reads_are_plain(read: dict[str, Any]) -> None:
    plain = codec.plain_read(packed(command="read", path="/x", **read))
    assert plain is not None
    assert plain.is_bare is not bool(read)
    assert (plain.path, plain.id, plain.selection) == ("/x", read.get("id"), read.get("selection"))


@pytest.mark.parametrize("form", [Form.MSGPACK, Form.EXTENDED])
@pytest.mark.parametrize("value", [np.ma.array([1, 2], mask=[False, True]), np.datetime64("2020-01-01")])
def test_what_would_arrive_as_something_else_does_not_travel(value: Any, form: Form) -> None:
    with pytest.raises(UnsupportedDType):
        codec.pack({"data": value}, form)


@pytest.mark.parametrize("form", Form)
def test_the_longest_floats_travel_as_others(form: Form) -> None:
    assert through({"data": np.longdouble(0.5)}, form) == {"data": 0.5}
    if form is not Form.JSON:
        assert through({"data": np.clongdouble(0.5j)}, form) == {"data": 0.5j}


@pytest.mark.parametrize("form", Form)
def test_a_refusal_is_told_whatever_its_words(form: Form) -> None:
    fields = {"id": 7, "status": "error", "message": "no \udcff", "details": {"nbytes": 1 << 70}}
    payload = b"".join(map(bytes, codec.pack_failure(fields, form)))
    assert codec.unpack(payload, extended=False).fields["message"] == "no \\udcff"
