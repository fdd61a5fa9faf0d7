"""How commands open the ends of message streams: options that they share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ndstream.cli.extra import needs
from ndstream.core.modes import BIND, CONNECT, Mode, Policy

if TYPE_CHECKING:
    from ndstream.cli.ending import Ending
    from ndstream.streams.stream import Stream

ANYWHERE = "tcp://*:9999"
LOOK = 0.02  # seconds between two looks at the connections

Source = Annotated[str, typer.Argument(metavar="ADDRESS", help="Where messages come from: tcp://host:port.")]
Target = Annotated[str, typer.Argument(metavar="ADDRESS", help="Where messages go.")]
Receives = Annotated[
    Literal["pull", "sub"], typer.Option("--mode", "-m", help="Share messages with others, or get all.")
]
Sends = Annotated[Literal["push", "pub"], typer.Option("--mode", "-m", help="Each message to one receiver, or to all.")]
Bind = Annotated[bool, typer.Option("--bind", help="Let senders connect to this end.")]
Connect = Annotated[bool, typer.Option("--connect", help="Connect to a receiver, which is bound.")]
Queue = Annotated[int, typer.Option("--queue", min=0, metavar="N", help="Messages that wait here; 0: no limit.")]
Topic = Annotated[str, typer.Option("--topic", metavar="TEXT", help="With sub: messages that begin so.")]
Slow = Annotated[
    Policy | None,
    typer.Option("--policy", help="What becomes of messages when receivers are slow."),
]
Key = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Secret key of this end: be encrypted.")]
ServerKey = Annotated[str | None, typer.Option("--server-key", metavar="KEY", help="Public key of the other end.")]
Allowed = Annotated[
    list[Path] | None, typer.Option("--allow", metavar="PATH", help="Public keys of those who may connect; repeatable.")
]
Count = Annotated[int | None, typer.Option("--count", "-n", min=1, metavar="N", help="End after so many messages.")]
Wait = Annotated[int, typer.Option("--wait", min=0, metavar="N", help="Wait for so many receivers before the first.")]


def receiver(
    ending: Ending, address: str, mode: str, *, bind: bool = False, timeout: float | None = None, **choices: Any
) -> Stream:
    """Open a stream that receives, and is woken when the command is to end."""
    return _open(ending, address, mode, bind, choices, receive_timeout=timeout, copy=False)


def sender(ending: Ending, address: str, mode: str, *, bind: bool, **choices: Any) -> Stream:
    """Open a stream that sends, and is woken when the command is to end; say where it is."""
    stream = _open(ending, address, mode, bind, choices, copy=False, linger=-1, count_subscribers=True)
    typer.echo(f"ndstream: sending at {stream.address}" if bind else f"ndstream: sending to {address}")
    return stream


def _open(ending: Ending, address: str, mode: str, bind: bool, choices: dict[str, Any], **fixed: Any) -> Stream:
    with needs("stream", "a message stream"):
        from ndstream.streams.stream import Stream

    stream = Stream().connect(address, BIND if bind else CONNECT, Mode[mode.upper()], **fixed, **choices)
    ending.wakes(stream)
    return stream


def announce(stream: Stream, *, bind: bool, err: bool = False) -> None:
    """Say where a receiver is; on standard error where standard output is for messages."""
    typer.echo(f"ndstream: receiving {'at' if bind else 'from'} {stream.address}", err=err)


def wait_for_peers(ending: Ending, stream: Stream, count: int) -> bool:
    """Wait for so many receivers; of a PUB, until they have subscribed. False when the command is to end."""
    while stream.peers < count:
        if ending.wait(LOOK):
            return False
    return not ending.asked()
