"""What travels between the server and its worker processes.

Each message is a length (4 bytes, little-endian) and a msgpack map; the worker answers requests one by one, in
order. No pickles: a worker reads files that nobody vouches for, and what it says is decoded into these types only.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from ndstream.core.model import Dataset, Node
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


class Locate(msgspec.Struct, frozen=True, kw_only=True, tag="locate"):
    """Ask where the bytes of a dataset are."""

    target: Target


class Fetch(msgspec.Struct, frozen=True, kw_only=True, tag="fetch"):
    """Ask for elements that only the HDF5 library can read.

    The box `start`, `count`, `step` (one number per axis, step ≥ 1); `most` is the largest answer in bytes.
    """

    target: Target
    start: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]
    most: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The worker has loaded the HDF5 library; which filters it can undo, by number."""

    filters: tuple[int, ...]


class Described(msgspec.Struct, frozen=True, kw_only=True, tag="described"):
    """Answer to `Describe`; `lasting` is False when it depends on other files too, and must not be kept."""

    node: Node
    lasting: bool


class Located(msgspec.Struct, frozen=True, kw_only=True, tag="located"):
    """Answer to `Locate`: the description without attributes, the layout, and the file that it is in.

    `file` and `generation` differ from those of the target when an external link was followed.
    """

    dataset: Dataset
    layout: Layout
    file: str
    generation: str


class Fetched(msgspec.Struct, frozen=True, kw_only=True, tag="fetched"):
    """Answer to `Fetch`: C-order bytes for a fixed type, else a flat list of elements."""

    data: bytes | list[Any]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The request failed; `code` names the class in `ndstream.errors`."""

    code: str
    message: str


Request: TypeAlias = Hello | Describe | Locate | Fetch
Reply: TypeAlias = Ready | Described | Located | Fetched | Failed


def longest_reply(request: Request, document: int) -> int:
    """Bytes that the reply to a request may have at most, when descriptions may have `document`.

    The worker keeps to it; the server does not take its word for that, since what it reads may have taken it over.
    """
    # Elements of variable length are counted roughly, and every message has a head.
    return (max(document, 2 * request.most) if isinstance(request, Fetch) else document) + (1 << 16)
