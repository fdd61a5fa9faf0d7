"""``ndstream keygen``: keys of encrypted message streams."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def keygen(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the files.")],
    directory: Annotated[
        Path, typer.Option("--directory", "-d", metavar="DIR", help="Where to; made when it is not there.")
    ] = Path(),
) -> None:
    """Make the keys of one end of an encrypted message stream.

    NAME.key, the public key, is given to the other end. NAME.key_secret stays here; only its owner can read it.
    """
    from ndstream.transports.zmq.keys import generate, public_key

    public, secret = generate(directory, name)
    typer.echo(f"{secret}: the secret key")
    typer.echo(f"{public}: the public key, {public_key(public).decode()}")
