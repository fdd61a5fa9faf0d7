"""One look over a part of the served tree, as it is now, for one user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from ndstream.core.model import Directory, File
from ndstream.errors import TooLarge
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.media import MediaTypes
from ndstream.stores.hdf5.notes import NOTES, Notes
from ndstream.stores.hdf5.roots import Roots

#: Deepest directory that is served: keeps the walk within the stack, whatever was built on disk.
DEEPEST = 128
#: Bytes an entry takes in a listing besides its name, roughly.
_ENTRY = 256
_PATH_ONLY = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """Something visible in a directory; `status` is None for a directory, `real` has no link left in it."""

    name: str
    real: str
    status: os.stat_result | None


class Listing:
    """A walk, made for one answer and then dropped.

    Parameters
    ----------
    roots, media, notes
        What is served, and what is known about kinds of files and descriptions.
    hidden : frozenset of str
        Real directories that do not exist for the user.
    document : int, bytes
        Longest listing that is made.

    Notes
    -----
    Uses one descriptor at a time. A directory that is already on its own path, by a link, is not there again; one
    that several links lead to is walked once for a total.
    """

    def __init__(self, roots: Roots, media: MediaTypes, notes: Notes, hidden: frozenset[str], document: int) -> None:
        self._roots = roots
        self._media = media
        self._notes = notes
        self._hidden = hidden
        self._room = document

    def directory(self, virtual: str, real: str, above: frozenset[str], depth: int) -> Directory:
        """List the directory at the real path `real`, `depth` levels of directories below it expanded.

        `above` holds the real paths of the directories on the way from the root, this one included.

        Raises
        ------
        OSError
            It cannot be opened, or is no longer where it was.
        TooLarge
            The listing would be longer than a document may be.
        """
        entries = []
        for entry in self._entries(real):
            self._take(entry.name)
            entries.append(entry)
        entries.sort()
        prefix = f"{virtual}/" if virtual else ""
        files = {entry.name: self._file(prefix + entry.name, entry) for entry in entries if entry.status is not None}
        directories: dict[str, Directory | None] = {}
        size = sum(file.size for file in files.values())
        for entry in entries:
            if entry.status is not None or entry.real in above or prefix.count("/") >= DEEPEST:
                continue
            on_the_way = above | {entry.real}
            try:
                if depth > 0:
                    below = self.directory(prefix + entry.name, entry.real, on_the_way, depth - 1)
                    directories[entry.name], total = below, below.size
                else:
                    total = self.total(entry.real, above, prefix.count("/") + 1)
                    directories[entry.name] = None
            except OSError:  # not readable for us: not served
                continue
            size += total
        description, labels = self._notes.of(
            {entry.name: (entry.real, entry.status) for entry in entries if entry.name in NOTES and entry.status}
        )
        return Directory(
            path=virtual, size=size, files=files, directories=directories, description=description, labels=labels
        )

    def total(self, real: str, above: frozenset[str], level: int) -> int:
        """Bytes of all visible files in and below the directory at `real`, `level` levels below the root.

        Raises OSError as `directory` does.
        """
        return self._total(real, dict.fromkeys(above, 0), level)

    def _total(self, real: str, known: dict[str, int], level: int) -> int:
        known[real] = 0  # what a link back to here adds
        size = 0
        below = []
        for entry in self._entries(real):
            if entry.status is not None:
                size += entry.status.st_size
            else:
                below.append(entry.real)
        if level < DEEPEST:
            for path in below:
                if path not in known:
                    with suppress(OSError):
                        self._total(path, known, level + 1)
                size += known[path]
        known[real] = size
        return size

    def _file(self, virtual: str, entry: Entry) -> File:
        assert entry.status is not None
        return file_of(virtual, entry.real, entry.status, self._media)

    def _take(self, name: str) -> None:
        self._room -= len(name) + _ENTRY
        if self._room < 0:
            raise TooLarge("the listing is longer than a document may be (limit 'document'): ask for less depth")

    def _entries(self, real: str) -> Iterator[Entry]:
        """Regular files and directories in `real` that the user may see, in the order of the disk."""
        descriptor = os.open(real, _DIRECTORY)
        try:
            if real_path(descriptor) != real:  # a directory on the way was swapped since we confined it
                raise FileNotFoundError(real)
            prefix = real.rstrip("/") + "/"
            with os.scandir(descriptor) as scan:
                for entry in scan:
                    name = entry.name
                    if name.startswith(".") or not is_text(name):
                        continue
                    found = self._entry(entry, descriptor, prefix + name)
                    if found is not None:
                        yield found
        finally:
            os.close(descriptor)

    def _entry(self, entry: os.DirEntry[str], directory: int, real: str) -> Entry | None:
        try:
            if entry.is_symlink():
                return self._linked(entry.name, directory)
            if real in self._hidden:
                return None
            if entry.is_dir(follow_symlinks=False):
                return Entry(entry.name, real, None)
            status = entry.stat(follow_symlinks=False)
        except OSError:  # gone between the two calls, or not for us
            return None
        return Entry(entry.name, real, status) if stat.S_ISREG(status.st_mode) else None

    def _linked(self, name: str, directory: int) -> Entry | None:
        descriptor = os.open(name, _PATH_ONLY, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            real = real_path(descriptor)
        finally:
            os.close(descriptor)
        if not is_text(real) or not self._roots.admits(real, self._hidden):
            return None
        if stat.S_ISDIR(status.st_mode):
            return Entry(name, real, None)
        return Entry(name, real, status) if stat.S_ISREG(status.st_mode) else None


def file_of(virtual: str, real: str, status: os.stat_result, media: MediaTypes) -> File:
    """Describe the regular file at a virtual path."""
    return File(
        path=virtual,
        size=status.st_size,
        modified=status.st_mtime_ns,
        media_type=media.of(virtual, real, status),
        generation=generation_of(status),
    )


def real_path(descriptor: int) -> str:
    """Where the kernel says that an open file or directory is: no link is left in it."""
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  (hot path; a Path costs more than the call)


def is_text(name: str) -> bool:
    """Whether a name on disk is valid UTF-8 (Python spells other bytes as lone surrogates)."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
