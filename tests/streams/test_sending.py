"""The rules of sending, without sockets: whole messages, and what does not go out is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndstream.core.modes import Policy
from ndstream.core.packets import Buffer
from ndstream.errors import BadHeader, InvalidRequest, TooLarge
from ndstream.streams.handlers import part_of
from ndstream.streams.messages import Totals
from ndstream.streams.sending import SENT, Sending


class Room:
    """Takes as many messages as there is room for, as a channel does."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[list[bytes]] = []
        self.refusing = True

    def send(self, parts: Sequence[Buffer]) -> Any:
        if not self.room and self.refusing:
            return False
        if self.room:
            self.room -= 1
            self.taken.append([bytes(part) for part in parts])
        return True

    def refuse_slow(self, refuse: bool) -> None:
        self.refusing = refuse


def sending(policy: Policy, room: int, **options: Any) -> tuple[Sending, Room, Totals]:
    output, totals = Room(room), Totals()
    defaults: dict[str, Any] = {"copies": True, "spreads": False, "most_messages": 3, "most_bytes": 100}
    return Sending(output, totals, policy, **defaults | options), output, totals


def test_parts_are_held_until_the_last_and_sent_at_once() -> None:
    outgoing, output, _ = sending("block", 9)
    assert outgoing.add(lambda: part_of({"a": [1, 2]}, as_json=True), True) is None
    parts = outgoing.add(lambda: part_of("text"), False)
    assert output.taken == []
    assert parts is not None
    assert outgoing.offer(parts) is SENT
    assert output.taken == [[b'{"a": [1, 2]}', b"text"]]


def test_a_part_that_cannot_be_made_is_not_glued_to_the_next_message() -> None:
    """Fault 5."""
    outgoing, _, totals = sending("block", 9)
    outgoing.add(lambda: b"header", True)
    with pytest.raises(BadHeader):
        outgoing.add(lambda: part_of({"a": object()}, as_json=True), True)
    assert outgoing.add(lambda: b"next", False) == [b"next"]
    assert totals.messages_dropped == {"unfinished": 1}


@pytest.mark.parametrize("part", [3, None, object(), ["a"]])
def test_only_bytes_and_text_are_parts(part: object) -> None:
    with pytest.raises(InvalidRequest, match="a part is bytes"):
        part_of(part)


def test_blocking_offers_again_and_not_blocking_counts() -> None:
    outgoing, output, totals = sending("block", 1)
    assert outgoing.offer([b"1"])
    assert outgoing.offer([b"2"]) is None
    dropped = outgoing.offer([b"3"], block=False)
    assert dropped is not None
    assert not dropped
    assert totals.messages_dropped == {"full": 1}
    output.room = 1
    assert outgoing.offer([b"2"])
    assert (totals.messages_sent, totals.bytes_sent, output.taken) == (2, 2, [[b"1"], [b"2"]])


def test_the_newest_is_dropped_and_counted() -> None:
    outgoing, output, totals = sending("drop-newest", 2)
    assert [bool(outgoing.offer([b"%d" % number])) for number in range(4)] == [True, True, False, False]
    assert output.taken == [[b"0"], [b"1"]]
    assert totals.messages_dropped == {"full": 2}


def test_a_message_for_all_goes_to_those_that_have_room_and_is_counted() -> None:
    outgoing, output, totals = sending("drop-newest", 1, spreads=True)
    assert outgoing.offer([b"1"])
    assert outgoing.offer([b"2"])
    assert (totals.messages_sent, totals.messages_dropped) == (2, {"slow": 1})
    assert output.refusing


def test_the_oldest_are_dropped_beyond_the_number_of_messages() -> None:
    outgoing, output, totals = sending("drop-oldest", 0)
    sent = [outgoing.offer([b"%d" % number]) for number in range(5)]
    assert [found.state for found in sent if found is not None] == ["dropped", "dropped", "queued", "queued", "queued"]
    output.room = 9
    assert outgoing.pump()
    assert output.taken == [[b"2"], [b"3"], [b"4"]]
    assert [found.state for found in sent if found is not None][2:] == ["sent"] * 3
    assert totals.messages_dropped == {"oldest": 2}


def test_the_oldest_are_dropped_beyond_the_bytes() -> None:
    outgoing, _, totals = sending("drop-oldest", 0)
    outgoing.offer([bytes(40)])
    outgoing.offer([bytes(50)])
    outgoing.offer([bytes(30), bytes(20)])
    assert (len(outgoing), totals.messages_dropped) == (2, {"oldest": 1})
    with pytest.raises(TooLarge, match="stream_queue"):
        outgoing.offer([bytes(101)])
    assert outgoing.give_up() == 2
    assert len(outgoing) == 0


@pytest.mark.parametrize("copies", [True, False])
def test_what_is_queued_is_copied_unless_the_caller_leaves_its_memory(copies: bool) -> None:
    outgoing, output, _ = sending("drop-oldest", 0, copies=copies)
    memory = bytearray(b"before")
    outgoing.offer([memory])
    memory[:] = b"after!"
    output.room = 1
    outgoing.pump()
    assert output.taken == [[b"before" if copies else b"after!"]]


@settings(max_examples=60)
@given(
    st.sampled_from(["block", "drop-newest", "drop-oldest"]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=30),
)
def test_every_message_is_sent_dropped_or_waiting(policy: Policy, steps: list[tuple[int, int]]) -> None:
    outgoing, output, totals = sending(policy, 0)
    refused = 0
    for number, (room, size) in enumerate(steps):
        output.room += room
        refused += outgoing.offer([b"%d" % number, bytes(size)]) is None
    waiting = len(outgoing)
    assert len(output.taken) + sum(totals.messages_dropped.values()) + waiting + refused == len(steps)
    numbers = [int(parts[0]) for parts in output.taken]
    assert numbers == sorted(set(numbers))
    assert waiting <= 3
