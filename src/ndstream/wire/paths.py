"""Virtual paths out of URLs."""

from __future__ import annotations

from ndstream.core.limits import Limits
from ndstream.errors import NotFound, TooLarge


def virtual_path(path: str, limits: Limits) -> str:
    """Clean a percent-decoded path: one slash may end it, ``.`` and ``..`` are resolved, nothing else is forgiven.

    Returns
    -------
    str
        Without slashes at its ends; "" is the root.

    Raises
    ------
    TooLarge
        It is longer than the limit.
    NotFound
        It has an empty component, a NUL character, or leads above the root.
    """
    if len(path) > limits.path_length:
        raise TooLarge(f"a path may have {limits.path_length} characters, this one has {len(path)}")
    trimmed = path.removeprefix("/").removesuffix("/")
    if not trimmed and path in ("", "/"):
        return ""
    parts: list[str] = []
    for part in trimmed.split("/"):
        if not part or "\0" in part or (part == ".." and not parts):
            raise NotFound(f"Invalid path specified: {trimmed}")
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
