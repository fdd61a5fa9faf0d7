"""Values of a message are counted without taking it apart; an independent encoder is the oracle."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.protocols.rpc import counting
from ndstream.protocols.rpc.counting import json_exceeds, msgpack_exceeds

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(width=32)
    | st.text()
    | st.binary(max_size=300)
)
EXTENSIONS = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=300))


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=40) | st.dictionaries(keys, inner, max_size=40), max_leaves=100
    )


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(count, value)) + sum(map(count, value.values()))
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


@given(value=nested(LEAVES | EXTENSIONS, st.text() | st.integers(0, 2**64 - 1)), single=st.booleans())
def test_values_of_messagepack_are_counted(value: Any, single: bool) -> None:
    payload = msgpack.packb(value, use_single_float=single)
    assert msgpack_exceeds(payload, count(value) - 1)
    assert not msgpack_exceeds(memoryview(payload), count(value))


@given(value=nested(st.none() | st.booleans() | st.integers() | st.text(), st.text()))
def test_values_of_json_are_counted(value: Any) -> None:
    """Commas and brackets in text are none; an empty list counts as one item."""
    text = json.dumps({"x": value}).encode()
    assert not json_exceeds(text, 2 * count(value) + 2)
    assert json_exceeds(text, (count(value) - 1) // 2)


@given(text=st.text(st.sampled_from('",\\[n'), max_size=40), stretch=st.integers(1, 8))
def test_wherever_text_is_cut_it_is_text(text: str, stretch: int) -> None:
    encoded = json.dumps([text] * 3).encode()
    with patch.object(counting, "_STRETCH", stretch):
        assert not json_exceeds(encoded, 3)
        assert json_exceeds(encoded, 2)


def test_text_without_an_end_is_read_once() -> None:
    """Not once from every quote on: this test would never end."""
    assert not json_exceeds(b'{"a":"' + b',\\"' * 2_000_000, 1_000_000)


@pytest.mark.parametrize("payload", [b"\xdd\xff", b"\xc6\xff\xff\xff\xff", b"\xdb", b"\xc1\xc1", b"\xcb\x01"])
def test_what_is_damaged_has_an_end(payload: bytes) -> None:
    msgpack_exceeds(payload, 1)
