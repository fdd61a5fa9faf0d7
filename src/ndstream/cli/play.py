"""``ndstream play``: recordings into a message stream."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndstream.cli import endpoints
from ndstream.cli.ending import told_to_stop, until
from ndstream.cli.extra import needs
from ndstream.core.modes import BIND, CONNECT, Mode

if TYPE_CHECKING:
    from ndstream.streams.aio import AsyncStream


def play(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings, in their order.")],
    address: endpoints.Target,
    speed: Annotated[
        float, typer.Option("--speed", min=0.0, help="Times as fast as they came; 0 is as fast as they are taken.")
    ] = 1.0,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Send N messages a second instead.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end, until Ctrl-C.")] = False,
    wait: endpoints.Wait = 1,
    mode: endpoints.Sends = "push",
    connect: endpoints.Connect = False,
    queue: endpoints.Queue = 100,
    policy: endpoints.Slow = "block",
    key: endpoints.Key = None,
    server_key: endpoints.ServerKey = None,
    allow: endpoints.Allowed = None,
) -> None:
    """Send recorded messages again, every part as it came.

    Nothing is sent before somebody is there to receive it. A pub sends only to those who are there at the time.
    """
    from ndstream.recording.sessions import Pace
    from ndstream.recording.sessions import play as play_files

    with needs("stream", "ndstream play"):
        from ndstream.streams.aio import aconnect
    pace = Pace(speed=speed, rate=rate)
    options: dict[str, Any] = {
        "linger": -1,
        "copy": False,
        "count_subscribers": True,
        "queue_size": queue,
        "policy": policy,
        "key": key,
        "server_key": server_key,
        "allowed_keys": allow,
    }
    done = {"messages": 0, "bytes": 0}

    def sent(nbytes: int) -> None:
        done["messages"] += 1
        done["bytes"] += nbytes

    async def run() -> None:
        stop = asyncio.Event()
        with told_to_stop(stop):
            async with aconnect(address, CONNECT if connect else BIND, Mode[mode.upper()], **options) as stream:
                typer.echo(f"ndstream: sending {'to' if connect else 'at'} {stream.address}", err=True)

                async def play_them() -> None:
                    await _peers(stream, wait)
                    await play_files(files, stream, pace=pace, loop=loop, sent=sent)

                await until(stop, play_them())
                if stop.is_set():
                    await stream.disconnect(linger=0)

    try:
        asyncio.run(run())
    finally:
        typer.echo(f"{done['messages']} messages, {done['bytes'] / 1e6:.1f} MB")


async def _peers(stream: AsyncStream, count: int) -> None:
    """Wait for so many receivers; of a PUB, until they have subscribed."""
    while stream.peers < count:  # noqa: ASYNC110 - nothing tells of a subscription
        await asyncio.sleep(endpoints.LOOK)
