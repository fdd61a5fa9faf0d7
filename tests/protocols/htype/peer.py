"""The original tools, psi-mflow and psi-bsread, in a process of their own; test_interop.py talks to it.

    python peer.py mflow|bsread ADDRESS_TO_READ ADDRESS_TO_WRITE

Both addresses are connected to. For each pickled value from standard input, one to standard output: what the original
makes of a message that was sent to it (None), or None after it has sent what the value says.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any


def plain(value: Any) -> Any:
    """Value without views of memory that will be gone."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) or type(value).__name__ == "Frame" else value


def mflow(read: str, write: str) -> None:
    import mflow

    receiver = mflow.connect(read, mode=mflow.PULL, receive_timeout=60_000)
    sender = mflow.connect(write, mode=mflow.PUSH, send_timeout=60_000)
    for asked in requests():
        if asked is None:
            message = receiver.receive()
            answer(None if message is None else plain(message.data))
        else:
            sender.forward(asked)
            answer(None)
    sender.disconnect()
    receiver.disconnect()


def bsread(read: str, write: str) -> None:
    from bsread import Source  # type: ignore[import-untyped]
    from bsread.sender import Sender  # type: ignore[import-untyped]

    host, port = read.removeprefix("tcp://").split(":")
    sender = None
    with Source(host=host, port=int(port), receive_timeout=60_000) as source:
        for asked in requests():
            if asked is None:
                message = source.receive().data
                values = {
                    name: (item.value, item.timestamp, item.timestamp_offset) for name, item in message.data.items()
                }
                answer(
                    (message.pulse_id, message.global_timestamp, message.global_timestamp_offset, message.hash, values)
                )
                continue
            compression, channels, pulse_id = asked
            if sender is not None:
                sender.close()
            address, port = write.rsplit(":", 1)
            sender = Sender(address=address, port=int(port), conn_type="connect", data_header_compression=compression)
            for name, (metadata, value) in channels.items():
                if metadata.get("encoding") == "big":  # pickling lost it
                    value = value.astype(value.dtype.newbyteorder(">"))
                sender.add_channel(name, lambda _, value=value: value, metadata=metadata)
            sender.open()
            sender.send(pulse_id=pulse_id, timestamp=(11, 22))
            answer(None)
    if sender is not None:
        sender.close()


def requests() -> Any:
    while True:
        try:
            yield pickle.load(sys.stdin.buffer)
        except EOFError:
            return


def answer(value: Any) -> None:
    pickle.dump(value, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    {"mflow": mflow, "bsread": bsread}[sys.argv[1]](*sys.argv[2:])
