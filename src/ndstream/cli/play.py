"""``ndstream play``: recordings into a message stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any

import typer

from ndstream.cli.extra import needs
from ndstream.cli.streaming import Bind, Key, ServerKey, told_to_stop, until

#: Seconds from the connection of a subscriber until its subscriptions have come, at most.
_SUBSCRIBING = 0.2


def play(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings, in their order.")],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where to: tcp://host:port, tcp://*:9999.")],
    mode: Annotated[str, typer.Option("--mode", "-m", metavar="MODE", help="push or pub.")] = "push",
    bind: Bind = True,
    speed: Annotated[
        float, typer.Option("--speed", min=0.0, help="Times as fast as they came; 0 is as fast as they are taken.")
    ] = 1.0,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Send N messages a second instead.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end, until Ctrl-C.")] = False,
    key: Key = None,
    server_key: ServerKey = None,
) -> None:
    """Send recorded messages again, every part as it came.

    Nothing is sent before somebody is there to receive it. A pub sends only to those who are there at the time.
    """
    from ndstream.core.modes import PUB
    from ndstream.recording.sessions import Pace
    from ndstream.recording.sessions import play as play_files

    with needs("stream", "ndstream play"):
        from ndstream.streams.aio import aconnect
        from ndstream.transports.zmq.monitor import ConnectionCountMonitor
    pace = Pace(speed=speed, rate=rate)
    options: dict[str, Any] = {"linger": -1, "policy": "block", "key": key, "server_key": server_key}

    sending = _mode(mode)
    done = {"messages": 0, "bytes": 0}

    def sent(nbytes: int) -> None:
        done["messages"] += 1
        done["bytes"] += nbytes

    async def run() -> None:
        stop, somebody = asyncio.Event(), asyncio.Event()
        tell = asyncio.get_running_loop().call_soon_threadsafe
        with told_to_stop(stop):
            async with aconnect(address, "bind" if bind else "connect", sending, **options) as stream:
                typer.echo(f"playing at {stream.address}", err=True)
                stream.register_socket_monitor(
                    ConnectionCountMonitor(lambda peers: tell(somebody.set) if peers else None)
                )
                playing = play_files(files, stream, pace=pace, loop=loop, sent=sent)
                await until(stop, _when(somebody, playing, subscribing=sending == PUB))
                if stop.is_set():
                    await stream.disconnect(linger=0)

    try:
        asyncio.run(run())
    finally:
        typer.echo(f"{done['messages']} messages, {done['bytes'] / 1e6:.1f} MB")


async def _when(somebody: asyncio.Event, playing: Awaitable[int], subscribing: bool) -> None:
    """Play once somebody is there; a subscriber is there a little before its subscriptions are."""
    await somebody.wait()
    if subscribing:
        await asyncio.sleep(_SUBSCRIBING)
    await playing


def _mode(mode: str) -> int:
    from ndstream.core.modes import PUB, PUSH

    modes = {"push": PUSH, "pub": PUB}
    if mode.lower() not in modes:
        raise typer.BadParameter(f"the mode is {mode!r}; it can be push or pub")
    return modes[mode.lower()]
