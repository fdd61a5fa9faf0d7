"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

User = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="Read as this user; the password is asked for.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
