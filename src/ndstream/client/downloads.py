"""Download whole files and directories to local files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from ndstream.client.connection import Connection, Download
from ndstream.client.progress import Watch, transfer
from ndstream.core.limits import MiB
from ndstream.core.model import File
from ndstream.errors import ConnectionLost, InvalidRequest, ProtocolError

PIECE = 1 * MiB


def download_file(
    connection: Connection, path: str, target: Path, *, expected: File | None, overwrite: bool = False
) -> Path:
    """Download a file, or a tar of a directory, so that `target` is there either completely or not at all.

    What arrives is kept in ``<target>.part``. When the connection is lost and the server can begin in the middle, the
    transfer goes on from there, as often as the limits of the connection allow.

    Parameters
    ----------
    connection, path
        Which file.
    target : Path
    expected : File or None
        What is known of the file: it must have this size, unless others have changed it since.
    overwrite : bool
        Whether a file that is there is replaced.

    Raises
    ------
    InvalidRequest
        `target` exists.
    ConnectionLost, ProtocolError, NDStreamError
        Nothing is left behind.
    """
    if target.exists() and not overwrite:
        raise InvalidRequest(f"{target} exists already")
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file, transfer(target.name, expected.size if expected else None) as watch:
            _fetch(connection, path, file, watch)
            size = file.tell()
            os.fsync(file.fileno())
        if expected is not None and size != expected.size and not _has_changed(connection, path, expected):
            raise ProtocolError(f"{connection.server}: /{path}: {size} bytes came of a file of {expected.size}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _fetch(connection: Connection, path: str, file: BinaryIO, watch: Watch | None) -> None:
    """Receive into `file`, beginning again where a lost connection left off."""
    etag = ""
    for attempt in range(connection.limits.retries + 1):
        with connection.download(path, file.tell(), etag) as download:
            etag = download.etag
            file.seek(download.start)
            file.truncate()
            try:
                _receive(download, file, watch)
            except ConnectionLost:
                if attempt == connection.limits.retries:
                    raise
                continue
        return


def _has_changed(connection: Connection, path: str, known: File) -> bool:
    now = connection.lookup(path)
    return not isinstance(now, File) or (now.size, now.modified) != (known.size, known.modified)


def _receive(download: Download, file: BinaryIO, watch: Watch | None) -> None:
    buffer = memoryview(bytearray(PIECE))
    if download.size is not None:
        left = download.size
        while left:
            piece = buffer[: min(left, PIECE)]
            download.body.read_into(piece, watch)
            file.write(piece)
            left -= len(piece)
        return
    while data := download.body.read_some(PIECE):
        file.write(data)
        if watch is not None:
            watch(len(data))
