"""``ndstream get``: copy remote things here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndstream.cli.options import User


def get(
    urls: Annotated[list[str], typer.Argument(metavar="URL", help="Files, directories, groups, datasets or parts.")],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="File or directory to write, - for standard output; default: the name of what is copied, here.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    user: User = None,
) -> None:
    """Copy to this machine.

    The name of OUT says in which form: a dataset or a part of it becomes .npy or .h5, a group .h5, a directory .tar or
    a directory. What is written appears under its name when it is complete.
    """
    if output == "-" and len(urls) > 1:
        raise typer.BadParameter("only one URL can go to standard output")
    from ndstream.cli import transfer
    from ndstream.cli.target import Target

    for url in urls:
        with Target.open(url, user) as target:
            if output == "-":
                transfer.stream(target)
            else:
                place = transfer.destination(target, Path(output) if output else None, into=len(urls) > 1)
                transfer.fetch(target, place, force=force)
