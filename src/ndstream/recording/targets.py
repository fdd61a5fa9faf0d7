"""Where recordings are written to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.operations import Committed, Operation
from ndstream.core.ports import Access, Writing
from ndstream.errors import Exists, NotFound
from ndstream.stores.hdf5.store import HDF5Store

_RECORDER = Access(user="record", writable=frozenset({""}))


class Target(Protocol):
    """What makes and writes files in one place, by commits."""

    async def check(self, name: str) -> None:
        """Make sure that there is no file of that name.

        Raises
        ------
        Exists
        """
        ...

    async def apply(self, name: str, operations: Sequence[Operation]) -> Committed:
        """Carry out operations together in a file, which is made if it is not there; return when they are durable.

        Once a file is there, what is applied to it while other operations are under way is carried out after them.
        """
        ...

    async def finish(self, name: str) -> None:
        """Let go of a file, to which nothing will be written any more."""
        ...

    async def aclose(self) -> None:
        """Let go of everything."""
        ...


class Folder:
    """Files of a directory of this machine, written by processes of our own.

    Parameters
    ----------
    directory : Path
    limits : Limits
    writing : Writing

    Raises
    ------
    NotFound
        There is no such directory.
    """

    def __init__(self, directory: Path, limits: Limits = DEFAULT_LIMITS, writing: Writing | None = None) -> None:
        if not directory.is_dir():
            raise NotFound(f"{directory} is no directory")
        self._directory = directory
        self._store = HDF5Store({"": directory}, limits=limits, writing=writing or Writing())

    async def check(self, name: str) -> None:
        """See `Target`."""
        if (self._directory / name).exists():
            raise Exists(f"{self._directory / name} is there already")

    async def apply(self, name: str, operations: Sequence[Operation]) -> Committed:
        """See `Target`."""
        return await self._store.apply(name, _RECORDER, operations, create=True)

    async def finish(self, name: str) -> None:
        """See `Target`."""
        await self._store.release(name, _RECORDER)

    async def aclose(self) -> None:
        """See `Target`."""
        await self._store.aclose()
