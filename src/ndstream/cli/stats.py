"""``ndstream stats``: how the messages of a stream come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ndstream.cli import endpoints
from ndstream.cli.options import Json

if TYPE_CHECKING:
    from ndstream.cli.ending import Ending
    from ndstream.cli.watching import Show, Watching
    from ndstream.streams.stream import Stream


def stats(
    address: endpoints.Source,
    mode: endpoints.Receives = "pull",
    bind: endpoints.Bind = False,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0, metavar="SECONDS", help="Between lines; 0: for each message.")
    ] = 0.5,
    json: Json = False,
    count: endpoints.Count = None,
    queue: endpoints.Queue = 100,
    topic: endpoints.Topic = "",
    key: endpoints.Key = None,
    server_key: endpoints.ServerKey = None,
    allow: endpoints.Allowed = None,
) -> None:
    """Show how messages come: rates, gaps, errors.

    A table in a terminal, else lines, or with --json one JSON document in each; until Ctrl-C, then a summary.
    """
    from ndstream.cli.ending import Ending

    with (
        Ending() as ending,
        endpoints.receiver(
            ending,
            address,
            mode,
            bind=bind,
            timeout=1000 * (interval or 1),
            queue_size=queue,
            topics=topic,
            on_error="none",  # also of a flood of bad messages each one gives us a turn
            compressed=True,
            key=key,
            server_key=server_key,
            allowed_keys=allow,
        ) as stream,
    ):
        from ndstream.cli.watching import Watching, choose

        watching = Watching(stream.statistics, interval)
        with choose(json) as show:
            _watch(ending, stream, watching, show, count)
            show.summary(watching)


def _watch(ending: Ending, stream: Stream, watching: Watching, show: Show, count: int | None) -> None:
    while not ending.asked() and stream.statistics.messages_received != count:
        message = stream.receive()
        if watching.note(message):
            show.sample(watching)
