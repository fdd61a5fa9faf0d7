"""``ndstream split``: one stream to several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndstream.cli import endpoints
from ndstream.errors import ConfigError

if TYPE_CHECKING:
    from ndstream.streams.splitting import Output, Source


def split(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE OUTPUT…", help="ADDRESS[,mode=pub][,modulo=10][,policy=block][,connect]…"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="JSON, as for m_split, in place of addresses.")
    ] = None,
    mode: endpoints.Receives = "pull",
    bind: endpoints.Bind = False,
    queue: endpoints.Queue = 100,
    count: endpoints.Count = None,
) -> None:
    """Pass messages on to several outputs, until Ctrl-C.

    Each output gets all messages, or with modulo=N the first of every N, whole. When an output has no room, it misses
    messages, which are counted, and the others go on; with policy=block all wait for it.
    """
    if (config is None) == (not addresses):
        raise typer.BadParameter("name a source and outputs, or a configuration", param_hint="SOURCE OUTPUT…")
    from ndstream.cli.extra import needs

    with needs("stream", "ndstream split"):
        from ndstream.streams.splitting import Source, parse_output, read_configuration
    from ndstream.core.modes import Mode

    if config is not None:
        source, outputs = read_configuration(config)
    else:
        assert addresses is not None
        source = Source(address=addresses[0], mode=Mode[mode.upper()], bind=bind, queue_size=queue)
        outputs = [parse_output(text) for text in addresses[1:]]
    if not outputs:
        raise ConfigError("there is no output")
    _split(source, outputs, count)


def _split(source: Source, outputs: list[Output], count: int | None) -> None:
    from ndstream.cli.clock import Clock
    from ndstream.cli.ending import Ending
    from ndstream.cli.summary import amount, losses
    from ndstream.streams.splitting import Splitter

    with Ending() as ending, Splitter(source, outputs) as splitter:
        ending.wakes(*splitter.streams)
        endpoints.announce(splitter.source, bind=source.bind)
        for output, stream in splitter.outputs:
            typer.echo(f"ndstream: sending {'at' if output.bind else 'to'} {stream.address}")
        clock = Clock(ending)
        clock.wait()
        splitter.run(ending.asked, count)
        seconds = clock.elapsed
        addresses = [stream.address for _, stream in splitter.outputs]
        closed = [ending.close(stream, patient=output.policy == "block") for output, stream in splitter.outputs]
        received = splitter.source.statistics
        typer.echo(amount("received", received.messages_received, received.total_bytes_received, seconds))
        for (_, stream), address, known in zip(splitter.outputs, addresses, closed, strict=True):
            totals = stream.statistics
            lines = [amount("sent", totals.messages_sent, totals.bytes_sent, seconds), *losses(totals)]
            typer.echo(f"{address}: {'; '.join(lines)}{'' if known else '; closing was interrupted'}")
