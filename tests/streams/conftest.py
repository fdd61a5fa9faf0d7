"""Streams that are joined on this machine, closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import ndstream
from ndstream import BIND, PULL, PUSH, Stream

LONG = 60_000
"""Milliseconds that nothing takes unless it is broken."""

Joined = tuple[Stream, Stream]


@pytest.fixture
def opened() -> Iterator[Callable[..., Stream]]:
    """Open streams as `ndstream.connect` does; on loopback, with long time-outs."""
    with ExitStack() as stack:

        def open_stream(address: str = "tcp://127.0.0.1:*", *arguments: Any, **options: Any) -> Stream:
            options = {"receive_timeout": LONG, "send_timeout": LONG, "linger": LONG, **options}
            return stack.enter_context(ndstream.connect(address, *arguments, **options))

        yield open_stream


@pytest.fixture
def joined(opened: Callable[..., Stream]) -> Callable[..., Joined]:
    """Make a sender that is bound, and a receiver that is connected to it."""

    def join(mode: int = PUSH, other: int = PULL, *, receiver: Any = None, **options: Any) -> Joined:
        sender = opened("tcp://127.0.0.1:*", BIND, mode, **options)
        return sender, opened(sender.address, mode=other, **(receiver or {}))

    return join
