"""``ndstream cat``: values on standard output."""

from __future__ import annotations

from typing import Annotated

import typer

from ndstream.cli.options import User


def cat(
    urls: Annotated[list[str], typer.Argument(metavar="URL", help="Datasets or parts of them; or files, as they are.")],
    whole: Annotated[bool, typer.Option("--all", help="Print every value, however many there are.")] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Comma-separated values, one line per row; at most two axes.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Bytes of the elements, in C order and little-endian.")] = False,
    user: User = None,
) -> None:
    """Print values; of more than 1000, the corners.

    A URL without an object is a file: its bytes are written as they are.
    """
    if csv and raw:
        raise typer.BadParameter("--csv and --raw exclude each other")
    from ndstream.cli import printing, transfer
    from ndstream.cli.target import Target

    for url in urls:
        with Target.open(url, user) as target:
            if target.kind == "file":
                transfer.stream(target)
            elif raw:
                printing.write_raw(target.extract())
            elif csv:
                printing.write_csv(target.extract())
            else:
                typer.echo(printing.text(target.extract(), whole=whole))
