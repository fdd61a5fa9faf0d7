"""What can be said about a served tree: directories, files, and the objects inside HDF5 files.

All are immutable values that travel (between server, workers and clients). Shapes are in elements, C order,
slowest axis first.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from ndstream.core.dtypes import DType


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One served file.

    `path` is virtual (no leading slash); `size` in bytes; `modified` in nanoseconds since the epoch. `generation`
    names this very content: it changes whenever the file is replaced or written to.
    """

    path: str
    size: int
    modified: int
    media_type: str
    generation: str

    @property
    def is_hdf5(self) -> bool:
        """Whether the media type promises HDF5."""
        return self.media_type == HDF5_MEDIA_TYPE


HDF5_MEDIA_TYPE = "application/x-hdf5"


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """One served directory; `size` totals every visible file below it, in bytes.

    A directory that was not looked into is None in `directories`. `description` is markdown for people; `labels`
    gives markdown for the children.
    """

    path: str
    size: int
    files: dict[str, File]
    directories: dict[str, Directory | None]
    description: str | None = None
    labels: dict[str, str] | None = None


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """Value attached to an object.

    `shape` is None for a null dataspace. `value` holds the elements in C order: bytes exactly as `dtype` describes
    them when the type is fixed, else a flat list of elements (`ndstream.core.elements`). When the value cannot be
    read, `problem` says why and `value` is None.
    """

    dtype: DType | None
    shape: tuple[int, ...] | None
    value: bytes | list[Any] | None
    problem: str | None = None


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the filter pipeline, by its registered HDF5 number, with the options stored in the file."""

    id: int
    name: str
    options: tuple[int, ...] = ()
    optional: bool = False

    @property
    def asked(self) -> tuple[int, ...]:
        """Options to ask for this filter with: without those that it puts before them itself."""
        return self.options[_BITSHUFFLE_OWN:] if self.id == _BITSHUFFLE else self.options


_BITSHUFFLE, _BITSHUFFLE_OWN = 32008, 3  # two numbers of its version, and the size of an element


class SoftLink(msgspec.Struct, frozen=True, kw_only=True, tag_field="node", tag="soft_link"):
    """Symbolic link inside the file; `target` as stored, relative or absolute."""

    target: str


class ExternalLink(msgspec.Struct, frozen=True, kw_only=True, tag_field="node", tag="external_link"):
    """Link to an object of another file, both as stored."""

    filename: str
    target: str


class HardLink(msgspec.Struct, frozen=True, kw_only=True, tag_field="node", tag="hard_link"):
    """A member that was not looked into; with `kind` None nothing but its name is known, it may be a link as well."""

    kind: Literal["group", "dataset", "datatype"] | None = None


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, tag_field="node", tag="unreadable"):
    """A member that exists but cannot be opened or described; `problem` says why, `code` is that of the error."""

    problem: str
    code: str = "data"


class NamedType(msgspec.Struct, frozen=True, kw_only=True, tag_field="node", tag="datatype"):
    """Committed datatype."""

    dtype: DType
    attributes: dict[str, Attribute]
    address: int = 0
    elsewhere: bool | UnsetType = UNSET


class Dataset(msgspec.Struct, frozen=True, kw_only=True, tag_field="node", tag="dataset"):
    """Description of a dataset.

    `shape` is None for a null dataspace, ``()`` for a scalar. In `maxshape` None means unlimited. `chunks` is None
    unless the storage is chunked. `fill` is one element as stored, None when undefined or of variable length.
    `data` holds all elements (as in `Attribute.value`) when they were asked for and are few. `stored` is the
    number of bytes in the file. `address` tells whether two links, to this file or others, lead to one object.
    `elsewhere` says, of the object that was asked for, that other files have a part in it: it may change while the file
    that was asked does not.
    """

    dtype: DType
    shape: tuple[int, ...] | None
    maxshape: tuple[int | None, ...] | None
    attributes: dict[str, Attribute]
    storage: Literal["contiguous", "compact", "chunked", "virtual", "external"] = "contiguous"
    chunks: tuple[int, ...] | None = None
    filters: tuple[Filter, ...] = ()
    fill: bytes | None = None
    data: bytes | list[Any] | None = None
    stored: int = 0
    address: int = 0
    elsewhere: bool | UnsetType = UNSET


class Group(msgspec.Struct, frozen=True, kw_only=True, tag_field="node", tag="group"):
    """Description of a group, its members in the order of the file's name index.

    `members` is complete in its names; a member that was not looked into is a `HardLink`, or the link itself. One
    that was found behind an external link is what the link leads to; the link is in `links`. `elsewhere` is as of
    `Dataset`.
    """

    attributes: dict[str, Attribute]
    members: dict[str, Node]
    address: int = 0
    links: dict[str, ExternalLink] = {}
    elsewhere: bool | UnsetType = UNSET


Node: TypeAlias = Group | Dataset | NamedType | SoftLink | ExternalLink | HardLink | Unreadable
