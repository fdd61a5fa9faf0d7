"""From the first message of a command that sends to its summary, the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ndstream.cli import endpoints
from ndstream.cli.pace import Pace
from ndstream.cli.summary import tell_sent
from ndstream.errors import TimedOut

if TYPE_CHECKING:
    from ndstream.cli.ending import Ending
    from ndstream.streams.stream import Stream


@contextmanager
def sending(
    ending: Ending, address: str, mode: str, *, bind: bool, rate: float | None = None, **choices: Any
) -> Iterator[tuple[Stream, Pace]]:
    """Open a stream that sends, and its pace; at the end close it when all was delivered, and say what was sent.

    A send that waits in vain is an error, unless the command was asked to end.
    """
    stream = endpoints.sender(ending, address, mode, bind=bind, **choices)
    pace = Pace(ending, rate)
    try:
        yield stream, pace
    except TimedOut:
        if not ending.asked():
            raise
    except BaseException:
        stream.disconnect(0)
        raise
    seconds = pace.elapsed
    tell_sent(stream.statistics, seconds, closed=ending.close(stream))
