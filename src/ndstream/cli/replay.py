"""``ndstream replay``: send again what was dumped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndstream.cli import endpoints
from ndstream.errors import InvalidRequest

if TYPE_CHECKING:
    from ndstream.cli.clock import Clock
    from ndstream.streams.folder import Folder
    from ndstream.streams.stream import Stream


def replay(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="As ndstream dump or m_dump wrote it.")],
    address: endpoints.Target = endpoints.ANYWHERE,
    timing: Annotated[bool, typer.Option("--timing", help="As much time between messages as when they came.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="HZ", help="Messages per second; else as fast as they go.")
    ] = None,
    loop: Annotated[int, typer.Option("--loop", min=0, metavar="N", help="Send all N times; 0: until Ctrl-C.")] = 1,
    count: endpoints.Count = None,
    wait: endpoints.Wait = 1,
    mode: endpoints.Sends = "push",
    connect: endpoints.Connect = False,
    queue: endpoints.Queue = 100,
    policy: endpoints.Slow = "block",
    key: endpoints.Key = None,
    server_key: endpoints.ServerKey = None,
    allow: endpoints.Allowed = None,
) -> None:
    """Send the messages of a folder.

    They are sent byte for byte, in the order of their numbers; what is not named like a part is left alone.
    """
    from ndstream.cli.ending import Ending
    from ndstream.cli.sending import sending
    from ndstream.streams.folder import Folder

    if timing and rate is not None:
        raise InvalidRequest("--timing and --rate exclude each other")
    messages = Folder(folder)
    with Ending() as ending:
        keys = {"key": key, "server_key": server_key, "allowed_keys": allow}
        choices: dict[str, Any] = {"queue_size": queue, "policy": policy, **keys}
        with sending(ending, address, mode, bind=not connect, rate=rate, **choices) as (stream, clock):
            if endpoints.wait_for_peers(ending, stream, wait):
                _replay(messages, stream, clock, timing=timing, loop=loop, most=count)


def _replay(folder: Folder, stream: Stream, clock: Clock, *, timing: bool, loop: int, most: int | None) -> None:
    sent = turn = 0
    while not loop or turn < loop:
        shift, first = clock.elapsed, None
        before = sent
        for stored in folder:
            first = stored.time if first is None else first
            due = shift + (stored.time - first) / 1e9 if timing else None
            if not clock.wait(due):
                return
            stream.send_parts(folder.read(stored))
            sent += 1
            if sent == most:
                return
        if sent == before:
            return  # an empty folder, over and over
        turn += 1
