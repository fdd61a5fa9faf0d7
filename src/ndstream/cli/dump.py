"""``ndstream dump``: messages as files, or as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndstream.cli import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ndstream.cli.ending import Ending
    from ndstream.core.packets import Buffer
    from ndstream.streams.stream import Stream

_SHOWN = 32  # bytes of a part that are printed


def dump(
    address: endpoints.Source,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Where to; without it messages are printed.")
    ] = None,
    mode: endpoints.Receives = "pull",
    bind: endpoints.Bind = False,
    skip: Annotated[
        int, typer.Option("--skip", "-s", min=0, metavar="N", help="Leave out parts from the Nth on; 2: only headers.")
    ] = 0,
    count: endpoints.Count = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the messages that are in the folder.")] = False,
    queue: endpoints.Queue = 100,
    topic: endpoints.Topic = "",
    key: endpoints.Key = None,
    server_key: endpoints.ServerKey = None,
    allow: endpoints.Allowed = None,
) -> None:
    """Write messages into a folder, or print them, until Ctrl-C.

    Part 1 of message 12 becomes 000012_001.raw, byte for byte; manifest.jsonl tells when each message came.
    """
    from contextlib import ExitStack

    from ndstream.cli.ending import Ending
    from ndstream.streams.folder import FolderWriter

    keep = skip - 1 if skip else None
    with Ending() as ending, ExitStack() as opened:
        keys: dict[str, Any] = {"key": key, "server_key": server_key, "allowed_keys": allow}
        write: Callable[[Sequence[Buffer], int], None]
        if folder is None:
            write = _Printer(keep)
        else:
            write = opened.enter_context(FolderWriter(folder, keep=keep, replace=force)).write
        stream = opened.enter_context(
            endpoints.receiver(ending, address, mode, bind=bind, queue_size=queue, topics=topic, **keys)
        )
        endpoints.announce(stream, bind=bind, err=True)
        _dump(ending, stream, write, count)


def _dump(ending: Ending, stream: Stream, write: Callable[[Sequence[Buffer], int], None], count: int | None) -> None:
    import time

    from ndstream.cli.summary import amount

    begin = time.monotonic()
    try:
        while not ending.asked() and stream.statistics.messages_received != count:
            if (message := stream.receive_raw()) is not None:
                write(message.frames, time.time_ns())
    finally:
        totals = stream.statistics
        elapsed = time.monotonic() - begin
        typer.echo(amount("received", totals.messages_received, totals.total_bytes_received, elapsed))


class _Printer:
    """Prints messages: headers as they are, of other parts the length and the first bytes."""

    def __init__(self, keep: int | None) -> None:
        self._keep = keep
        self._number = 0

    def __call__(self, frames: Sequence[Buffer], time: int) -> None:
        """Print a message."""
        for part, frame in enumerate(frames[: self._keep]):
            typer.echo(f"{self._number:06d}_{part:03d} {_text(frame)}")
        self._number += 1


def _text(frame: Buffer) -> str:
    if frame[:1] in (b"{", b"["):
        try:
            return bytes(frame).decode().translate(_CONTROLS)
        except UnicodeDecodeError:
            pass  # then it is bytes like others
    shown = bytes(frame[:_SHOWN]).hex(" ", 4)
    return f"{len(frame)} bytes: {shown}{'…' if len(frame) > _SHOWN else ''}" if len(frame) else "empty"


# What a terminal would take for orders does not come through.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
