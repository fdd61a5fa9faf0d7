"""What commands that use message streams share: options, signals."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ndstream.core.limits import GiB, KiB, MiB
from ndstream.errors import InvalidRequest

Key = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Secret key of this end (see keygen): encrypt messages.")
]
ServerKey = Annotated[
    str | None, typer.Option("--server-key", metavar="KEY", help="Public key, or its file, of the end that is bound.")
]
Bind = Annotated[bool | None, typer.Option("--bind/--connect", help="Wait for others at ADDRESS, or go there.")]

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": KiB, "mi": MiB, "gi": GiB}


def size(text: str | None) -> int | None:
    """Bytes of a size such as ``4 GiB`` or ``500MB``.

    Raises
    ------
    InvalidRequest
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    if found is None:
        raise InvalidRequest(f"{text!r} is no size: it can be such as 500MB or 4GiB")
    return int(float(found[1]) * _UNITS[found[2] or ""])


@contextlib.contextmanager
def told_to_stop(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at Ctrl-C and SIGTERM, in place of what they do otherwise; inside a running event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Do `work` until it is done, or given up because `stop` is set; raises what it raises."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
        await asyncio.wait((working, stopping))
    if not working.cancelled():
        working.result()
