"""Where ``ndstream put`` puts things: a file on a server, and an object or a part of one in it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, Self

import ndstream
from ndstream.cli.address import Address, parse_address
from ndstream.cli.target import kind_of
from ndstream.client.connection import Connection
from ndstream.errors import InvalidRequest, NotFound


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file on a server.

    Attributes
    ----------
    text : str
        The argument, as it was written.
    address : Address
        The same, taken apart.
    connection : Connection
    path : str
        Virtual path of the file.
    file : RemoteFile or None
        The file as it is; None when there is none yet.
    """

    text: str
    address: Address
    connection: Connection
    path: str
    file: Any

    @classmethod
    def open(cls, text: str, user: str | None, name: str | None) -> Self:
        """Find the file that an argument means; of a directory, the file called `name` in it, if that is given.

        Raises
        ------
        InvalidRequest
            The argument cannot mean a file on a server.
        NotFound
            There is not even a directory for it.
        NDStreamError
        """
        address = parse_address(text)
        if address.server is None:
            raise InvalidRequest(f"{text} is a path of this machine; things are put on servers")
        try:
            found = ndstream.open(address.server, address.path or "/", user=user)
        except NotFound:
            return cls._new(text, address, user)
        if kind_of(found) == "file":
            return cls(text, address, found.connection, found.file_path, found)
        if address.name is not None or name is None:
            raise InvalidRequest(f"{text}: a directory has no objects; name an HDF5 file in it")
        path = posixpath.join(found.name, name).strip("/")
        return cls(text, address, found.connection, path, found.get(name))

    @classmethod
    def _new(cls, text: str, address: Address, user: str | None) -> Self:
        """Place in a file that is not there, in a directory that is."""
        assert address.server is not None
        path = address.path.strip("/")
        if path:
            parent, _, name = path.rpartition("/")
            above = ndstream.open(address.server, parent or "/", user=user)
        else:
            server, _, name = address.server.rstrip("/").rpartition("/")
            above = ndstream.open(server, user=user)
        if kind_of(above) != "directory":
            raise NotFound(f"{text}: /{above.file_path} is no directory")
        return cls(text, address, above.connection, posixpath.join(above.name, name).strip("/"), None)

    @property
    def is_root(self) -> bool:
        """Whether the argument means the file as a whole."""
        return self.address.name in (None, "/")

    def name_for(self, name: str) -> str:
        """Absolute name that something called `name` gets: that of the argument, or below it if this is a group."""
        wanted = self.address.name or "/"
        return posixpath.join(wanted, name) if self.is_root or self.kind(wanted) == "group" else wanted

    def dataset(self) -> Any:
        """Dataset that is there and is to be written to.

        Raises
        ------
        InvalidRequest, NotFound
            There is none.
        """
        if self.is_root or self.kind(self.address.name or "/") != "dataset":
            raise NotFound(f"{self.text}: there is no dataset to write to")
        return self.file[self.address.name]

    def kind(self, name: str) -> str | None:
        """What is at an absolute name, if anything."""
        if self.file is None:
            return None
        try:
            return kind_of(self.file[name])
        except NotFound:
            return None
