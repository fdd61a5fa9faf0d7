"""Committed types on a server."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ndstream.client.attributes import RemoteAttributes
from ndstream.client.values import read_type
from ndstream.core.dtypes import to_numpy
from ndstream.core.model import NamedType


class RemoteDatatype:
    """A type that was given a name in a file."""

    kind = "datatype"

    def __init__(self, name: str, described: NamedType) -> None:
        self.name = name
        self.described = described

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type, as h5py spells it.

        Raises
        ------
        UnsupportedDType
        """
        return to_numpy(read_type(self.described.dtype))

    @cached_property
    def attrs(self) -> RemoteAttributes:
        """Attributes."""
        return RemoteAttributes(self.described.attributes, self.name)

    def __repr__(self) -> str:
        return f'<Remote HDF5 named type "{self.name}">'
