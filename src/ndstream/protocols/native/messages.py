"""Everything that travels in the native protocol (SPEC.md).

Documents are msgpack or JSON, as the client accepts; bytes are base64 text in JSON. Bulk data stands outside of them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ndstream.core.dtypes import DType
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.operations import Operation

PROTOCOL = 1
"""Version of the protocol: a client refuses a higher one."""
MOST_READS = 4096
"""Selections in one request."""
LARGEST = 10**18 - 1
"""No number in a request is larger."""

MSGPACK = "application/x-msgpack"
JSON = "application/json"
PROBLEM = "application/problem+json"
BLOCKS = "application/x-ndstream"
CHUNKS = "application/x-ndstream-chunks"
NPY = "application/x-npy"
RAW = "application/octet-stream"
EVENTS = "text/event-stream"

COMMIT_HEADER = "ndstream-commit"
KEY_HEADER = "idempotency-key"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is and can (SPEC.md, "Capabilities").

    `features` names what a client may count on besides reading: ``stored-chunks``, ``write``, ``events``. `limits`
    gives those that a request can run into.
    """

    ndstream: str
    protocol: int
    features: tuple[str, ...] = ()
    limits: dict[str, int] = {}
    user: str | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is at a virtual path: exactly one of both is there (SPEC.md, "Tree")."""

    directory: Directory | None = None
    file: File | None = None
    writable: bool = False


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """An object of a file (SPEC.md, "Nodes").

    `generation` and `commit` say of which state of the file this is. `following` is the name to give as ``after``
    for the next members of a group that did not come whole; None when it did.
    """

    name: str
    node: Node
    generation: str
    commit: int = 0
    following: str | None = None


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """One selection of one dataset; `select` is text or a map (`ndstream.core.selection.plain`), None everything."""

    name: str
    select: Annotated[Any, msgspec.Meta(extra_json_schema={"type": ["string", "object", "null"]})] = None


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a request for data, 1 to `MOST_READS` selections: answered block after block, in this order."""

    reads: Annotated[tuple[Read, ...], msgspec.Meta(min_length=1, extra_json_schema={"maxItems": MOST_READS})]


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Header of data (SPEC.md, "Data").

    `nbytes` bytes follow, as `dtype` describes them; None when the type is of variable length and frames follow, each
    a list of elements.
    """

    dtype: DType
    shape: tuple[int, ...]
    nbytes: int | None


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """Data as a document; in msgpack `data` is bytes or elements, in JSON it is nested lists of plain values."""

    dtype: DType
    shape: tuple[int, ...]
    data: Any


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Header of stored chunks (SPEC.md, "Stored chunks").

    The index follows, `chunks` rows of three little-endian integers of 8 bytes, then `nbytes` bytes of chunks.
    """

    dataset: Dataset
    chunks: int
    nbytes: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Operations that are carried out together or not at all (SPEC.md, "Writing").

    In the data of payloads a `Place` may stand for bytes that follow the header.
    """

    operations: tuple[Operation, ...]
    create: bool = False


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes behind the header of a batch: `at` counts from the end of the header."""

    at: int
    nbytes: int


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error, as RFC 9457 has it; `code` is that of `ndstream.errors`."""

    title: str
    status: int
    detail: str
    code: str
    type: str = "about:blank"
