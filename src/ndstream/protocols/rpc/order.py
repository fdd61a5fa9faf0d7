"""In which order the requests of one connection take effect (SPEC.md, C3)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ndstream.protocols.rpc.messages import COMMANDS, LONGEST_PATH, Access, Command, Nothing, Request

_EVERYWHERE: dict[str, Access] = {"batch": "write", "flush": "read"}
"""Commands that name no path and are about all of the file."""
_UNKNOWN: tuple[type[Command], Access] = (Nothing, "none")


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
    endless : bool
        Whether its reply ends only when it is taken back.
    cancelled, stopped : bool
        Whether its client has taken it back, or the server ends.
    nbytes : int
        Memory of its payload.
    weight : int
        What it takes in memory, taken apart, about, when that may be much.
    """

    path: str
    access: Access
    done: asyncio.Future[None]
    task: asyncio.Task[None] | None = None
    streams: bool = False
    endless: bool = False
    cancelled: bool = False
    stopped: bool = False
    nbytes: int = 0
    weight: int = 0
    before: list[asyncio.Future[None]] = field(default_factory=list)

    def conflicts(self, other: Running) -> bool:
        """Whether the order of the two matters: one of them writes what the other one is about, or above it."""
        if "none" in (self.access, other.access) or "write" not in (self.access, other.access):
            return False
        return self.path.startswith(other.path) or other.path.startswith(self.path)


def running(request: Request) -> Running:
    """Note what a request is about."""
    access = _EVERYWHERE.get(request.command) or COMMANDS.get(request.command, _UNKNOWN)[1]
    path = request.arguments.get("path")
    # What is longer is refused, and as something about everything it need not be taken apart before.
    name = _plain(path) if isinstance(path, str) and len(path) <= LONGEST_PATH else ""
    done = asyncio.get_running_loop().create_future()
    return Running(path=f"/{name}/" if name else "/", access=access, done=done)


def _plain(path: str) -> str:
    """One spelling for all that HDF5 takes for the same path."""
    if "//" in path or "." in path:
        path = "/".join([part for part in path.split("/") if part not in ("", ".")])
    return path.strip("/")
