"""Everything that travels in the framed TCP protocol (SPEC.md).

A message is a map. `Request` is what the codec makes of one; the classes below are the arguments of the commands, by
name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

import msgspec

PROTOCOL = "ndstream-rpc"
VERSION = 1
FEATURES = (
    *("ids", "binary", "selection", "list", "attrs", "create", "resize", "stream", "flush", "zlib"),
    *("batch", "events"),
)
"""What a connection may agree on (SPEC.md, C1); the last two are ours."""
CODECS = frozenset({"zlib"})
"""Ways to compress a body that we know, each a feature."""

LONGEST_ID = 64
LARGEST_ID = (1 << 53) - 1
DEPTH = 64
"""Containers within containers in one message."""
WIDTH = 65_536
"""Entries of one map."""
LONGEST_PATH = 4096
PIECE = 8 << 20
"""Bytes of data in one frame of a streamed reply, unless frames must be shorter."""
MARKER = "ndstream.serialized"
"""Attribute of a dataset that holds a value which HDF5 cannot, encoded as in a message (SPEC.md, B5)."""


class Form(Enum):
    """How a message is put into bytes; told by the first one (SPEC.md, B2)."""

    MSGPACK = "messagepack"
    JSON = "json"
    EXTENDED = "extended"


Ident: TypeAlias = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command with its arguments; arrays in them are ndarrays."""

    command: str
    arguments: dict[str, Any]
    ident: Ident | None = None
    form: Form = Form.MSGPACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request was refused; `code` is one of C5."""

    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


class _Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the arguments of a command."""


class Hello(_Arguments, frozen=True, kw_only=True):
    """First request of a connection that wants more than the original had (C1)."""

    protocol: str
    version: int
    client: str = ""
    max_frame: int | None = None
    features: tuple[str, ...] = ()
    token: str | None = None
    user: str | None = None


class Nothing(_Arguments, frozen=True, kw_only=True):
    """No arguments: ping, get_config."""


class CreateGroup(_Arguments, frozen=True, kw_only=True):
    """Make a group and its parents; one that is there is fine."""

    path: str


class CreateDataset(_Arguments, frozen=True, kw_only=True):
    """Make a dataset (C4)."""

    path: str
    dtype: Any = None
    shape: tuple[int, ...] | None = None
    chunks: tuple[int, ...] | bool | None = None
    maxshape: tuple[int | None, ...] | None = None
    compression: str | None = None
    compression_opts: int | None = None
    shuffle: bool = False
    fillvalue: Any = None
    data: Any = None
    exist_ok: bool = False


class Read(_Arguments, frozen=True, kw_only=True):
    """Read a dataset, or selections of it."""

    path: str
    selection: list[Any] | None = None
    selections: list[Any] | None = None
    max_bytes: int | None = None
    stream: bool = False


class PlainRead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole message of a `Read` of at most one selection of integers and slices, as nearly all are."""

    command: Literal["read"]
    path: str
    id: Ident | None = None
    selection: list[int | str | list[int | None] | None] | None = None
    max_bytes: int | None = None
    stream: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing of `RESERVED` in it."""
        return self.id is None and self.selection is None and self.max_bytes is None and self.stream is msgspec.UNSET


class Write(_Arguments, frozen=True, kw_only=True):
    """Put data in place of whatever is there."""

    path: str
    data: Any = None
    compression: str | None = None


class Update(_Arguments, frozen=True, kw_only=True):
    """Write into a region; without a selection the same as `Write`."""

    path: str
    data: Any = None
    compression: str | None = None
    selection: list[Any] | None = None


class Append(_Arguments, frozen=True, kw_only=True):
    """Add rows, or put them in the place of those of the same key."""

    path: str
    data: Any = None
    compression: str | None = None
    deduplicate_on: str | None = None


class Insert(_Arguments, frozen=True, kw_only=True):
    """Put rows before the one at `index`."""

    path: str
    index: int
    data: Any = None
    compression: str | None = None


class Resize(_Arguments, frozen=True, kw_only=True):
    """Give a dataset another shape."""

    path: str
    shape: tuple[int, ...]
    shrink: bool = False


class Delete(_Arguments, frozen=True, kw_only=True):
    """Remove an object with all that is below it."""

    path: str


class List(_Arguments, frozen=True, kw_only=True):
    """Name what is in a group; a page of it, behind the object called `after`."""

    path: str = "/"
    depth: int = 1
    limit: int = 1000
    after: str | None = None


class Stat(_Arguments, frozen=True, kw_only=True):
    """Describe an object."""

    path: str


class GetAttrs(_Arguments, frozen=True, kw_only=True):
    """Read attributes, all or those that are named."""

    path: str
    names: tuple[str, ...] | None = None


class SetAttrs(_Arguments, frozen=True, kw_only=True):
    """Set attributes, all or none."""

    path: str
    attrs: dict[str, Any]


class DeleteAttrs(_Arguments, frozen=True, kw_only=True):
    """Remove attributes."""

    path: str
    names: tuple[str, ...]


class Flush(_Arguments, frozen=True, kw_only=True):
    """Wait until all that was acknowledged is in the file."""

    sync: bool = False


class Cancel(_Arguments, frozen=True, kw_only=True):
    """Stop a streamed reply at its next frame."""

    target: int | str


class Batch(_Arguments, frozen=True, kw_only=True):
    """Carry out commands that write, together or not at all (SPEC.md, E1)."""

    commands: list[dict[str, Any]]
    condition: int | None = None
    key: str | None = None


class Follow(_Arguments, frozen=True, kw_only=True):
    """Tell the commits of the file as they happen, from behind number `since` (SPEC.md, E2)."""

    since: int | None = None


Command: TypeAlias = (
    Nothing
    | CreateGroup
    | CreateDataset
    | Read
    | Write
    | Update
    | Append
    | Insert
    | Resize
    | Delete
    | List
    | Stat
    | GetAttrs
    | SetAttrs
    | DeleteAttrs
    | Flush
    | Batch
    | Follow
)

Access: TypeAlias = Literal["none", "read", "write"]

COMMANDS: dict[str, tuple[type[Command], Access]] = {
    "ping": (Nothing, "none"),
    "get_config": (Nothing, "none"),
    "create_group": (CreateGroup, "write"),
    "create_dataset": (CreateDataset, "write"),
    "read": (Read, "read"),
    "write": (Write, "write"),
    "update": (Update, "write"),
    "append": (Append, "write"),
    "insert": (Insert, "write"),
    "resize": (Resize, "write"),
    "delete": (Delete, "write"),
    "list": (List, "read"),
    "stat": (Stat, "read"),
    "get_attrs": (GetAttrs, "read"),
    "set_attrs": (SetAttrs, "write"),
    "delete_attrs": (DeleteAttrs, "write"),
    "flush": (Flush, "none"),
    "batch": (Batch, "write"),
    "follow": (Follow, "none"),
}
"""Arguments of every command, and what it does to the object at its path."""

ORIGINAL = frozenset(
    {
        *("create_group", "write", "update", "read", "delete", "append", "insert", "get_config"),
        *("list", "create_dataset"),  # which the original's readme promises
    }
)
"""Commands that are answered on a connection without hello."""
RESERVED = ("id", "selection", "selections", "stream", "max_bytes")
"""Keys that are an error there (B1): to leave one out would do something else than was meant."""
NEEDS = {
    "list": "list",
    "stat": "list",
    "create_dataset": "create",
    "resize": "resize",
    "flush": "flush",
    "get_attrs": "attrs",
    "set_attrs": "attrs",
    "delete_attrs": "attrs",
    "batch": "batch",
    "follow": "events",
}
"""Feature that a command belongs to."""
