"""``ndstream ls``: what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from ndstream.cli.options import Json, User


def ls(
    urls: Annotated[list[str], typer.Argument(metavar="URL", help="Directories, files, groups or datasets.")],
    long: Annotated[bool, typer.Option("-l", "--long", help="Sizes and times; shapes and types.")] = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="Go into directories, or into groups.")] = False,
    json: Json = False,
    user: User = None,
) -> None:
    """List directories, HDF5 files and groups."""
    from ndstream.cli.listing import entries, format_entry
    from ndstream.cli.plain import print_json
    from ndstream.cli.target import Target

    listings = {}
    for url in urls:
        with Target.open(url, user) as target:
            found = entries(target.thing, recursive=recursive)
            if json:
                listings[url] = [entry.as_json() for entry in found]
                continue
            if len(urls) > 1:
                typer.echo(f"{url}:")
            for entry in found:
                typer.echo(format_entry(entry) if long else entry.label)
    if json:
        print_json(listings if len(urls) > 1 else listings[urls[0]])
