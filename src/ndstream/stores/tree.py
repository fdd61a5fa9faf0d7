"""Files and directories as values: what `ndstream.stores.memory` serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ndstream.core.model import ExternalLink, Filter, SoftLink


@dataclass(frozen=True, slots=True)
class Null:
    """A null dataspace: an element type and no elements."""

    dtype: np.dtype[Any]


Values: TypeAlias = NDArray[Any] | Null


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A dataset; `values` in the dtype that h5py would read, with its metadata.

    Of the rest only `chunks` and `maxshape` mean anything to the store: what is not chunked keeps its shape.
    """

    values: Values
    attributes: Mapping[str, Values] = field(default_factory=dict)
    maxshape: tuple[int | None, ...] | None = None
    chunks: tuple[int, ...] | None = None
    filters: tuple[Filter, ...] = ()
    fill: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """A group; as the value of a file name, the file with that root group."""

    members: Mapping[str, Group | Array | SoftLink | ExternalLink] = field(default_factory=dict)
    attributes: Mapping[str, Values] = field(default_factory=dict)


Member: TypeAlias = Group | Array | SoftLink | ExternalLink
Tree: TypeAlias = Mapping[str, "Tree | Group | bytes"]
