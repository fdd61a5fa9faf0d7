"""In which order the requests of one connection take effect (SPEC.md, C3)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ndstream.protocols.rpc.messages import COMMANDS, Access, Request

_EVERYTHING = ("/", "write")
_ALL_WRITES = ("/", "read")
_ODD: dict[str, tuple[str, Access]] = {"batch": _EVERYTHING, "flush": _ALL_WRITES}  # type: ignore[dict-item]


@dataclass(slots=True, kw_only=True, eq=False)
class Running:
    """A request that was read and is not yet answered.

    Attributes
    ----------
    path : str
        Object that it is about, with slashes at both ends.
    access : str
        What it does to that.
    done : Future
        Done when it is answered.
    """

    path: str
    access: Access
    done: asyncio.Future[None]
    task: asyncio.Task[None] | None = None
    streams: bool = False
    cancelled: bool = False
    before: list[asyncio.Future[None]] = field(default_factory=list)

    def conflicts(self, other: Running) -> bool:
        """Whether the order of the two matters: one of them writes what the other one is about, or above it."""
        if "none" in (self.access, other.access) or "write" not in (self.access, other.access):
            return False
        return self.path.startswith(other.path) or other.path.startswith(self.path)


def running(request: Request) -> Running:
    """Note what a request is about."""
    path, access = _ODD.get(request.command) or (
        request.arguments.get("path"),
        COMMANDS[request.command][1] if request.command in COMMANDS else "none",
    )
    name = path.strip("/") if isinstance(path, str) else ""
    done = asyncio.get_running_loop().create_future()
    return Running(path=f"/{name}/" if name else "/", access=access, done=done)
