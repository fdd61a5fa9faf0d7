"""What the command line is pointed at: a path on a server or on this machine, an object in it, a part of that.

::

    http://host:8000/runs/file.h5::/group/dataset[1:5, ::2]
    └──── server ──┘└─── path ──┘  └── object ──┘└selection┘
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from ndstream.errors import InvalidRequest

_SERVER = re.compile(r"(https?://[^/]+)(/.*)?", re.IGNORECASE | re.DOTALL)
_MOUNT = "hdfstream"


@dataclass(frozen=True, slots=True)
class Address:
    """One argument of the command line, taken apart.

    Attributes
    ----------
    server : str or None
        Base of the hdfstream endpoints, as `ndstream.open` takes it; None for a path of this machine.
    path : str
        Virtual path on the server without leading or trailing slash (percent-decoded; "" is the root), or the local
        path as it was written.
    name : str or None
        Absolute name of an object inside the HDF5 file.
    selection : str or None
        Text between the brackets, as `ndstream.core.selection.parse_selection` reads it.
    """

    server: str | None
    path: str
    name: str | None = None
    selection: str | None = None

    def __str__(self) -> str:
        place = self.path if self.server is None else f"{self.server}/{self.path}"
        name = "" if self.name is None else f"::{self.name}"
        return place + name + ("" if self.selection is None else f"[{self.selection}]")


def parse_address(text: str) -> Address:
    """Take an argument apart.

    The object follows the first ``::`` after the name of the host. A selection is what stands in the brackets that
    close the text; an object whose own name ends with a bracket is reached by adding ``[...]``. The endpoints of
    a server are below ``/hdfstream`` unless the URL itself says where: everything up to the first component of that
    name.

    Raises
    ------
    InvalidRequest
        When brackets do not match, or a selection has no object to select from.
    """
    remote = _SERVER.fullmatch(text)
    place, found, inside = (remote[2] or "" if remote else text).partition("::")
    name, selection = _selection(inside) if found else (None, None)
    if name is not None:
        name = "/" + name.strip("/")
    if not remote:
        if "://" in place:
            raise InvalidRequest(f"{text}: only http:// and https:// are spoken")
        return Address(None, place, name, selection)
    parts = [part for part in place.split("/") if part]
    mount = parts.index(_MOUNT) if _MOUNT in parts else -1
    server = "/".join([remote[1], *parts[: max(mount, 0)], _MOUNT])
    return Address(server, "/".join(unquote(part) for part in parts[mount + 1 :]), name, selection)


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
