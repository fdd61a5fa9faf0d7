"""``ndstream merge``: several streams to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ndstream.cli import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ndstream.cli.ending import Ending
    from ndstream.errors import MessageError
    from ndstream.streams.stream import Stream


def merge(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE…", help="Where messages come from.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="ADDRESS", help="Where they go.")
    ] = endpoints.ANYWHERE,
    order: Annotated[
        Literal["turn", "number"], typer.Option(help="The sources in turn, or the lowest number (frame, pulse) first.")
    ] = "turn",
    patience: Annotated[
        float,
        typer.Option(
            min=0.001, metavar="SECONDS", help="With numbers: how long a source that sends nothing is waited for."
        ),
    ] = 1.0,
    mode: endpoints.Receives = "pull",
    bind: endpoints.Bind = False,
    count: endpoints.Count = None,
    output_mode: Annotated[Literal["push", "pub"], typer.Option(help="Mode of the output.")] = "push",
    connect: endpoints.Connect = False,
    queue: endpoints.Queue = 100,
    policy: endpoints.Slow = None,
) -> None:
    """Make one stream of several, until Ctrl-C.

    Messages are passed on byte for byte, those that cannot be decoded too.
    """
    from contextlib import ExitStack

    from ndstream.cli.clock import Clock
    from ndstream.cli.ending import Ending
    from ndstream.cli.summary import amount, tell_sent
    from ndstream.errors import TimedOut

    with Ending() as ending, ExitStack() as opened:
        target = endpoints.sender(ending, output, output_mode, bind=not connect, queue_size=queue, policy=policy)
        opened.callback(target.disconnect, 0)
        inputs: list[Stream] = []
        for address in sources:
            stream = endpoints.receiver(
                ending,
                address,
                mode,
                bind=bind,
                timeout=1000 * patience,
                queue_size=queue,
                compressed=True,
                on_error=_pass_on(target, ending),
            )
            inputs.append(opened.enter_context(stream))
            endpoints.announce(stream, bind=bind)
        clock = Clock(ending)
        clock.wait()
        try:
            _merge(ending, inputs, target, order, count)
        except TimedOut:
            if not ending.asked():
                raise
        seconds = clock.elapsed
        for stream in inputs:
            totals = stream.statistics
            typer.echo(
                f"{stream.address}: "
                + amount("received", totals.messages_received, totals.total_bytes_received, seconds)
            )
        tell_sent(target.statistics, seconds, closed=ending.close(target))


def _merge(ending: Ending, inputs: Sequence[Stream], target: Stream, order: str, count: int | None) -> None:
    from ndstream.streams.handlers import raw
    from ndstream.streams.link import NOTHING
    from ndstream.streams.merge import InOrder, Merge, RoundRobin, Strategy

    strategy: Strategy = InOrder() if order == "number" else RoundRobin()
    merged = Merge(*inputs, receive_strategy=lambda: strategy)
    handler = None if order == "number" else raw
    sent = 0
    while not ending.asked() and sent != count:
        message = merged.receive(handler)
        if message is None:
            target.flush(0)
            continue
        target.send_parts(message.frames)
        sent += 1
    while ending.asked() and (message := strategy.choose(0, lambda _: NOTHING, last=True)) is not NOTHING:
        assert message is not None
        target.send_parts(message.frames, block=False)


def _pass_on(target: Stream, ending: Ending) -> Callable[[MessageError], object]:
    """What becomes of a message that cannot be decoded: it has no number, and is passed on at once."""
    return lambda error: target.send_parts(error.parts, block=not ending.asked())
