"""``ndstream info``: one thing in all detail that needs no data."""

from __future__ import annotations

from typing import Annotated

import typer

from ndstream.cli.options import Json, User


def info(
    urls: Annotated[list[str], typer.Argument(metavar="URL", help="Directories, files, groups or datasets.")],
    json: Json = False,
    user: User = None,
) -> None:
    """Show shape, type, storage and attributes."""
    from ndstream.cli.description import describe, format_description
    from ndstream.cli.plain import print_json
    from ndstream.cli.target import Target

    found = []
    for url in urls:
        with Target.open(url, user) as target:
            found.append(describe(target))
    if json:
        print_json(found if len(found) > 1 else found[0])
    else:
        typer.echo("\n\n".join(map(format_description, found)))
