"""``ndstream serve``: offer directories and files to others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ndstream.cli.extra import needs
from ndstream.errors import ConfigError, Exists

_MADE = (".h5", ".hdf5")


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
    from ndstream.config import FILE_VARIABLE, load, roots_of

    with needs("server", "ndstream serve"):
        from ndstream.server.run import serve as run

    if rpc_file is not None and rpc_port is None and config is None and not os.environ.get(FILE_VARIABLE):
        raise typer.BadParameter("goes with --rpc-port", param_hint="--rpc-file")
    if writable and rpc_port is not None and paths and len(paths) == 1:
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
    if writable and settings.streams["rpc"].port is not None and settings.streams["rpc"].file:
        _make_missing(_place(settings.streams["rpc"].file.strip("/"), settings.roots))
    run(settings, _announce)


def _announce(url: str, streams: Mapping[str, str]) -> None:
    for name, address in streams.items():
        typer.echo(f"ndstream: {name} at {address}")
    typer.echo(f"ndstream: serving at {url}")


def _place(path: str, roots: Mapping[str, Path]) -> Path:
    """Where on this machine a virtual path is."""
    name, _, rest = path.partition("/")
    return roots[name] / rest if name in roots else roots.get("", Path()) / path


def _make_missing(path: Path) -> None:
    """Make the file that is to be written, if its name promises HDF5 and nothing is there.

    Raises
    ------
    ConfigError
        Nothing is there, and the name does not.
    NotFound, StorageFull, StorageFailed
        The file cannot be made.
    """
    if path.exists():
        return
    if path.suffix not in _MADE:
        raise ConfigError(f"{path}: no such file; one is made only if its name ends with {' or '.join(_MADE)}")

    from ndstream.stores.hdf5.making import make_file

    with suppress(Exists):  # somebody was quicker
        make_file(path)
