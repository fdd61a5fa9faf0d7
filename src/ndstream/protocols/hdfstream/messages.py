"""Everything that travels in hdfstream: what is asked, in its two spellings, and the documents that answer.

Documents are written with their keys in the order of the fields below; stock clients stream and rely on it. Fields
that are `UNSET` are not sent. Those marked *ours* come after the standard ones, and only for a client that announced
itself (SPEC.md, "Our extension").
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

MEDIA_TYPE = "application/x-msgpack"
ANNOUNCEMENT = "ndstream"  # request header of a client that understands our extension
INT32_MAX = (1 << 31) - 1
INT64_MAX = (1 << 63) - 1

MOST_AXES = 32  # of any HDF5 dataset

Extent: TypeAlias = tuple[int, int]
_Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a POST, all keys optional. `slice` is a text or nested arrays (see the module `slices`)."""

    object: str | UnsetType = UNSET
    max_depth: Annotated[int, msgspec.Meta(ge=0, le=INT32_MAX)] | UnsetType = UNSET
    data_size_limit: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)] | UnsetType = UNSET
    slice: Raw | UnsetType = UNSET


class BoxBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a POST that asks for one box of elements and says nothing else, as nearly all of those do."""

    object: str
    slice: Annotated[tuple[tuple[_Natural, _Natural], ...], msgspec.Meta(min_length=1, max_length=MOST_AXES)]


class Slices(msgspec.Struct, frozen=True, eq=False):
    """Ranges of an array, one behind the other along the first axis.

    Parameters
    ----------
    extents : tuple of (start, count)
        One range for each axis, or with `many` for each axis but the first.
    many : pair of int64 arrays of equal length, optional
        Starts and counts along the first axis, when there are several; they ascend and do not overlap.
    """

    extents: tuple[Extent, ...] = ()
    many: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def rank(self) -> int:
        """Number of axes; none for a scalar."""
        return len(self.extents) + (self.many is not None)


class Request(msgspec.Struct, frozen=True):
    """What is asked of a path: about itself, or about an object of the file, or for elements of a dataset.

    `limit` is the most bytes that the data of one dataset may have to come with its description.
    """

    object: str | None = None
    depth: int = 0
    limit: int = INT32_MAX
    slices: Slices | None = None


class Error(msgspec.Struct, frozen=True):
    """Answer to a request that failed."""

    error: str


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A served file; `last_modified` in milliseconds since the epoch."""

    type: str
    size: int
    last_modified: int
    generation: str | UnsetType = UNSET  # ours


class DirectoryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A served directory; sub-directories that were not looked into are None."""

    type: Literal["directory"] = "directory"
    size: int
    description: str | None
    labels: dict[str, str] | None
    files: dict[str, FileEntry]
    directories: dict[str, DirectoryDocument | None]


class NDArray_(msgspec.Struct, frozen=True, kw_only=True):  # noqa: N801 - numpy's own name is taken
    """Array of elements of a fixed size, the bytes in C order in at most one bin."""

    nd: Literal[True] = True
    type: Any
    kind: str
    shape: tuple[int, ...]
    nbytes: int
    data: list[bytes | memoryview]


class VLenArray(msgspec.Struct, frozen=True, kw_only=True):
    """Array of elements of variable length, flattened."""

    vlen: Literal[True] = True
    shape: tuple[int, ...]
    data: list[Any]
    elements: Literal[True] | UnsetType = UNSET  # ours: elements as in ndstream.core.elements


class AttributeDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Ours: an attribute with what the standard form cannot say; fields as in `ndstream.core.model.Attribute`."""

    dtype: Any
    shape: tuple[int, ...] | None
    value: Any
    problem: str | UnsetType = UNSET


class GroupDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A group; members that were not looked into are None."""

    hdf5_object: Literal["group"] = "group"
    attributes: dict[str, Any]
    members: dict[str, Any]
    address: int | UnsetType = UNSET  # ours
    more: dict[str, dict[str, Any]] | UnsetType = UNSET  # ours: members that the standard cannot describe
    attributes_more: dict[str, AttributeDocument] | UnsetType = UNSET  # ours


class DatasetDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset; `data` is there when it takes no more bytes than the limit of the request."""

    hdf5_object: Literal["dataset"] = "dataset"
    attributes: dict[str, Any]
    type: Any
    kind: str
    shape: tuple[int, ...]
    data: NDArray_ | VLenArray | Raw | UnsetType = UNSET
    dtype: Any = UNSET  # ours, as all that follow
    maxshape: tuple[int | None, ...] | UnsetType | None = UNSET
    chunks: tuple[int, ...] | UnsetType | None = UNSET
    filters: tuple[Any, ...] | UnsetType = UNSET
    fill: bytes | UnsetType | None = UNSET
    null: Literal[True] | UnsetType = UNSET
    storage: str | UnsetType = UNSET
    stored: int | UnsetType = UNSET
    address: int | UnsetType = UNSET
    attributes_more: dict[str, AttributeDocument] | UnsetType = UNSET


class SoftLinkDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A soft link, with its target as stored."""

    hdf5_object: Literal["soft_link"] = "soft_link"
    target: str


class NamedTypeDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A committed type; stock clients cannot read this document and never get it."""

    hdf5_object: Literal["datatype"] = "datatype"
    attributes: dict[str, Any]
    dtype: Any
    address: int
    attributes_more: dict[str, AttributeDocument] | UnsetType = UNSET


ObjectDocument: TypeAlias = GroupDocument | DatasetDocument | SoftLinkDocument | NamedTypeDocument
