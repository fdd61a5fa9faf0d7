"""What an argument of the command line leads to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import ndstream
from ndstream.cli.address import Address, parse_address
from ndstream.cli.extract import Extract
from ndstream.client.directories import RemoteDirectory
from ndstream.client.local import open_local
from ndstream.errors import InvalidRequest, NotFound

Kind: TypeAlias = Literal["directory", "file", "group", "dataset", "datatype"]


def kind_of(thing: Any) -> Kind:
    """Say what something is by what it can do: remote objects and those of h5py do the same."""
    if hasattr(thing, "directories"):
        return "directory"
    if hasattr(thing, "media_type"):
        return "file"
    if hasattr(thing, "shape"):
        return "dataset"
    return "group" if hasattr(thing, "visititems") else "datatype"


@dataclass(frozen=True, slots=True)
class Target:
    """Something that was found.

    Attributes
    ----------
    text : str
        The argument, as it was written.
    address : Address
    thing : object
        A remote directory, file, group, dataset or type; or one of h5py when the path is one of this machine.
    """

    text: str
    address: Address
    thing: Any

    @classmethod
    @contextmanager
    def open(cls, text: str, user: str | None = None) -> Iterator[Self]:
        """Find what an argument means; it can be used while the block lasts.

        Raises
        ------
        NotFound
            There is no such thing.
        InvalidRequest
            The argument cannot mean anything.
        NDStreamError
        """
        address = parse_address(text)
        if address.server is None:
            if Path(address.path).is_dir():
                raise InvalidRequest(f"{address.path} is a directory of this machine; name an HDF5 file in it")
            with open_local(address.path) as file:
                yield cls(text, address, _found(text, file, address.name or "/"))
            return
        place = ndstream.open(address.server, address.path or "/", user=user)
        if address.name is None:
            yield cls(text, address, place)
        elif isinstance(place, RemoteDirectory):
            raise InvalidRequest(f"{text}: a directory has no objects; name an HDF5 file in it")
        else:
            yield cls(text, address, _found(text, place, address.name))

    @property
    def kind(self) -> Kind:
        """What was found."""
        return kind_of(self.thing)

    @property
    def name(self) -> str:
        """Last part of the name of what was found; empty for a root."""
        path = self.thing.file_path if self.kind == "file" else self.thing.name
        return str(path).rstrip("/").rpartition("/")[2]

    def extract(self) -> Extract:
        """Elements that the argument means.

        Raises
        ------
        InvalidRequest
            It leads to something without elements.
        InvalidSelection, OutOfBounds
            The selection does not fit.
        """
        if self.kind != "dataset":
            raise InvalidRequest(f"{self.text}: a {self.kind} has no elements; name a dataset")
        return Extract(self.thing, self.address.selection)


def _found(text: str, file: Any, name: str) -> Any:
    try:
        return file[name]
    except NotFound:
        raise
    except KeyError:
        raise NotFound(f"{text}: no such object") from None
