"""What an argument of the command line leads to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import ndstream
from ndstream.cli.address import Address, parse_address
from ndstream.cli.extract import Extract
from ndstream.errors import InvalidRequest

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
