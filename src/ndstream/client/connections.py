"""The connections of this process, one for each server and user, whatever is spoken."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ndstream.client.connection import Connection, Reopen
from ndstream.client.credentials import Credentials
from ndstream.core.limits import Limits

C = TypeVar("C", bound=Connection, covariant=True)


class Connect(Protocol[C]):
    """What makes a connection: the classes themselves."""

    def __call__(
        self, server: str, credentials: Credentials, *, verify: bool | str, limits: Limits, reopen: Reopen
    ) -> C:
        """Connect."""
        ...


@dataclass(frozen=True, slots=True)
class _Key:
    server: str
    user: str | None
    verify: bool | str
    limits: Limits
    process: int


_open: dict[_Key, tuple[str | None, Connection]] = {}
_lock = threading.Lock()


def cached(server: str, user: str | None, *, verify: bool | str, limits: Limits) -> Connection | None:
    """Connection of this process to the server as this user, if there is one."""
    known = _open.get(_Key(server, user, verify, limits, os.getpid()))
    return known[1] if known is not None else None


def shared(
    make: Connect[C], server: str, credentials: Credentials, *, verify: bool | str, limits: Limits, reopen: Reopen
) -> Connection:
    """Connect to a server, or give the connection that there is with the same password.

    Raises
    ------
    NDStreamError
        Whatever `make` raises.
    """
    key = _Key(server, credentials.user, verify, limits, os.getpid())
    known = _open.get(key)
    if known is not None and known[0] == credentials.password:
        return known[1]
    connection = make(server, credentials, verify=verify, limits=limits, reopen=reopen)
    with _lock:
        _open[key] = (credentials.password, connection)
    return connection


def forget() -> None:
    """Close and forget the connections of this process; what uses them goes on with new ones."""
    with _lock:
        known = list(_open.items())
        _open.clear()
    for key, (_, connection) in known:
        if key.process == os.getpid():
            connection.close()
