"""What can be done to a file: operations, what came of them, and what others are told.

Operations are values. A batch of them is carried out together or not at all, in order, each seeing what those before
it did. Names are absolute paths inside the file; parents that are missing are made as groups. A soft link on the way is
followed, an external link never is (`Forbidden`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from ndstream.core.dtypes import DType
from ndstream.core.model import Filter


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """Elements on their way into a file.

    `data` holds them in C order: bytes (any contiguous buffer) exactly as `dtype` describes them when the type is
    fixed, else a flat list (`ndstream.core.elements`). `shape` is None for a null dataspace. The data may be of
    another type than the dataset that takes it, as long as `ndstream.core.casting` casts it.
    """

    dtype: DType
    shape: tuple[int, ...] | None
    data: Any


class CreateGroup(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="create_group"):
    """Make a group; with `exist_ok` one that is there already is fine."""

    name: str
    exist_ok: bool = False


class CreateDataset(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="create_dataset"):
    """Make a dataset.

    `chunks` is None for contiguous storage, True to have a shape chosen; filters, and axes that may grow, imply True.
    `fill` is one element as stored. With `exist_ok` a dataset of the same type and shape is left as it is.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...] | None
    maxshape: tuple[int | None, ...] | None = None
    chunks: tuple[int, ...] | bool | None = None
    filters: tuple[Filter, ...] = ()
    fill: bytes | None = None
    data: Payload | None = None
    exist_ok: bool = False


class Write(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="write"):
    """Write a selection of a dataset.

    `selection` is as `ndstream.core.selection.to_plain` gives it, None for everything; `data` has its shape, or one
    that numpy broadcasts to it. Where an element is selected twice the last one stays.
    """

    name: str
    data: Payload
    selection: Any = None


class WriteChunk(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="write_chunk"):
    """Store one chunk of a dataset as it is given, past the filters.

    `start` is the index of its first element, along each axis a multiple of the length of the chunks. `data` are bytes
    (uint8, one axis): what the filters make of a whole chunk, those aside that `mask` has a bit for, n for the n-th.
    Where none is left the bytes are the elements; others are not looked at until somebody reads them. A dataset that
    does not reach so far becomes longer along its first axis, as far as it may.
    """

    name: str
    start: tuple[int, ...]
    data: Payload
    mask: int = 0


class Append(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="append"):
    """Make a dataset longer along `axis` and write the new part; the outcome says where it landed.

    With `key`, the name of a field: rows whose key is there already (`ndstream.core.keys`) replace those rows, the
    others are appended; of equal keys in the data the last one counts.
    """

    name: str
    data: Payload
    axis: int = 0
    key: str | None = None


class Insert(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="insert"):
    """Insert before `index` along `axis`; what is behind moves on. 0 ≤ index ≤ length."""

    name: str
    index: int
    data: Payload
    axis: int = 0


class Resize(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="resize"):
    """Give a chunked dataset another shape within its maxshape; what is cut off is lost."""

    name: str
    shape: tuple[int, ...]


class Delete(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="delete"):
    """Remove a link; the object goes with its last one. With `missing_ok` nothing need be there."""

    name: str
    missing_ok: bool = False


class Move(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="move"):
    """Give a link another name; the new name must be free."""

    name: str
    target: str


class Copy(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="copy"):
    """Copy an object with all that is below it; the new name must be free."""

    name: str
    target: str


class Link(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="link"):
    """Make a link called `name`: soft, to any path, or hard, to an object of this file."""

    name: str
    target: str
    kind: Literal["soft", "hard"] = "soft"


class SetAttributes(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="set_attributes"):
    """Set attributes of an object; those of the same name are replaced, whatever their type."""

    name: str
    values: dict[str, Payload]


class DeleteAttributes(msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", tag="delete_attributes"):
    """Remove attributes of an object; with `missing_ok` they need not be there."""

    name: str
    names: tuple[str, ...]
    missing_ok: bool = False


Operation: TypeAlias = (
    CreateGroup
    | CreateDataset
    | Write
    | WriteChunk
    | Append
    | Insert
    | Resize
    | Delete
    | Move
    | Copy
    | Link
    | SetAttributes
    | DeleteAttributes
)


def with_payloads(operation: Operation, change: Callable[[Payload], Payload]) -> Operation:
    """Make the same operation with other payloads: what `change` gives for each of its own."""
    if isinstance(operation, SetAttributes):
        values = {name: change(payload) for name, payload in operation.values.items()}
        return msgspec.structs.replace(operation, values=values)
    data = getattr(operation, "data", None)
    if isinstance(data, Payload):
        payload = change(data)
        return operation if payload is data else msgspec.structs.replace(operation, data=payload)
    assert data is None or isinstance(operation, CreateDataset)
    return operation


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one operation.

    `shape` is the shape of the dataset now; `start` the index along the axis where an append or insert landed;
    `replaced` the rows that an append with a key replaced; `done` is False when nothing had to be done.
    """

    shape: tuple[int, ...] | None = None
    start: int | None = None
    replaced: int = 0
    done: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """One state of a file: what it is called, and the number of the commit that made it.

    Numbers begin again with every server, and stand for a state only together with the generation: `tag` has both. Two
    states with the same tag have the same content.
    """

    generation: str
    commit: int

    @property
    def tag(self) -> str:
        """Entity tag, without quotes."""
        return f"{self.generation}.{self.commit}"


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """A batch is in the file for good: the number of its commit, and one outcome per operation.

    `repeated` tells that the batch had been committed before, under the same operation id. `tag` names the state that
    it made; empty for one of an earlier server, which is not known by that name any more.
    """

    number: int
    outcomes: tuple[Outcome, ...]
    repeated: bool = False
    tag: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a commit did to one object.

    `name` is the one that was used, which need not be the only one that the object has. `address`, of a dataset, is
    that of its description (`ndstream.core.model.Dataset`), whatever it was called; 0 when it is not told. `appended`
    gives (start, stop) along `axis` when rows were added and nothing else changed. What was deleted and made again is
    listed twice, in that order.
    """

    name: str
    kind: Literal["created", "written", "appended", "resized", "deleted", "attributes", "links"]
    shape: tuple[int, ...] | None = None
    axis: int = 0
    appended: tuple[int, int] | None = None
    address: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One commit, as followers are told of it.

    A `complete` event lists every change. One that is not stands for changes that nobody recorded (another program
    wrote, or events were lost): what is known of the file should be looked up again. `tag` names the state that the
    commit made.
    """

    number: int
    changes: tuple[Change, ...]
    complete: bool = True
    tag: str = ""
