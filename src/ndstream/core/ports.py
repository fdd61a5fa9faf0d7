"""Contracts between the layers: what a store offers, what a protocol plugs into, who is asking.

These know only the data model. Stores implement them, protocols use them, neither knows the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ndstream.core.counters import Counters
from ndstream.core.dtypes import DType
from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.operations import Committed, Event, Operation, State
from ndstream.core.selection import Selection


@dataclass(frozen=True, slots=True)
class Access:
    """Who is asking, and which virtual directories do not exist for them.

    `key` is what limits are counted by: the user name, or the address of somebody anonymous. `hidden` holds virtual
    paths (no leading slash; "" is the root) of directories that, with all below them, are not there for this user;
    `writable` those where this user may write, with all below them.
    """

    user: str | None = None
    key: str = ""
    hidden: frozenset[str] = frozenset()
    writable: frozenset[str] = frozenset()

    def sees(self, path: str) -> bool:
        """Whether the virtual path, of a file or a directory, exists for this user."""
        return not self.hidden or not _below(path, self.hidden)

    def writes(self, path: str) -> bool:
        """Whether this user may write to the file, or make files in the directory, at the virtual path."""
        return bool(self.writable) and _below(path, self.writable) and self.sees(path)


def _below(path: str, directories: frozenset[str]) -> bool:
    while path and path not in directories:
        path = path.rpartition("/")[0]
    return path in directories


ANYBODY = Access()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How much a description should hold.

    The named object is always described. Members of a group at distance `depth` or less are described too, if the
    group is the named one or has at most `wide` links; datasets and links met on the way always are. Data of a
    dataset comes along when it takes at most `data` bytes (and at most `Limits.inline_data`).
    """

    depth: int = 0
    wide: int = 20
    data: int = 0


class Reading(Protocol):
    """An array on its way out of a store: checked and ready, nothing sent yet.

    Iterate once, over `buffers` for a fixed type, over `elements` otherwise. When iteration fails half way, what came
    before must not be taken for the whole.
    """

    @property
    def dtype(self) -> DType:
        """Element type of what comes."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result, without the axes that integers dropped."""
        ...

    @property
    def nbytes(self) -> int | None:
        """Length of all buffers together; None when the type is of variable length."""
        ...

    @property
    def ready(self) -> memoryview | None:
        """The whole as one buffer, when it was small and at hand."""
        ...

    @property
    def elsewhere(self) -> bool:
        """Whether other files have a part in it, so that the state of the file that was asked does not tell of it."""
        ...

    def buffers(self) -> AsyncIterator[memoryview]:
        """Elements as bytes in C order, in pieces of whole elements, each valid until its last reference is dropped."""
        ...

    def elements(self) -> AsyncIterator[list[Any]]:
        """Elements of variable length in C order, in lists (see `ndstream.core.elements`)."""
        ...

    async def aclose(self) -> None:
        """Give back what the reading holds; safe to call at any time, more than once."""
        ...


class Lent:
    """Bytes of a file that is mapped: for the kernel to send, and for nobody to look at.

    Whoever reads them in this process dies with SIGBUS if the file is cut short meanwhile; the kernel only fails
    (EFAULT), and the connection ends. They are what they were when they were asked for once the kernel has them all.
    """

    __slots__ = ("_view",)

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view)

    def __getitem__(self, part: slice) -> Lent:
        return Lent(self._view[part])

    @property
    def for_kernel(self) -> memoryview:
        """To be handed to a system call as it is."""
        return self._view


@runtime_checkable
class Lending(Protocol):
    """What a `Reading` or `StoredReading` may offer besides, to who only hands buffers on to the kernel."""

    def lend(self) -> AsyncIterator[memoryview | Lent]:
        """Give what `buffers` gives, some of it without reading it: in its place in the page cache.

        The next piece may be asked for only when the kernel has all of a `Lent` one: then the file is looked at again,
        and iteration fails when it was written to meanwhile. The last piece is never lent.
        """
        ...


def lent_or_read(reading: Reading | StoredReading, *, borrows: bool) -> AsyncIterator[memoryview | Lent]:
    """Iterate over a reading, which may lend what it gives to who `borrows`."""
    return reading.lend() if borrows and isinstance(reading, Lending) else reading.buffers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The bytes of a file, to be read from `descriptor`; `file` says what it is.

    Whoever passes them on awaits `check` after reading and before passing on: it raises `Replaced` unless all that was
    read from the beginning is of the state in which the file was opened.
    """

    file: File
    descriptor: int
    check: Callable[[], Awaitable[None]]


class Store(Protocol):
    """A tree of files with arrays in them.

    Every method raises `NotFound` for what does not exist or must not be seen, `DataError` or `ServiceError` when
    what exists cannot be read, and has no other effect.
    """

    async def lookup(self, path: str, access: Access, *, depth: int = 0) -> Directory | File:
        """Describe the directory or file at a virtual path; `depth` levels of sub-directories are expanded."""
        ...

    async def describe(self, path: str, name: str, access: Access, detail: Detail) -> Node:
        """Describe an object of an HDF5 file, soft and external links followed."""
        ...

    async def read(
        self, path: str, name: str, access: Access, selection: Selection | Callable[[tuple[int, ...]], Selection] | None
    ) -> Reading:
        """Prepare to read a part of a dataset; None means all of it.

        A function in place of the selection is called with the shape, for callers that must see it first. Fixed
        types come as the file stores them (byte order, gaps between members and all); `wire.recast` converts.

        Raises
        ------
        NotFound
            There is no such object, or it is not a dataset.
        InvalidSelection, OutOfBounds
            Before anything is read.
        UnsupportedDType
            When there is no way to read the type.
        """
        ...

    async def open(self, path: str, access: Access) -> Opened:
        """Open the bytes of a file; the caller must close the descriptor."""
        ...

    async def start(self) -> None:
        """Get ready, in the background; the first request does it too, only later."""
        ...

    async def aclose(self) -> None:
        """End workers, close files."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How files are written to.

    `durability` says when a commit is acknowledged: "fsync", when it would outlive a crash of the machine; "flush",
    when it would outlive a crash of the server.
    """

    durability: Literal["fsync", "flush"] = "fsync"


@runtime_checkable
class Prompt(Protocol):
    """What a `Store` may offer besides: small reads that take no waiting, without a step of the event loop."""

    def read_at_hand(
        self, path: str, name: str, access: Access, selection: Selection | Callable[[tuple[int, ...]], Selection] | None
    ) -> Reading | None:
        """Read at once what `Store.read` would; None when that takes waiting, and whenever it is not sure.

        Raises
        ------
        NotFound, InvalidSelection, OutOfBounds
        """
        ...


@runtime_checkable
class StoredChunks(Protocol):
    """What a `Store` may offer besides: chunks as they are stored, for clients that decode them."""

    async def stored(
        self, path: str, name: str, access: Access, selection: Selection | Callable[[tuple[int, ...]], Selection] | None
    ) -> StoredReading:
        """Prepare to read, undecoded, every chunk that the selection touches.

        Raises
        ------
        UnsupportedDType
            The dataset is not stored in chunks, or not in such as can be decoded without the HDF5 library.
        """
        ...


class StoredReading(Protocol):
    """Stored chunks on their way out of a store; checked and ready, nothing sent yet. Iterate once."""

    @property
    def dataset(self) -> Dataset:
        """Description without attributes: type, shape, chunks, filters, fill value."""
        ...

    @property
    def index(self) -> NDArray[np.uint64]:
        """One row per chunk, ascending: number in the C order of the grid, bytes stored, filters skipped (mask).

        A chunk that was never written is not listed: it holds the fill value.
        """
        ...

    @property
    def nbytes(self) -> int:
        """Length of all buffers together: the sum of the second column."""
        ...

    def buffers(self) -> AsyncIterator[memoryview]:
        """The chunks one behind the other, in pieces, each valid until its last reference is dropped."""
        ...

    async def aclose(self) -> None:
        """Give back what the reading holds; safe to call at any time, more than once."""
        ...


@runtime_checkable
class WritableStore(Protocol):
    """What a `Store` may offer besides: changing files, in commits.

    Every commit of a file has a number, one higher than the one before it. All reads of a dataset that start after a
    commit was acknowledged see it; a read under way sees the dataset as of one commit, or fails with `Replaced`.
    """

    async def state(self, path: str, access: Access) -> State:
        """State that a file is in; its commit is 0 while nobody has written to it through this store yet.

        What another program does to a file, once the store knows it, counts as a commit.

        Raises
        ------
        NotFound
            There is no such file.
        """
        ...

    def steady(self, path: str, access: Access) -> AbstractAsyncContextManager[None]:
        """Keep commits waiting while several readings are opened, which are to be of the same state.

        Not for long: whoever does so takes care of that.
        """
        ...

    async def apply(
        self,
        path: str,
        access: Access,
        operations: Sequence[Operation],
        *,
        condition: int | str | None = None,
        key: str | None = None,
        create: bool = False,
    ) -> Committed:
        """Carry out operations together or not at all, and return when they are durable.

        Parameters
        ----------
        condition : int or str, optional
            Number that the last commit must have, or tag of the state that the file must be in (``If-Match``). What
            was committed under the same `key` already is not held to it again.
        key : str, optional
            Name of this batch, chosen by the client: sent again under the same key (as long as it is remembered) it
            is not carried out again, and answered with what came of it.
        create : bool
            Make the file if there is none.

        Raises
        ------
        Forbidden
            `Access.writes` says no, or the store serves read-only.
        Conflict
            The condition does not hold.
        Exists, NotFound, InvalidRequest, InvalidSelection, UnsupportedDType
            An operation cannot be carried out; the message says which. None was.
        StorageFull, DataError
            The disk said no; everything is as it was.
        """
        ...

    def follow(self, path: str, access: Access, *, since: int | str | None = None) -> AsyncIterator[Event]:
        """Events of the commits after number `since`, or after the state of that tag, as they happen.

        None stands for the state of this call. Commits that are not remembered any more, or lie between here and a
        state that is not known, come as one event that is not complete. Ends with `NotFound` when the file is gone.
        """
        ...


class StoreFactory(Protocol):
    """Makes a store of what is served; found by name in the registry (entry points ``ndstream.stores``)."""

    def __call__(
        self,
        roots: Mapping[str, Path],
        *,
        limits: Limits = DEFAULT_LIMITS,
        counters: Counters | None = None,
        media_types: Mapping[str, str] | None = None,
        writing: Writing | None = None,
    ) -> Store:
        """Serve `roots`: a name to a directory or file, or "" to the directory whose content is the root.

        Without `writing` nothing is ever written.

        `media_types` goes before what the suffix of a file says: a file name pattern, or with a slash a pattern of
        the whole virtual path, to a media type.

        Raises
        ------
        ConfigError
            A root does not exist, or its name cannot be a name in a path.
        """
        ...


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the server hands to a protocol that it serves."""

    store: Store
    limits: Limits = DEFAULT_LIMITS
    counters: Counters = field(default_factory=Counters)


class ProtocolPlugin(Protocol):
    """A wire protocol over HTTP, found by name in the registry (entry points ``ndstream.protocols``).

    `app` answers requests below `prefix`. It finds the `Access` of the request in ``scope["ndstream.access"]``,
    and the path below the prefix in ``scope["path"]`` after ``scope["root_path"]``, as ASGI has it.
    """

    name: str
    prefix: str

    def app(self, service: Service) -> ASGIApp:
        """Build the application; called once when the server starts."""
        ...


class Admission(Protocol):
    """Who is let in over a connection that is not HTTP."""

    @property
    def required(self) -> bool:
        """Whether nobody is let in who does not say who they are."""
        ...

    def anonymous(self, address: str) -> Access:
        """Access of somebody at `address` who has not said who they are."""
        ...

    async def check(self, secret: str, user: str | None, address: str) -> Access:
        """Access for a token, or for the password of a user.

        Raises
        ------
        NotAuthenticated
            It is wrong.
        Busy
            Too many wait for theirs to be checked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What of the served tree a protocol over its own port gives, and to whom: the one HDF5 file at `path`."""

    path: str
    admission: Admission


class StreamApp(Protocol):
    """A protocol over its own TCP port, at work; all methods are called in the event loop of the server."""

    def connection(self) -> Any:
        """Make the asyncio protocol (`asyncio.BufferedProtocol`) of a connection that was accepted."""
        ...

    def check(self, now: float) -> None:
        """Look at every connection, about once a second; `now` is the time of the event loop."""
        ...

    async def drain(self, seconds: float) -> None:
        """Take no more requests, let those under way end for so long, then close every connection."""
        ...


class StreamPlugin(Protocol):
    """A wire protocol over its own TCP port, found by name in the registry (entry points ``ndstream.streams``).

    Its settings are the section of its name in the configuration (`ndstream.config.StreamSettings`).
    """

    name: str

    def app(self, service: Service, exposure: Exposure) -> StreamApp:
        """Build the application; called once when the server starts."""
        ...


@runtime_checkable
class FailureForm(Protocol):
    """What a `ProtocolPlugin` may have besides: the form of its errors, for those that the server has to answer."""

    def failure(self, status: int, text: str) -> tuple[str, bytes]:
        """Media type and body of an error answer."""
        ...


@runtime_checkable
class Sockets(Protocol):
    """What a `ProtocolPlugin` may have besides: WebSockets below its prefix; others are refused with 404."""

    def sockets(self, service: Service) -> ASGIApp:
        """Build the application for them; called once when the server starts.

        Its scope is that of ASGI's ``websocket``, and has what a request has: ``method`` (GET) and the additions of the
        server. Until it accepts the socket it may answer as to a request, which refuses it.
        """
        ...


@runtime_checkable
class SelfDescribing(Protocol):
    """What a `ProtocolPlugin` may have besides: a description of itself for programs, served at ``/openapi.json``."""

    def openapi(self) -> bytes:
        """Encode the OpenAPI document, JSON."""
        ...


@runtime_checkable
class Starting(Protocol):
    """What a `Store` may have besides: work to do before the first request comes."""

    async def start(self) -> None:
        """Begin; what takes long goes on after this returns."""
        ...


@runtime_checkable
class Holding(Protocol):
    """What a `WritableStore` may have besides: keeping others from writing a file before it is written itself."""

    async def hold(self, path: str, access: Access) -> None:
        """Take hold of a file.

        Raises
        ------
        Forbidden, NotFound
        FileInUse
            Another program writes it.
        """
        ...

    async def release(self, path: str, access: Access) -> None:
        """Let go of it, now rather than after a while: it is whole, and free for others.

        Raises
        ------
        NotFound
        """
        ...


@runtime_checkable
class HealthCheck(Protocol):
    """What a `Store` may have besides: how it is."""

    def problem(self) -> str | None:
        """Why requests would fail now; None when all is well. Looks, waits for nothing."""
        ...
