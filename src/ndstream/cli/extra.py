"""Optional dependencies of commands: what to say when one is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ndstream.errors import MissingExtra


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Import inside this what only `extra` brings; `what` names the command or the form that wants it.

    Raises
    ------
    MissingExtra
        When a module that does not belong to ndstream is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "ndstream":
            raise
        raise MissingExtra(f"{what} needs the {extra!r} extra: pip install 'ndstream[{extra}]'") from error
