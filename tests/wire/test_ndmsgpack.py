from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndstream.core.ports import Lent
from ndstream.errors import DataError, ProtocolError
from ndstream.wire.flow import Flow, Read, ReadInto
from ndstream.wire.ndmsgpack import (
    LONGEST_BIN,
    MARK,
    Bins,
    Prefix,
    array_header,
    bin_header,
    count_bins,
    encoded_length,
    read_array,
    write_prefix,
)

EXAMPLE = bytes.fromhex(  # specification §3.7: int32 [0, 1, 2] as the original server sends it
    "86a26e64c3 a474797065 a33c6934 a46b696e64 a0 a57368617065 9103 a66e6279746573 0c"
    "a464617461 91 c40c 00000000 01000000 02000000"
)


def run(flow: Flow[Prefix], body: bytes) -> Prefix:
    """Drive a flow from memory; it must take the body to its last byte."""
    at = 0
    result: Any = None
    try:
        while True:
            instruction = flow.send(result)
            assert isinstance(instruction, Read | ReadInto)
            size = instruction.count if isinstance(instruction, Read) else len(instruction.buffer)
            if at + size > len(body):
                raise EOFError
            result = body[at : at + size]
            at += size
            if isinstance(instruction, ReadInto):
                instruction.buffer[:] = result
    except StopIteration as stop:
        assert at == len(body)
        prefix: Prefix = stop.value
        return prefix


def into(memory: list[bytearray]) -> Callable[[Prefix], memoryview]:
    def destination(prefix: Prefix) -> memoryview:
        memory.append(bytearray(prefix.nbytes))
        return memoryview(memory[0])

    return destination


def cut(bins: Bins, pieces: list[bytes]) -> list[bytes]:
    parts = [part for piece in pieces for part in bins.cut(memoryview(piece))]
    return [bytes(part) for part in parts if not isinstance(part, Lent)]


def encode(element: Any, kind: str, shape: Sequence[int], pieces: list[bytes], longest: int = LONGEST_BIN) -> bytes:
    nbytes = sum(map(len, pieces))
    bins = Bins(nbytes, longest)
    sent = cut(bins, pieces)
    bins.finish()
    return write_prefix(element, kind, shape, nbytes) + b"".join(sent)


def test_the_example_of_the_specification_is_matched_to_the_byte() -> None:
    data = np.arange(3, dtype="<i4").tobytes()
    assert encode("<i4", "", (3,), [data]) == EXAMPLE
    memory: list[bytearray] = []
    assert run(read_array(into(memory)), EXAMPLE) == Prefix("<i4", "", (3,), 12, 1)
    assert bytes(memory[0]) == data


@given(
    hnp.arrays(st.sampled_from(["<i4", "<f8", "<u1", "S7"]), hnp.array_shapes(min_dims=0, min_side=0)),
    st.lists(st.integers(0, 200)),
)
def test_an_independent_reader_gets_the_array_however_it_was_cut(array: np.ndarray[Any, Any], cuts: list[int]) -> None:
    data = array.tobytes()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(edges)]
    wire = encode(array.dtype.str, "", array.shape, pieces)
    document = msgpack.unpackb(wire)
    assert list(document) == ["nd", "type", "kind", "shape", "nbytes", "data"]
    assert document["shape"] == list(array.shape)
    assert b"".join(document["data"]) == data
    assert len(document["data"]) == (1 if data else 0)
    assert wire.startswith(MARK)
    prefix = write_prefix(array.dtype.str, "", array.shape, len(data))
    assert len(wire) == encoded_length(prefix, len(data))
    memory: list[bytearray] = []
    assert run(read_array(into(memory)), wire).shape == array.shape
    assert bytes(memory[0]) == data


@pytest.mark.parametrize(
    "element", ["<f8", [["a", "<f4"], ["b", [["c", "S3"]], [2]]], {"names": ["x"] * 40, "f": None}]
)
def test_any_spelling_of_a_type_comes_through(element: Any) -> None:
    wire = encode(element, "V", (), [b"12345678"])
    assert run(read_array(into([])), wire).type == element


def test_long_arrays_go_in_full_bins_but_the_last() -> None:
    pieces = [bytes([n]) * 7 for n in range(5)]
    bins = Bins(35, longest=10)
    sent = b"".join(cut(bins, pieces))
    bins.finish()
    read = msgpack.unpackb(array_header(4) + sent)
    assert [len(part) for part in read] == [10, 10, 10, 5]
    assert b"".join(read) == b"".join(pieces)


def test_four_gigabytes_need_a_second_bin() -> None:
    nbytes = LONGEST_BIN + 1
    assert count_bins(LONGEST_BIN) == 1
    assert count_bins(nbytes) == 2
    prefix = write_prefix("<u1", "", (nbytes,), nbytes)
    assert prefix.endswith(b"\xa4data\x92")
    assert encoded_length(prefix, nbytes) == len(prefix) + 5 + LONGEST_BIN + 2 + 1


@pytest.mark.parametrize("count", [0, 15, 16, 255, 256, 65535, 65536, (1 << 32) - 1])
def test_headers_say_their_length_in_the_shortest_form(count: int) -> None:
    assert len(bin_header(count)) == (2 if count < 256 else 3 if count < 65536 else 5)
    assert int.from_bytes(bin_header(count)[1:], "big") == count
    assert array_header(count) == msgpack.Packer().pack_array_header(count)


def test_headers_refuse_what_msgpack_cannot_count() -> None:
    with pytest.raises(ValueError, match="too many"):
        bin_header(1 << 32)
    with pytest.raises(ValueError, match="too many"):
        array_header(1 << 32)


@pytest.mark.parametrize(("promised", "given_bytes"), [(4, 3), (4, 0), (4, 5), (0, 1)])
def test_more_or_fewer_bytes_than_promised_are_an_error(promised: int, given_bytes: int) -> None:
    bins = Bins(promised)
    with pytest.raises(DataError):
        bins.cut(memoryview(bytes(given_bytes)))
        bins.finish()


@pytest.mark.parametrize(
    "wire",
    [
        EXAMPLE.replace(b"\xa2nd", b"\xa2ne"),
        EXAMPLE.replace(b"shape", b"shepe"),
        EXAMPLE.replace(b"\xa0\xa5", b"\xc0\xa5"),
        EXAMPLE.replace(b"\x91\x03", b"\x91\xff"),
        EXAMPLE.replace(b"\xc4\x0c", b"\xc4\x0d"),
        EXAMPLE.replace(b"\x91\xc4", b"\x90\xc4"),
        EXAMPLE.replace(b"\xa3<i4", b"\xdf\xff\xff\xff\xff"),
        EXAMPLE.replace(b"\xa3<i4", b"\xdb\xff\xff\xff\xff"),
        EXAMPLE.replace(b"\xa3<i4", b"\xc1"),
        EXAMPLE.replace(b"\x91\xc4", b"\x91\xa4"),
        EXAMPLE.replace(b"data\x91", b"data\xc3"),
    ],
)
def test_a_broken_array_is_a_protocol_error(wire: bytes) -> None:
    with pytest.raises((ProtocolError, EOFError)):
        run(read_array(into([])), wire)


@given(st.binary(max_size=80))
def test_garbage_never_does_worse_than_a_protocol_error(garbage: bytes) -> None:
    with pytest.raises((ProtocolError, EOFError)):
        run(read_array(into([])), MARK + garbage)
