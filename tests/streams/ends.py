"""Ends of streams in processes of their own: ``python ends.py receive|send ADDRESS …``.

A receiver writes the number of each message on a line as soon as it has it, a sender what it counted at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

import ndstream
from ndstream.errors import TimedOut


def tell(value: object) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


def receive(options: argparse.Namespace) -> None:
    """Receive until nothing comes for a while, or as many as wanted; then wait to be ended."""
    conn_type = ndstream.BIND if options.bind else ndstream.CONNECT
    with ndstream.connect(options.address, conn_type, queue_size=options.queue, receive_timeout=60_000) as stream:
        tell(stream.address)
        while (message := stream.receive()) is not None:
            number = message.data["header"]["frame"]
            tell(number)
            if number == options.last:
                break
            time.sleep(options.pause)
        tell({"missing": stream.statistics.missing})
        sys.stdin.read()


def send(options: argparse.Namespace) -> None:
    """Send as many as wanted, or until there is no room; close, and tell what was counted."""
    conn_type = ndstream.BIND if options.bind else ndstream.CONNECT
    stream = ndstream.connect(
        options.address, conn_type, ndstream.PUSH, queue_size=options.queue, linger=options.linger, copy=options.copy,
        send_timeout=options.patience,
    )  # fmt: skip
    tell(stream.address)
    payload = np.zeros(options.size, "u1")
    try:
        for frame in range(options.first, options.last + 1):
            stream.forward({"header": {"htype": "array-1.0", "frame": frame}, "data": [payload]})
    except TimedOut:
        pass  # counted
    stream.disconnect()
    tell(stream.statistics.as_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["receive", "send"])
    parser.add_argument("address")
    parser.add_argument("--bind", action="store_true")
    parser.add_argument("--queue", type=int, default=100)
    parser.add_argument("--linger", type=int, default=-1)
    parser.add_argument("--no-copy", dest="copy", action="store_false")
    parser.add_argument("--patience", type=int, default=60_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=-1)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    {"receive": receive, "send": send}[options.role](options)


if __name__ == "__main__":
    main()
