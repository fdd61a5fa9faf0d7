"""``ndstream record``: a message stream into HDF5 files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from ndstream.cli import endpoints
from ndstream.cli.ending import told_to_stop
from ndstream.cli.extra import needs
from ndstream.core.modes import BIND, CONNECT, Mode
from ndstream.errors import InvalidRequest


def record(
    address: endpoints.Source,
    file: Annotated[str, typer.Argument(metavar="FILE", help="HDF5 file to be made, here or on a server of ours.")],
    mode: endpoints.Receives = "pull",
    bind: endpoints.Bind = False,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.0, metavar="SECONDS", help="Between two commits.")
    ] = 1.0,
    count: endpoints.Count = None,
    roll_size: Annotated[
        str | None, typer.Option("--roll-size", metavar="SIZE", help="Begin a new file after so much, such as 4GiB.")
    ] = None,
    roll_count: Annotated[
        int | None, typer.Option("--roll-count", min=1, metavar="N", help="Begin a new file after N messages.")
    ] = None,
    roll_time: Annotated[
        float | None, typer.Option("--roll-time", metavar="SECONDS", help="Begin a new file after so long.")
    ] = None,
    queue: endpoints.Queue = 100,
    topic: endpoints.Topic = "",
    key: endpoints.Key = None,
    server_key: endpoints.ServerKey = None,
    allow: endpoints.Allowed = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Write as this user; the password is asked for.")
    ] = None,
) -> None:
    """Record a message stream into HDF5 files, until Ctrl-C.

    Compressed images are stored as they came. Each commit is on the disk for good, and others can read the file
    meanwhile.
    """
    from ndstream.recording.recorder import Rolling

    with needs("stream", "ndstream record"):
        from ndstream.streams.aio import aconnect
    rolling = Rolling(size=_size(roll_size), count=roll_count, seconds=roll_time)
    options: dict[str, Any] = {
        "receive_timeout": 1000 * min(max(interval, 0.05), 1.0),
        "queue_size": queue,
        "topics": topic,
        "compressed": True,
        "copy": False,
        "key": key,
        "server_key": server_key,
        "allowed_keys": allow,
    }

    async def run() -> None:
        from ndstream.recording.recorder import Recorder
        from ndstream.recording.sessions import record as record_stream

        target, name = _target(file, user)
        stop = asyncio.Event()
        try:
            with told_to_stop(stop):
                recorder = Recorder(target, name, interval=interval, rolling=rolling)
                await target.check(recorder.first_file)
                options["on_error"] = lambda error: recorder.add_parts(error.parts)
                async with aconnect(address, BIND if bind else CONNECT, Mode[mode.upper()], **options) as stream:
                    typer.echo(f"recording {stream.address} into {file}", err=True)
                    try:
                        await record_stream(stream, recorder, stop, count)
                    finally:
                        typer.echo(_summary(recorder.statistics, stream.statistics.missing))
        finally:
            await target.aclose()

    asyncio.run(run())


def _size(text: str | None) -> int | None:
    from ndstream.config import parse_size

    size = None if text is None else parse_size(text)
    if size is None and text is not None:
        raise InvalidRequest(f"{text!r} is no size: it can be such as 500MB or 4GiB")
    return size


def _target(file: str, user: str | None) -> tuple[Any, str]:
    """Where to, and the name there."""
    if "://" in file:
        from ndstream.cli.remote import Remote

        return Remote.of(file, user)
    with needs("server", "ndstream record"):
        from ndstream.recording.targets import Folder

    path = Path(file).absolute()
    return Folder(path.parent), path.name


def _summary(recorded: Any, missing: int) -> str:
    files = f"{len(recorded.files)} files" if len(recorded.files) != 1 else recorded.files[0]
    text = f"{recorded.committed} messages, {recorded.nbytes / 1e6:.1f} MB, {recorded.frames} frames in {files}"
    told = {"missing": missing, "without a place": recorded.unplaced, "undecodable": recorded.undecodable}
    told["not written"] = recorded.messages - recorded.committed
    return text + "".join(f"; {number} {what}" for what, number in told.items() if number)
