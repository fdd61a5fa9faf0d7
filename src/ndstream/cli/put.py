"""``ndstream put``: copy things of this machine to a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def put(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="HDF5 files of this machine, objects in them or parts; .npy files."),
    ],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where to: a file that can be written to, an object in it.")
    ],
    append: Annotated[
        bool, typer.Option("--append", help="Append to the dataset that URL names, along its first axis.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    compression: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compress what is made of an array: gzip, lzf, lz4 or zstd.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Write as this user; the password is asked for.")
    ] = None,
) -> None:
    """Copy to a server.

    SOURCE is a path of this machine, with object and selection as in a URL. Its copy gets the name that URL gives; a
    group that is there receives it under its own name. With a selection behind URL, values are written to that part of
    a dataset. What is made appears under its name when it is complete.
    """
    from ndstream.cli import upload
    from ndstream.cli.address import parse_address
    from ndstream.cli.extract import Extract
    from ndstream.cli.place import Place
    from ndstream.cli.target import Target
    from ndstream.errors import InvalidRequest

    if append and force:
        raise typer.BadParameter("--append and --force exclude each other")
    for text in sources:
        source = parse_address(text)
        if source.server is not None:
            raise InvalidRequest(f"{text} is on a server: get it first")
        path = Path(source.path)
        is_array = path.suffix == ".npy"
        if is_array and source.name is not None:
            raise InvalidRequest(f"{text}: an .npy file has no objects")
        place = Place.open(url, user, None if is_array or source.name else path.name)
        if is_array:
            array = upload.NpyFile(path)
            upload.put_array(place, Extract(array), path.stem, append=append, compression=compression, force=force)
        elif append or source.selection or place.address.selection:
            with Target.open(text) as target:
                part = target.extract()
                upload.put_array(place, part, target.name, append=append, compression=compression, force=force)
        else:
            upload.copy_objects(place, path, source.name, force=force)
