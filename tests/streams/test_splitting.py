"""One stream to several outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndstream import CONNECT, PULL, PUSH, Stream
from ndstream.core.modes import Mode
from ndstream.errors import ConfigError
from ndstream.streams.splitting import Output, Source, Splitter, parse_output, read_configuration

Open = Callable[..., Stream]
COUNT = 60


def feed(opened: Open, address: str, count: int = COUNT) -> None:
    sender = opened(address, CONNECT, PUSH, queue_size=0)
    for number in range(count):
        sender.send_parts([b"%d" % number, b"", b"part"])


def taken(receiver: Stream, count: int) -> list[list[bytes]]:
    found = []
    for _ in range(count):
        message = receiver.receive_raw()
        assert message is not None
        found.append([bytes(frame) for frame in message.frames])
    return found


def numbers(messages: list[list[bytes]]) -> list[int]:
    assert all(message[1:] == [b"", b"part"] for message in messages)
    return [int(message[0]) for message in messages]


def test_modulo_sends_every_nth_message_whole(opened: Open, tmp_path: Path) -> None:
    """Acceptance 22, fault 10: in the original nothing of several parts came out."""
    source = f"ipc://{tmp_path}/in"
    feed(opened, source)
    outputs = [Output(address=f"ipc://{tmp_path}/{modulo}", modulo=modulo, policy="block") for modulo in (1, 2, 7)]
    receivers = [opened(output.address, CONNECT, PULL, queue_size=0) for output in outputs]
    with Splitter(Source(address=source, bind=True), outputs) as splitter:
        splitter.run(lambda: False, COUNT)
    for output, receiver in zip(outputs, receivers, strict=True):
        expected = list(range(0, COUNT, output.modulo))
        assert numbers(taken(receiver, len(expected))) == expected


@pytest.mark.parametrize("policy", ["drop-newest", "drop-oldest"])
def test_a_stalled_output_does_not_stop_the_others(opened: Open, tmp_path: Path, policy: Any) -> None:
    """Acceptance 22: nobody is there, and somebody who takes nothing."""
    source = f"ipc://{tmp_path}/in"
    feed(opened, source)
    lively, lonely, stalled = (f"ipc://{tmp_path}/{name}" for name in ("lively", "lonely", "stalled"))
    receiver = opened(lively, CONNECT, PULL, queue_size=0)
    opened(stalled, CONNECT, PULL, queue_size=1)
    outputs = [
        Output(address=lonely, policy=policy, queue_size=5),
        Output(address=stalled, policy=policy, queue_size=1),
        Output(address=lively, policy="block"),
    ]
    with Splitter(Source(address=source, bind=True), outputs) as splitter:
        splitter.run(lambda: False, COUNT)
        counted = [stream.statistics for _, stream in splitter.outputs]
    assert numbers(taken(receiver, COUNT)) == list(range(COUNT))
    if policy == "drop-newest":
        assert counted[0].messages_dropped == {"full": COUNT}
        assert counted[1].messages_sent + sum(counted[1].messages_dropped.values()) == COUNT
    else:
        assert counted[0].messages_dropped == {"oldest": COUNT - 5}
    assert counted[2].messages_dropped == {}


def test_what_waits_is_sent_when_nothing_comes(opened: Open, tmp_path: Path) -> None:
    source, target = f"ipc://{tmp_path}/in", f"ipc://{tmp_path}/out"
    feed(opened, source, 3)
    with Splitter(Source(address=source, bind=True), [Output(address=target, policy="drop-oldest")]) as splitter:
        splitter.run(lambda: False, 3)
        receiver = opened(target, CONNECT, PULL)
        splitter.run(lambda: receiver.link.channel.wait(0))
        assert numbers(taken(receiver, 3)) == [0, 1, 2]


def test_a_configuration_of_m_split_is_read(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(
        json.dumps(
            {
                "source": {"address": "tcp://host:9999", "mode": "sub"},
                "streams": [
                    {"address": "tcp://*:8001", "mode": "Push", "queue_size": 5, "modulo": 10},
                    {"address": "tcp://host:8002", "mode": "PUB", "policy": "drop-oldest"},
                ],
            }
        )
    )
    assert read_configuration(path) == (
        Source(address="tcp://host:9999", mode=Mode.SUB, bind=False, queue_size=100),
        [
            Output(address="tcp://*:8001", mode=Mode.PUSH, bind=True, queue_size=5, modulo=10),
            Output(address="tcp://host:8002", mode=Mode.PUB, bind=False, policy="drop-oldest"),
        ],
    )


@pytest.mark.parametrize(
    "found",
    [
        "",
        "[]",
        '{"source": {"address": "a"}, "streams": []}',
        '{"source": {"address": "a", "mode": "PUSH"}, "streams": [{"address": "b"}]}',
        '{"source": {"address": "a"}, "streams": [{"address": "b", "mode": "PULL"}]}',
        '{"source": {"address": "a"}, "streams": [{"address": "b", "modulo": 0}]}',
        '{"source": {"address": "a"}, "streams": [{"address": "b", "modullo": 2}]}',
    ],
)
def test_a_configuration_without_sense_is_told(tmp_path: Path, found: str) -> None:
    (tmp_path / "split.json").write_text(found)
    with pytest.raises(ConfigError):
        read_configuration(tmp_path / "split.json")
    with pytest.raises(ConfigError):
        read_configuration(tmp_path / "nowhere.json")


def test_an_output_is_named_in_one_word() -> None:
    assert parse_output("tcp://*:1") == Output(address="tcp://*:1")
    assert parse_output("tcp://host:1,connect,mode=pub,modulo=3,policy=block,queue_size=7") == Output(
        address="tcp://host:1", bind=False, mode=Mode.PUB, modulo=3, policy="block", queue_size=7
    )
    for text in ("a,mode=sub", "a,modulo=x", "a,modulo=0", "a,fast", "a,policy=drop", "a,speed=1"):
        with pytest.raises(ConfigError):
            parse_output(text)


def test_the_bound_end_says_where_it_is() -> None:
    with Splitter(Source(address="tcp://127.0.0.1:*", bind=True), [Output(address="tcp://127.0.0.1:*")]) as splitter:
        assert all(not stream.address.endswith("*") for stream in splitter.streams)
