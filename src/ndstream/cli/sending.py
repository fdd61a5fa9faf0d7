"""From the first message of a command that sends to its summary, the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ndstream.cli import endpoints
from ndstream.cli.clock import Clock
from ndstream.cli.summary import tell_sent
from ndstream.errors import TimedOut

if TYPE_CHECKING:
    from ndstream.cli.ending import Ending
    from ndstream.streams.stream import Stream


@contextmanager
def sending(
    ending: Ending, address: str, mode: str, *, bind: bool, rate: float | None = None, **choices: Any
) -> Iterator[tuple[Stream, Clock]]:
    """Open a stream that sends, and its clock; at the end close it when all was delivered, and say what was sent.

    A send that waits in vain is an error, unless the command was asked to end.
    """
    stream = endpoints.sender(ending, address, mode, bind=bind, **choices)
    clock = Clock(ending, rate)
    try:
        yield stream, clock
    except TimedOut:
        if not ending.asked():
            raise
    except BaseException:
        stream.disconnect(0)
        raise
    seconds = clock.elapsed
    tell_sent(stream.statistics, seconds, closed=ending.close(stream))
