"""``ndstream demo``: the whole walk on sample data."""

from __future__ import annotations

import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ndstream.cli.extra import needs


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after the walk instead of leaving the server running.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of the server; 0 picks a free one.")] = 0,
) -> None:
    """Serve sample data and walk through what users do.

    Makes files of four fields in a temporary directory, which goes with the demo. Every result is compared with what
    h5py reads from the files themselves.
    """
    with needs("all", "ndstream demo"):
        from ndstream.cli.walk import data, stage, steps, writing
        from ndstream.testing.server import LocalServer

    asked = _AskedToEnd()
    with tempfile.TemporaryDirectory(prefix="ndstream-demo-") as directory:
        samples, scratch = Path(directory, "archive"), Path(directory, "taken-home")
        scratch.mkdir()
        typer.echo("Making sample data of four fields ...")
        for path in data.make_samples(samples):
            typer.echo(f"  {path.relative_to(samples)}  {path.stat().st_size / 1e6:.0f} MB")
        (samples / Path(writing.FILE).parent).mkdir()
        config = Path(directory, "server.toml")
        config.write_text(f'[writable]\n"/{Path(writing.FILE).parent}" = []\n')
        typer.echo(f"$ cat {config}\n{config.read_text()}$ ndstream serve --config {config} {samples}")
        settings = ("--config", config, "--port", str(port), "--log-level", "warning")
        with LocalServer(samples, *settings) as running:
            typer.echo(f"ndstream: serving at {running.url}")
            shown = stage.Stage(running.url, samples, scratch)
            for title, step in steps.STEPS:
                asked.end()
                shown.chapter(title)
                step(shown)
            typer.secho("\nEvery result was compared with what h5py reads from the files: all are equal.", bold=True)
            asked.end()
            if not once:
                with suppress(KeyboardInterrupt):
                    typer.echo(f"The server is still running at {running.url} until Ctrl-C.")
                    running.wait()


class _AskedToEnd:
    """Signals that ask the demo to end raise ``KeyboardInterrupt``: what was made is tidied away in any case.

    Python drops what is raised while it runs a finalizer or a weak reference's callback, of which an import has many.
    So what was asked is kept, and raised again by `end`.
    """

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)

    def end(self) -> None:
        """Raise ``KeyboardInterrupt`` if the demo was asked to end."""
        if self._asked:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt
