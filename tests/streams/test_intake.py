"""The rules of receiving, without sockets: every message is data or an error, and has no effect on the next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.gaps import Irregularity
from ndstream.core.limits import Limits
from ndstream.core.packets import Buffer, Decoding
from ndstream.errors import BadHeader, DecodeError, InvalidRequest, MessageError, MissingPart, UnknownHtype
from ndstream.streams.handlers import ReceiveHandler, raw, receive_handlers
from ndstream.streams.intake import SKIPPED, Intake, OnError
from ndstream.streams.messages import Statistics, Totals


def array(frame: int) -> list[Buffer]:
    header = {"htype": "array-1.0", "shape": [2], "type": "int16", "frame": frame}
    return [json.dumps(header).encode(), np.array([frame, -frame], "<i2").tobytes()]


NO_JSON: list[Buffer] = [b"{", b"abc"]
UNKNOWN: list[Buffer] = [b'{"htype": "unheard-1.0"}', b"abc"]
NO_HTYPE: list[Buffer] = [b"{}"]
LACKING: list[Buffer] = [b'{"htype": "dimage-1.0", "series": 1, "frame": 0, "hash": ""}', b"{}"]
SHORT: list[Buffer] = [array(1)[0], b"abc"]
BAD: dict[type[MessageError], list[Buffer]] = {
    BadHeader: NO_JSON,
    UnknownHtype: UNKNOWN,
    MissingPart: LACKING,
    DecodeError: SHORT,
}


def intake(on_error: OnError = "raise", **options: Any) -> tuple[Intake, Totals]:
    totals = Totals()
    return Intake(totals, Decoding(), on_error, **options), totals


@pytest.fixture
def everywhere() -> Iterator[dict[str, Any]]:
    yield receive_handlers
    receive_handlers.clear()


def test_a_message_is_data_and_a_snapshot_of_what_was_counted() -> None:
    stream, _ = intake()
    first, second = stream.accept(array(0)), stream.accept(array(1))
    length = sum(map(len, array(0)))
    assert first.data["data"][0].tolist() == [0, 0]
    assert second.data["header"]["frame"] == 1
    assert first.statistics == Statistics(length, length, 1)
    assert second.statistics == Statistics(length, 2 * length, 2)
    assert (second.htype, second.header["frame"], list(second.frames)) == ("array-1.0", 1, array(1))
    assert second.images["0"].shape == (2,)


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.code)
def test_what_cannot_be_decoded_is_a_typed_error_with_its_parts_and_counted_apart(kind: type[MessageError]) -> None:
    stream, totals = intake()
    with pytest.raises(kind) as caught:
        stream.accept(list(BAD[kind]))
    assert list(caught.value.parts) == BAD[kind]
    assert totals.messages_failed == {kind.code: 1}
    assert totals.bytes_failed == {kind.code: sum(map(len, BAD[kind]))}
    length = sum(map(len, array(5)))
    # Fault 3: the bytes of what failed are not added to the next message.
    assert stream.accept(array(5)).statistics == Statistics(length, length, 1)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([*BAD.values(), NO_HTYPE, array(1), array(2)]), max_size=8), st.booleans())
def test_no_message_has_an_effect_on_the_next(messages: list[list[Buffer]], handled: bool) -> None:
    """Fault 1: the header of a message that failed is never that of the next."""
    stream, totals = intake("skip")
    for parts in messages:
        stream.accept(list(parts), raw if handled else None)
    frames = [stream.accept(array(7), handler).data["header"]["frame"] for handler in (None, raw)]
    assert frames == [7, 7]
    assert totals.messages_received + sum(totals.messages_failed.values()) == len(messages) + 2


def test_errors_are_raised_skipped_told_or_none() -> None:
    told: list[MessageError] = []
    assert intake("skip")[0].accept(list(UNKNOWN)) is SKIPPED
    assert intake("none")[0].accept(list(UNKNOWN)) is None
    assert intake(told.append)[0].accept(list(UNKNOWN)) is SKIPPED
    assert [error.htype for error in told] == ["unheard-1.0"]
    with pytest.raises(InvalidRequest, match="on_error"):
        intake("ignore")  # type: ignore[arg-type]


def test_functions_decode_by_htype_those_of_the_stream_first(everywhere: dict[str, Any]) -> None:
    stream, _ = intake()
    everywhere["unheard-1.0"] = lambda receiver: ["of the process", receiver.next()]
    assert stream.accept(list(UNKNOWN)).data[0] == "of the process"
    stream.handlers["unheard-1.0"] = lambda receiver: {"own": receiver.next(as_json=True)}
    assert stream.accept(list(UNKNOWN)).data == {"own": {"htype": "unheard-1.0"}}
    assert stream.accept(array(3)).data["header"]["frame"] == 3
    with pytest.raises(BadHeader):
        stream.accept(list(NO_JSON))


def test_a_function_takes_the_parts_one_after_the_other() -> None:
    seen: list[Any] = []

    def handler(receiver: ReceiveHandler) -> dict[str, Any]:
        """Decode as the example in the README of the original does."""
        header = receiver.next(as_json=True)
        data = []
        while receiver.has_more():
            data.append(receiver.next() or None)
        seen.extend([receiver.header(), receiver.next(), receiver.block, receiver.statistics.messages_received])
        return {"header": header, "data": data}

    stream, _ = intake()
    stream.accept(array(1))
    message = stream.accept([UNKNOWN[0], b"a", b"", b"c"], handler, block=False)
    assert message.data == {"header": {"htype": "unheard-1.0"}, "data": [b"a", None, b"c"]}
    assert seen == [{"htype": "unheard-1.0"}, None, False, 1]


def test_a_function_that_fails_costs_its_message_only() -> None:
    def failing(receiver: ReceiveHandler) -> Any:
        raise ZeroDivisionError("in the function")

    stream, totals = intake()
    stream.handlers["array-1.0"] = failing
    with pytest.raises(DecodeError, match="in the function") as caught:
        stream.accept(array(1))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert (caught.value.htype, list(caught.value.parts)) == ("array-1.0", array(1))
    stream.handlers.clear()
    assert stream.accept(array(2)).data["header"]["frame"] == 2
    assert totals.messages_failed == {"undecodable": 1}


def test_an_empty_result_is_a_message_but_none_where_the_original_has_it_so() -> None:
    assert intake()[0].accept(array(1), lambda receiver: {}).data == {}
    assert intake("none")[0].accept(array(1), lambda receiver: {}) is None


def test_raw_keeps_any_header() -> None:
    stream, _ = intake()
    assert stream.accept([b"\xff\x00", b"a"], raw).data == {"header": b"\xff\x00", "data": [b"a"]}
    assert stream.accept([b"[1]"], raw).data == {"header": [1], "data": []}


def test_numbers_are_watched_and_told() -> None:
    told: list[Irregularity] = []
    stream, totals = intake(on_gap=told.append)
    for frame in (0, 1, 4, 4, 2):
        stream.accept(array(frame))
    assert (totals.gaps, totals.missing, totals.repeats, totals.reversals) == (1, 1, 1, 1)
    assert [irregularity.kind for irregularity in told] == ["gap", "repeat", "reversal"]
    assert totals.as_dict()["gaps"] == 1


HOSTILE: list[list[Buffer]] = [
    [b'{"htype": "array-1.0", "type": "u1", "shape": [1152921504606846976]}', b"abc"],
    [b'{"htype": "array-1.0", "type": "u1", "shape": [-3]}', b"abc"],
    [b'{"htype": "array-1.0", "type": "u1", "shape": [3.0]}', b"abc"],
    [b'{"htype": "array-1.0", "type": "O", "shape": [1]}', b"abcdefgh"],
    [b'{"htype": "raw-1.0"}', *[b""] * 100_000],
    [b'{"htype": "raw-1.0", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
    [b'{"htype": "raw-1.0", "name": "\xff"}'],
    [b""],
]


@pytest.mark.parametrize("parts", HOSTILE, ids=lambda parts: repr(parts[0][:70]))
def test_hostile_messages_are_typed_errors_and_the_stream_goes_on(parts: list[Buffer]) -> None:
    stream, _ = intake()
    with pytest.raises(MessageError):
        stream.accept(list(parts))
    assert stream.accept(array(1)).data["header"]["frame"] == 1


def test_limits_hold_for_functions_too() -> None:
    totals = Totals()
    stream = Intake(totals, Decoding(limits=Limits(message_header=8)))
    with pytest.raises(BadHeader, match="message_header"):
        stream.accept(array(1), lambda receiver: receiver.next(as_json=True))
