"""What the command line is pointed at: a path on a server or on this machine, an object in it, a part of that.

::

    http://host:8000/runs/file.h5::/group/dataset[1:5, ::2]
    └────────── place ──────────┘  └── object ──┘└selection┘
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ndstream.errors import InvalidRequest

_URL = re.compile(r"(\w+://[^/]*)(.*)", re.DOTALL)
_ALIAS = re.compile(r"([^/:]+):(?!:)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """One argument of the command line, taken apart.

    Attributes
    ----------
    server : str or None
        URL or alias, as `ndstream.open` takes it; None for a path of this machine.
    path : str
        Path behind that, or of this machine.
    name : str or None
        Absolute name of an object inside the HDF5 file.
    selection : str or None
        Text between the brackets, as `ndstream.core.selection.parse_selection` reads it.
    """

    server: str | None
    path: str
    name: str | None = None
    selection: str | None = None


def parse_address(text: str) -> Address:
    """Take an argument apart.

    The object follows the first ``::`` after the name of the host. A selection is what stands in the brackets that
    close the text; an object whose own name ends with a bracket is reached by adding ``[...]``. ``NAME:PATH`` is a path
    on the server with that alias.

    Raises
    ------
    InvalidRequest
        When brackets do not match.
    """
    host, rest = url.groups() if (url := _URL.fullmatch(text)) else ("", text)
    place, found, inside = rest.partition("::")
    name, selection = _selection(inside) if found else (None, None)
    if name is not None:
        name = "/" + name.strip("/")
    if host:
        return Address(host + place, "/", name, selection)
    if alias := _ALIAS.fullmatch(place):
        return Address(alias[1], alias[2], name, selection)
    return Address(None, place, name, selection)


def _selection(inside: str) -> tuple[str, str | None]:
    """Cut the brackets that close the text from the name before them."""
    if not inside.endswith("]"):
        return inside, None
    depth = 0
    for at in range(len(inside) - 1, -1, -1):
        depth += {"]": 1, "[": -1}.get(inside[at], 0)
        if depth == 0:
            return inside[:at], inside[at + 1 : -1]
    raise InvalidRequest(f"{inside}: a bracket is closed that was never opened")
