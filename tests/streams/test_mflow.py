"""Programs that were written for mflow, and mflow itself at the other end, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import zmq
from tests.streams.test_stream import frame_of, numbered

import ndstream
from ndstream import BIND, PUSH, Stream

Open = Callable[..., Stream]

# The examples of the README of the original, with the import, the addresses and the ends changed.
README = """
{imports}
import sys

address, other = sys.argv[1:]
stream = mflow.connect(address, conn_type=mflow.CONNECT, mode=mflow.PULL, receive_timeout=60_000, queue_size=100)
message = stream.receive()
print(message.statistics.messages_received, message.data["header"]["frame"])

def receive_function(receiver):
    header = receiver.next(as_json=True)

    data = []
    while receiver.has_more():
        segment = receiver.next() or None
        data.append(segment)

    res = {{"header": header, "data": data}}
    return res

my_handlers = dict()
my_handlers["my_htype-1.0"] = receive_function
stream.handlers = my_handlers
print(stream.receive().data["data"])
stream.handlers["id-1.0"] = receive_function
print(stream.receive().data["header"]["htype"])
print(stream.receive(handler=receive_function).data["header"]["frame"])

stream_two = mflow.connect(other, receive_timeout=60_000)
merged = mflow.utils.Merge(stream, stream_two)
print(sorted([merged.receive().data["header"]["frame"], merged.receive().data["header"]["frame"]]))
merged.disconnect()
stream.disconnect()
"""


@pytest.mark.parametrize(
    "imports", ["import ndstream as mflow", "from ndstream import mflow\nimport ndstream.mflow.utils"]
)
def test_the_examples_of_the_original_run(opened: Open, imports: str) -> None:
    sender, second = (opened("tcp://127.0.0.1:*", BIND, PUSH) for _ in range(2))
    program = README.format(imports=imports)
    with subprocess.Popen(
        [sys.executable, "-c", program, sender.address, second.address], stdout=subprocess.PIPE, text=True
    ) as process:
        sender.forward(numbered(5))
        for htype in ("my_htype-1.0", "id-1.0"):
            sender.send({"htype": htype}, send_more=True, as_json=True)
            sender.send(b"content", send_more=True)
            sender.send(b"")
        for frame in (6, 7):
            sender.forward(numbered(frame))
        second.forward(numbered(8))
        output, _ = process.communicate(timeout=60)
    assert output.splitlines() == ["1 5", "[b'content', None]", "id-1.0", "6", "[7, 8]"]


def test_the_contract_of_the_original_is_kept_where_programs_rely_on_it() -> None:
    from ndstream import mflow

    sender = mflow.connect("tcp://127.0.0.1:*", mflow.BIND, mflow.PUSH, 100, None, 1000)
    receiver = mflow.Stream().connect(sender.address, mflow.CONNECT, mflow.PULL, 0)
    with sender, receiver:
        sender.send(b"no json")
        assert receiver.receive() is None  # though its time-out is 0, which is without end there
        assert receiver.statistics.messages_failed == {"header": 1}
        sender.forward(numbered(1))
        assert frame_of(receiver.receive()) == 1
    mflow.disconnect(receiver)


def test_a_shared_context_as_the_original_takes_it() -> None:
    with zmq.Context() as context:
        stream = ndstream.Stream().connect("tcp://127.0.0.1:*", BIND, PUSH, None, 100, 1000, context)
        stream.disconnect()
        assert not context.closed


RECEIVER = """
import sys, mflow
stream = mflow.connect(sys.argv[1], receive_timeout=60_000)
for _ in range(int(sys.argv[2])):
    message = stream.receive()
    print({key: value for key, value in message.data.items() if key != "data"},
          [None if part is None else part.tolist() if hasattr(part, "tolist") else part
           for part in message.data.get("data", [])], flush=True)
stream.disconnect()
"""

SENDER = """
import sys, mflow, numpy
stream = mflow.Stream()
stream.connect(sys.argv[1], conn_type=mflow.CONNECT, mode=mflow.PUSH, linger=60_000)
array = numpy.arange(6, dtype="int16").reshape(2, 3)
header = {"htype": "array-1.0", "shape": [2, 3], "type": "int16", "frame": 3}
stream.forward({"header": header, "data": [array]})
stream.forward({"header": {"htype": "raw-1.0", "frame": 4}, "data": [b"blob"]})
stream.forward({"header": {"htype": "dseries_end-1.0", "series": 1}})
image = {"htype": "dimage-1.0", "series": 1, "frame": 0, "hash": ""}
stream.forward({"header": image, "part_2": {"htype": "dimage_d-1.0", "shape": [2, 1], "type": "uint8",
                "encoding": "<", "size": 2}, "part_3_raw": b"ab", "part_4": {"htype": "dconfig-1.0"}})
stream.disconnect()
"""


@pytest.fixture
def program() -> Iterator[Callable[..., Any]]:
    with ExitStack() as stack:

        def start(text: str, *arguments: object) -> Any:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", text, *map(str, arguments)], stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.communicate, timeout=60)
            return process

        yield start


def test_the_original_receives_what_we_send(opened: Open, program: Callable[..., Any]) -> None:
    """Acceptance 3."""
    sender = opened("tcp://127.0.0.1:*", BIND, PUSH)
    process = program(RECEIVER, sender.address, 4)
    sender.forward({"header": {"htype": "array-1.0"}, "data": [np.arange(4, dtype="i4").reshape(2, 2), None]})
    sender.forward({"header": {"htype": "raw-1.0", "frame": 1}, "data": [b"a", b"b"]})
    sender.forward({"header": {"htype": "dheader-1.0", "series": 1}, "part_2": {"nimages": 1}})
    sender.forward({"header": {"htype": "dseries_end-1.0", "series": 1}})
    lines = process.communicate(timeout=60)[0].splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("[[[0, 1], [2, 3]], None]")
    assert lines[1].endswith("[b'a', b'b']")
    assert "'part_2': {'nimages': 1}" in lines[2]
    assert lines[3].startswith("{'header': {'htype': 'dseries_end-1.0', 'series': 1}")


def test_we_receive_what_the_original_sends(opened: Open, program: Callable[..., Any]) -> None:
    """Acceptance 3."""
    receiver = opened("tcp://127.0.0.1:*", BIND)
    program(SENDER, receiver.address)
    messages = [receiver.receive() for _ in range(4)]
    data = [message.data for message in messages if message is not None]
    np.testing.assert_array_equal(data[0]["data"][0], np.arange(6, dtype="i2").reshape(2, 3))
    assert data[1] == {"header": {"htype": "raw-1.0", "frame": 4}, "data": [b"blob"]}
    assert data[2]["header"]["series"] == 1
    assert data[3]["part_3_raw"] == b"ab"
