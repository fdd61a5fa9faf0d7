"""What travels between the server and its worker processes.

Each message is a length (4 bytes, little-endian) and a msgpack map; the worker answers requests one by one, in
order. No pickles: a worker reads files that nobody vouches for, and what it says is decoded into these types only.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, TypeAlias

import msgspec

from ndstream.core.dtypes import item_size
from ndstream.core.model import Dataset, Node
from ndstream.core.operations import Change, Committed, Operation, Outcome
from ndstream.stores.hdf5.layout import Layout


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The object meant: `file` is the real path, confined by the catalog; `name` an absolute path inside the file.

    The worker opens `file` only as the very file that the catalog saw: its `generation` must match, else
    `Replaced`. `hidden` holds the virtual directories that do not exist for the user (external links, virtual and
    external storage must not lead there, nor out of the served roots).
    """

    file: str
    generation: str
    name: str
    hidden: frozenset[str] = frozenset()


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First message to a worker: the served roots (virtual prefix → real path) and what it may use."""

    roots: dict[str, str]
    open_files: int
    memory: int
    chunk_index: int
    links: int
    link_depth: int
    document: int


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag="describe"):
    """Ask for a description; see `ndstream.core.ports.Detail`."""

    target: Target
    depth: int
    wide: int
    data: int


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset as it was before it became longer along its first axis, and changed in no other way."""

    address: int
    shape: tuple[int, ...]


class Locate(msgspec.Struct, frozen=True, kw_only=True, tag="locate"):
    """Ask where the bytes of a dataset are; of one that is `known`, only of those that were added, if they are few."""

    target: Target
    known: Known | None = None


class Fetch(msgspec.Struct, frozen=True, kw_only=True, tag="fetch"):
    """Ask for elements that only the HDF5 library can read.

    The box `start`, `count`, `step` (one number per axis, step ≥ 1); `most` is the largest answer in bytes. `address`
    is that of the dataset that is meant (as in `Dataset`), should its name have gone to another one; None for any.
    """

    target: Target
    start: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]
    most: int
    address: int | None = None


class WritingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Those of `ndstream.core.limits.Limits` that an owner keeps."""

    chunk: int
    link_depth: int
    selections: int
    spool: int
    journal: int


class Take(msgspec.Struct, frozen=True, kw_only=True, tag="take"):
    """Ask an owner to take hold of a file for writing; the first request after the greeting.

    `number` is that of the last commit, if the server knows one; `descriptor` that of a file that the server has open.
    """

    target: Target
    descriptor: int
    create: bool
    number: int
    durability: Literal["fsync", "flush"]
    limits: WritingLimits


class Spooled(msgspec.Struct, frozen=True, kw_only=True):
    """Where the data of a payload is, in place of the data.

    In the file that server and owner share, or in one that the server has open as `descriptor`.
    """

    offset: int
    nbytes: int
    descriptor: int | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Operations that are carried out together or not at all."""

    operations: tuple[Operation, ...]
    condition: int | None = None
    key: str | None = None


class Apply(msgspec.Struct, frozen=True, kw_only=True, tag="apply"):
    """Ask to carry out batches in order, and to make what came of them durable; readers do not see it yet.

    With `publish`, it is put in place too, if that succeeds at once: nobody reads the file meanwhile.
    """

    target: Target
    batches: tuple[Batch, ...]
    publish: bool = False


class Publish(msgspec.Struct, frozen=True, kw_only=True, tag="publish"):
    """Ask to put what was applied in place. Nobody reads the file meanwhile."""

    target: Target


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """Ask to empty the journal, now that there is time for it, if it has more than `least` bytes."""

    target: Target
    least: int


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """Have an owner let go of its file, and end. One whose server is gone without a word leaves its journal."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The worker has loaded the HDF5 library; which filters it can undo, by number."""

    filters: tuple[int, ...]


class Described(msgspec.Struct, frozen=True, kw_only=True, tag="described"):
    """Answer to `Describe`; `lasting` is False when it depends on other files too, and must not be kept."""

    node: Node
    lasting: bool


class Located(msgspec.Struct, frozen=True, kw_only=True, tag="located", dict=True):
    """Answer to `Locate`: a brief description, the layout, and the file that it is in.

    `file` and `generation` differ from those of the target when an external link was followed. Above zero, `since` says
    that the layout lists the chunks from this number on: those before are where they were. `lasting` is False when it
    depends on files other than these two, or on other datasets, and must not be kept.
    """

    dataset: Dataset
    layout: Layout
    file: str
    generation: str
    since: int = 0
    lasting: bool = True

    @cached_property
    def itemsize(self) -> int | None:
        """Bytes of an element; None when the type is not fixed. Looked up once: many reads begin with it."""
        return item_size(self.dataset.dtype)


class Fetched(msgspec.Struct, frozen=True, kw_only=True, tag="fetched"):
    """Answer to `Fetch`: C-order bytes for a fixed type, else a flat list of elements."""

    data: bytes | list[Any]


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """Answer to `Take`: the number of the last commit, and what keys are remembered of the journal.

    With `reaches`, the owner can open what the server has open.
    """

    number: int
    keys: dict[str, Committed]
    reaches: bool


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A batch was carried out, as commit `number`."""

    number: int
    outcomes: tuple[Outcome, ...]
    changes: tuple[Change, ...]


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A batch was not carried out; `code` names the class in `ndstream.errors`."""

    code: str
    message: str


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """Answer to `Apply`: what came of the first batches; those that are left are to be sent again.

    `rewritten` and `grown` hold the addresses (as in `Dataset`) of datasets of which something changed that was there
    before, and of those that only became longer; `links`, whether names lead elsewhere; `everything`, whether data may
    be anywhere; `published`, whether readers see it now.
    """

    results: tuple[Done | Refused, ...]
    rewritten: tuple[int, ...]
    grown: tuple[int, ...]
    links: bool
    everything: bool
    published: bool = False


class Published(msgspec.Struct, frozen=True, kw_only=True, tag="published"):
    """Answer to `Publish` and `Checkpoint`: it is done."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The request failed; `code` names the class in `ndstream.errors`.

    `left` is the real path of a file that is to be put in order first (`ndstream.stores.hdf5.recovery.LeftBehind`).
    """

    code: str
    message: str
    left: str = ""


Request: TypeAlias = Hello | Describe | Locate | Fetch | Take | Apply | Publish | Checkpoint | Release
Reply: TypeAlias = Ready | Described | Located | Fetched | Taken | Applied | Published | Failed

#: Bytes of any message: what its head can say.
_LONGEST = (1 << 32) - 1


def longest_reply(request: Request, document: int) -> int:
    """Bytes that the reply to a request may have at most, when descriptions may have `document`.

    The worker keeps to it; the server does not take its word for that, since what it reads may have taken it over.
    """
    if isinstance(request, Take | Apply):  # what is decided has to be told, be it of a hundred thousand operations
        return _LONGEST
    # Elements of variable length are counted roughly, and every message has a head.
    return (max(document, 2 * request.most) if isinstance(request, Fetch) else document) + (1 << 16)
