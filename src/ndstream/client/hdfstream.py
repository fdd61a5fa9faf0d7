"""Connections to hdfstream servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from ndstream.client.connection import Connection, Download, Reopen
from ndstream.client.credentials import Credentials
from ndstream.client.gathering import gather
from ndstream.client.progress import transfer
from ndstream.core.limits import Limits
from ndstream.core.model import Dataset, Directory, File, Node
from ndstream.core.selection import Selection
from ndstream.errors import ProtocolError
from ndstream.protocols.hdfstream.decode import decode_entry
from ndstream.protocols.hdfstream.flows import HDFStreamFlows
from ndstream.transports.http import Exchange, HTTPTransport

AGENT = "ndstream"


class HDFStreamConnection(Connection):
    """One server, one user. It begins with one request, for the root, which shows whether the user is let in.

    Parameters
    ----------
    server : str
        Base address of the endpoints.
    credentials : Credentials
    verify : bool or str
        See `ndstream.transports.http.HTTPTransport`.
    limits : Limits
    reopen : callable
        See `Connection`.

    Raises
    ------
    NotAuthenticated, TransportError, TimedOut, ServiceError
    """

    def __init__(
        self, server: str, credentials: Credentials, *, verify: bool | str, limits: Limits, reopen: Reopen
    ) -> None:
        super().__init__(server, credentials.user, reopen, limits)
        headers = {"User-Agent": AGENT} | credentials.headers()
        self._http = HTTPTransport(server, headers=headers, verify=verify, limits=limits)
        self._flows = HDFStreamFlows(server, limits)
        self._root: dict[str, Any] | None = self._http.drive(self._flows.root)

    def request_path(self, path: str) -> dict[str, Any]:
        """Document of the directory or file at a virtual path (specification section 3)."""
        if not path.strip("/") and self._root is not None:
            # What the first request brought; asked again, it is asked for again.
            root, self._root = self._root, None
            return root
        return self._http.drive(lambda: self._flows.document(path))

    def lookup(self, path: str) -> Directory | File:
        """Describe the directory or file at a virtual path."""
        document = self.request_path(path)
        try:
            return decode_entry(document, path)
        except ProtocolError as error:
            raise ProtocolError(f"{self.server}: {error}") from error

    def describe(self, path: str, name: str, *, max_depth: int, data_size_limit: int) -> Node:
        """Describe an object of a file."""
        return self._http.drive(
            lambda: self._flows.describe(path, name, max_depth=max_depth, data_size_limit=data_size_limit)
        )

    def read(
        self, path: str, name: str, selection: Selection, dest: NDArray[Any], described: Dataset | None = None
    ) -> None:
        """Read a selection, in as few slice requests as its form allows."""
        # Records are packed on the wire and seldom in the file.
        straight = dest.dtype.names is None
        with transfer(name, dest.nbytes):
            gather(self, path, name, selection, dest, straight=straight)

    def request_slice(self, path: str, name: str, descriptor: Any) -> NDArray[Any]:
        """Read a slice into a new array of the type that it has on the wire."""
        return self._http.drive(lambda: self._flows.slice(path, name, descriptor))

    def request_slice_into(self, path: str, name: str, descriptor: Any, dest: NDArray[Any]) -> None:
        """Read a slice into an array."""
        with transfer(name, dest.nbytes) as watch:
            self._http.drive(lambda: self._flows.slice_into(path, name, descriptor, dest), watch)

    @contextmanager
    def download(self, path: str, start: int = 0, etag: str = "") -> Iterator[Download]:
        """Begin to read the bytes of a file, or a tar of a directory."""
        with self._http.begin(lambda: self._flows.download(path, start, etag)) as exchange:
            yield _download(exchange, start)

    def close(self) -> None:
        """Close idle network connections."""
        self._http.close()


def _download(exchange: Exchange, start: int) -> Download:
    headers = exchange.head.headers
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    length = headers.get("content-length", "")
    return Download(
        exchange,
        size=int(length) if length.isdecimal() else None,
        start=start if exchange.head.status == 206 else 0,
        media_type=media_type.strip(),
        charset=_charset(parameters),
        etag=headers.get("etag", ""),
    )


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"')
    return ""
