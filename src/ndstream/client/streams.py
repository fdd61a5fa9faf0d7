"""Remote files as Python file objects."""

from __future__ import annotations

import codecs
import io
from contextlib import AbstractContextManager
from typing import IO, Any

from ndstream.client.connection import Connection, Download
from ndstream.core.limits import MiB
from ndstream.errors import InvalidRequest

BUFFER = 1 * MiB


class DownloadStream(io.RawIOBase):
    """The bytes of a remote file, in order; closing it in the middle ends the transfer."""

    def __init__(self, opened: AbstractContextManager[Download]) -> None:
        super().__init__()
        self._opened = opened
        self.download = opened.__enter__()
        self._complete = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; 0 at the end.

        Raises
        ------
        ConnectionLost
            The transfer ended before the file did.
        """
        if self.closed:
            raise ValueError("the stream is closed")
        view = memoryview(buffer).cast("B")
        data = self.download.body.read_some(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """End the transfer."""
        if not self.closed:
            super().close()
            self._opened.__exit__(None, None, None)


def open_stream(connection: Connection, path: str, mode: str) -> IO[Any]:
    """Open a remote file as a stream of bytes (``"rb"``) or of text (``"r"``), in the character set it is sent with.

    Raises
    ------
    InvalidRequest
        Another mode.
    NDStreamError
    """
    if mode not in ("r", "rt", "rb"):
        raise InvalidRequest(f"remote files are opened with mode 'r' or 'rb', not {mode!r}")
    raw = DownloadStream(connection.download(path))
    buffered = io.BufferedReader(raw, BUFFER)
    if mode == "rb":
        return buffered
    return io.TextIOWrapper(buffered, encoding=_known(raw.download.charset))


def _known(charset: str) -> str:
    try:
        return codecs.lookup(charset).name if charset else "utf-8"
    except LookupError:
        return "utf-8"
