"""``ndstream serve``: offer directories and files to others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ndstream.cli.extra import needs
from ndstream.errors import ConfigError


def serve(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]PATH", help="Directories and files to serve; default: those of the configuration."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Name or address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="TCP port; 0 picks a free one.  [default: 8000]")
    ] = None,
    writable: Annotated[
        bool, typer.Option("--writable", help="Let whoever sees a file write to it; [writable] can say it finer.")
    ] = False,
    rpc_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve one HDF5 file over framed TCP too; 0 picks a free port."),
    ] = None,
    rpc_file: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Which file that is, as URLs call it."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that hold the HDF5 library; 0 means one per core.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log a line for every request.")] = False,
) -> None:
    """Serve HDF5 files, read-only unless told otherwise, until Ctrl-C.

    One directory: its content is the root. Several paths, or a file: each under its own name; NAME=PATH gives another.
    """
    from ndstream.config import load, roots_of

    with needs("server", "ndstream serve"):
        from ndstream.server.run import serve as run

    if writable and rpc_port is not None and len(paths or []) == 1 and paths:
        _make_missing(Path(paths[0].partition("=")[2] or paths[0]).expanduser())
    given: dict[str, dict[str, Any]] = {
        "server": {"host": host, "port": port, "log_level": log_level, "access_log": access_log or None},
        "rpc": {"port": rpc_port, "file": rpc_file},
        "limits": {"workers": workers},
        "roots": roots_of(paths or []),
        "writable": {"/": []} if writable else {},
    }
    settings = load(config, overrides=given)
    if not settings.roots:
        raise ConfigError("nothing to serve: name a directory or a file, or [roots] in a configuration file")
    run(settings, _announce)


def _announce(url: str, streams: Mapping[str, str]) -> None:
    for name, address in streams.items():
        typer.echo(f"ndstream: {name} at {address}")
    typer.echo(f"ndstream: serving at {url}")


def _make_missing(path: Path) -> None:
    """Make the file that is to be written, if its name promises HDF5 and nothing is there."""
    if path.suffix in (".h5", ".hdf5") and not path.exists():
        from ndstream.stores.hdf5.blank import make_blank

        make_blank(path)
