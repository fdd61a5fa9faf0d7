"""What remote objects need of a server, whatever protocol it speaks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.operations import Committed, Event, Operation
from ndstream.core.selection import Selection
from ndstream.errors import Forbidden, InvalidRequest


class SliceSource(Protocol):
    """All that `RemoteDataset` reads data from: a connection, or anything in its place."""

    def request_slice(self, path: str, name: str, descriptor: Any) -> NDArray[Any]:
        """Read a slice into a new array; `descriptor` as in section 4.2 of the hdfstream specification."""
        ...

    def request_slice_into(self, path: str, name: str, descriptor: Any, dest: NDArray[Any]) -> None:
        """Read a slice into a C-contiguous array of its shape."""
        ...


class Body(Protocol):
    """Bytes on their way: read, then closed."""

    def read_some(self, most: int) -> bytes:
        """Read at most `most` bytes, b"" at the end."""
        ...

    def read_into(self, buffer: memoryview, watch: Callable[[int], None] | None = None) -> None:
        """Fill the buffer."""
        ...


class Download:
    """The bytes of a file, or a tar of a directory, on their way.

    Attributes
    ----------
    size : int or None
        Bytes that are still to come.
    start : int
        Position of the first one: that asked for, or 0 when the server cannot begin in the middle.
    media_type, charset, etag : str
        What the server says of them; empty when it says nothing.
    body : Body
    """

    def __init__(self, body: Body, *, size: int | None, start: int, media_type: str, charset: str, etag: str) -> None:
        self.body = body
        self.size = size
        self.start = start
        self.media_type = media_type
        self.charset = charset
        self.etag = etag


Reopen = Callable[[str, str | None], "Connection"]


class Connection(ABC):
    """Everything that can be asked of one server by one user. Safe to use from several threads.

    Pickles as the address of the server and the name of the user: never with a password, which the other process
    finds for itself.

    Parameters
    ----------
    server : str
        Base address, also what messages call the server.
    user : str or None
    reopen : callable
        Makes such a connection from `server` and `user`; must be a function of a module, so that it can be pickled.

    Attributes
    ----------
    converts : bool
        Whether `read` converts as data arrive, in bounded memory.
    """

    converts = False

    def __init__(self, server: str, user: str | None, reopen: Reopen, limits: Limits = DEFAULT_LIMITS) -> None:
        self.server = server
        self.user = user
        self.limits = limits
        self._reopen = reopen

    @abstractmethod
    def request_path(self, path: str) -> dict[str, Any]:
        """Describe the directory or file at a virtual path, in the words of the protocol."""

    @abstractmethod
    def lookup(self, path: str) -> Directory | File:
        """Describe the directory or file at a virtual path."""

    @abstractmethod
    def describe(self, path: str, name: str, *, max_depth: int, data_size_limit: int) -> Node:
        """Describe an object of a file, with members down to `max_depth` and data of at most `data_size_limit`."""

    @abstractmethod
    def read(
        self, path: str, name: str, selection: Selection, dest: NDArray[Any], described: Dataset | None = None
    ) -> None:
        """Read a selection into a C-contiguous array of its shape (axes of an array type last), converting values.

        What is known of the dataset may decide on how it is read.
        """

    def read_many(self, path: str, reads: Sequence[tuple[str, Selection, NDArray[Any]]]) -> None:
        """Read selections of several datasets of a file, given by name, each into its own array as `read` does."""
        for name, selection, dest in reads:
            self.read(path, name, selection, dest)

    @abstractmethod
    def request_slice(self, path: str, name: str, descriptor: Any) -> NDArray[Any]:
        """Read a slice into a new array; `descriptor` as in section 4.2 of the hdfstream specification."""

    @abstractmethod
    def request_slice_into(self, path: str, name: str, descriptor: Any, dest: NDArray[Any]) -> None:
        """Read a slice into a C-contiguous array of its shape, converting values where types differ."""

    @abstractmethod
    def download(self, path: str, start: int = 0, etag: str = "") -> AbstractContextManager[Download]:
        """Begin to read the bytes of a file, or a tar of a directory; from `start` if it still is what `etag` names."""

    def apply(
        self, path: str, operations: Sequence[Operation], *, condition: str | None = None, create: bool = False
    ) -> Committed:
        """Carry out operations on a file together, once, however often the connection is lost meanwhile.

        Raises
        ------
        Forbidden
            The protocol cannot write, or this user may not.
        Conflict, Exists, NotFound, StorageFull, InvalidRequest, InvalidSelection, UnsupportedDType
            Nothing was done.
        ConnectionLost, TimedOut
            It is not known whether it was done.
        """
        raise Forbidden(f"{self.server} cannot be written to in this protocol")

    def follow(self, path: str, since: int | str | None = None) -> Iterator[Event]:
        """Events of the commits of a file after number `since`, or after the state of that tag, as they happen.

        None stands for the state of this call.

        Raises
        ------
        InvalidRequest
            The protocol has no events.
        """
        raise InvalidRequest(f"{self.server} does not tell of changes in this protocol")

    def growth(self, path: str, name: str, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Follow what is appended to a dataset of a type along its first axis: arrays of new rows.

        Raises
        ------
        InvalidRequest
            The protocol has no events.
        """
        raise InvalidRequest(f"{self.server} does not tell of changes in this protocol")

    @abstractmethod
    def close(self) -> None:
        """Close idle network connections; the connection can still be used."""

    def __reduce__(self) -> tuple[Reopen, tuple[str, str | None]]:
        return self._reopen, (self.server, self.user)

    def __repr__(self) -> str:
        return f"<connection to {self.server}{f' as {self.user}' if self.user else ''}>"
