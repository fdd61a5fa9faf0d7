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
    from ndstream.cli.target import Target
    from ndstream.cli.transfer import destination, fetch

    if output == "-" and len(urls) > 1:
        raise typer.BadParameter("only one URL can go to standard output")
    into = len(urls) > 1
    for url in urls:
        with Target.open(url, user) as target:
            fetch(target, output if output == "-" else destination(target, output and Path(output), into), force=force)
