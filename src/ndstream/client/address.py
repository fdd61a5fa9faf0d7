"""What a user calls a server, taken apart: where its endpoints are, and what is meant on it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from ndstream.errors import InvalidRequest

PREFIX = "hdfstream"
NATIVE = "v1"


@dataclass(frozen=True, slots=True)
class Address:
    """`base` is what the endpoints hang below, without a slash at its end; `path` is virtual, "" for the root.

    `native` is what those of the native protocol hang below, or None when the URL says that it is not to be spoken.
    """

    base: str
    path: str
    native: str | None = None


def parse_address(url: str, name: str = "/") -> Address:
    """Take a URL apart and put `name` behind its path.

    The endpoints hang below the path component ``hdfstream``. When the URL has none, it stands right after the host:
    ``http://host:8000``, ``http://host:8000/hdfstream`` and the path of a file behind either all work. A URL that names
    the component is of a server that is to be spoken to in hdfstream; ``http://host:8000/v1`` is like ``http://host:8000``.

    Parameters
    ----------
    url : str
        With the scheme http or https, and without user, query and fragment.
    name : str
        Virtual path, below that of the URL.

    Raises
    ------
    InvalidRequest
        The URL is not of that form.
    """
    parts = _split(url)
    components = [unquote(part) for part in parts.path.split("/") if part]
    before: list[str] = []
    native: str | None = f"{parts.scheme}://{parts.netloc}/{NATIVE}"
    if PREFIX in components:
        at = components.index(PREFIX)
        before, components = components[:at], components[at + 1 :]
        native = None
    elif components[:1] == [NATIVE]:
        del components[0]
    base = "/".join([f"{parts.scheme}://{parts.netloc}", *before, PREFIX])
    return Address(base, normalise("/".join([*components, name])), native)


def normalise(path: str) -> str:
    """Virtual path without slashes at its ends, empty components, ``.`` and ``..``; none leads above the root."""
    return posixpath.normpath("/" + path).strip("/")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidRequest(f"{url!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"{url!r} is neither http://host:port, https://host:port nor the alias of a server")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("user name and password do not belong into an address: give user= and password=")
    if parts.query or parts.fragment:
        raise InvalidRequest(f"{url!r} has a query or a fragment, which an address of a server cannot have")
    return parts
