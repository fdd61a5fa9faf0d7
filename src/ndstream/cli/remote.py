"""Recordings on a server of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from ndstream.core.operations import Committed, Operation
from ndstream.errors import Exists, NotFound

if TYPE_CHECKING:
    from ndstream.client.aio_connection import AioConnection


class Remote:
    """Files of a directory of a server; a `ndstream.recording.targets.Target`.

    Parameters
    ----------
    connection : AioConnection
    directory : str
        Path on the server; empty, or it ends in a slash.
    """

    def __init__(self, connection: AioConnection, directory: str) -> None:
        self._connection = connection
        self._directory = directory
        self._turn = asyncio.Lock()  # requests that are under way together may overtake each other

    @classmethod
    def of(cls, url: str, user: str | None) -> tuple[Self, str]:
        """Make it of the address of a file; and the name of the file."""
        from ndstream.session import aconnection

        connection, path = aconnection(url, user=user)
        directory, slash, name = path.rpartition("/")
        return cls(connection, directory + slash), name

    async def check(self, name: str) -> None:
        """Make sure that there is no such file; raises `Exists`."""
        try:
            await self._connection.lookup(self._directory + name)
        except NotFound:
            return
        raise Exists(f"{self._directory}{name} is on the server already")

    async def apply(self, name: str, operations: Sequence[Operation]) -> Committed:
        """Carry out operations together in a file, which is made if it is not there."""
        async with self._turn:
            return await self._connection.apply(self._directory + name, operations, create=True)

    async def finish(self, name: str) -> None:
        """Do nothing: the server lets go of files by itself."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()
