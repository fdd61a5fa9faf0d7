"""The virtual tree over the served directories and files: what is where, and that no path leaves it.

A path is confined by what the kernel opened, not by what its text says: the path is opened without reading
(``O_PATH``), the descriptor is asked where it really is, and only what lies in a root, and in nothing that is hidden
from the user, exists. What is then read is opened from that descriptor, or compared with it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic

from ndstream.core.limits import DEFAULT_LIMITS, Limits, MiB
from ndstream.core.model import HDF5_MEDIA_TYPE, Directory, File
from ndstream.core.ports import ANYBODY, Access
from ndstream.errors import Busy, ConfigError, DataError, InvalidRequest, NDStreamError, NotFound
from ndstream.stores.hdf5.cache import ByteCache
from ndstream.stores.hdf5.generation import generation_of, is_unwritten
from ndstream.stores.hdf5.listing import DEEPEST, Listing, file_of, is_text, real_path
from ndstream.stores.hdf5.media import MediaTypes
from ndstream.stores.hdf5.notes import Notes
from ndstream.stores.hdf5.roots import Roots

#: Seconds for which an unchanged file stays confined: after that its path is followed again from the root.
TRUST = 1.0
_LOOKS = 16  # at a path whose file is replaced all the time
_CACHE = 4 * MiB
_CACHE_ENTRY = 1024  # bytes of one entry with its paths and status, roughly
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM})
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True)
class Found:
    """A regular file, confined: its real path, and which state of it was there."""

    real: str
    status: os.stat_result

    @cached_property
    def generation(self) -> str:
        """Name of that state."""
        return generation_of(self.status)


@dataclass(frozen=True, slots=True)
class _Trusted:
    place: str
    found: Found
    until: float


class Catalog:
    """The served tree.

    Parameters
    ----------
    roots : mapping of str to Path
        As in `ndstream.core.ports.StoreFactory`; links in them are followed now, once.
    limits
        `path_length` and `document` apply.
    media_types
        Overrides, see `ndstream.stores.hdf5.media.MediaTypes`.

    Attributes
    ----------
    holds : callable
        Given a real path and a status: whether this very file is held open, because it is being written.

    Raises
    ------
    ConfigError
        A root does not exist, is neither directory nor file, or its name cannot be a name in a path.

    Notes
    -----
    All methods are synchronous and safe to call from several threads. `lookup` of a directory walks what is below it:
    not for the thread of an event loop. `locate_file` costs one ``stat`` for a file that was asked for before.
    """

    def __init__(
        self,
        roots: Mapping[str, Path],
        *,
        limits: Limits = DEFAULT_LIMITS,
        media_types: Mapping[str, str] | None = None,
    ) -> None:
        self.roots = Roots({name: _real_root(name, path, len(roots)) for name, path in roots.items()})
        self._limits = limits
        self._media = MediaTypes(media_types)
        self._notes = Notes()
        self.holds: Callable[[str, os.stat_result], bool] = lambda real, status: False
        self._trusted: ByteCache[tuple[str, frozenset[str]], _Trusted] = ByteCache(_CACHE)

    def lookup(self, path: str, access: Access = ANYBODY, depth: int = 0) -> Directory | File:
        """Describe what is at a virtual path, as it is now; see `ndstream.core.ports.Store.lookup`.

        Raises
        ------
        NotFound
            Nothing is there, or nothing that this user may know of.
        TooLarge
            The listing would be longer than a document may be.
        """
        file = self.file(path, access)
        if file is not None:
            return file
        hidden = self._check(path, access)
        if not path and "" not in self.roots.paths:
            return self._top(hidden, depth)
        real, _ = self._find(path, hidden)
        try:
            return self._listing(hidden).directory(path, real, self._above(path), depth)
        except OSError as error:
            raise _translated(error, path) from None

    def file(self, path: str, access: Access = ANYBODY) -> File | None:
        """Describe the file at a virtual path as `lookup` does; None when it is a directory. Takes no time.

        Raises
        ------
        NotFound
            As `lookup`.
        """
        hidden = self._check(path, access)
        if not path:
            return None
        real, status = self._find(path, hidden)
        if stat.S_ISREG(status.st_mode):
            return file_of(path, real, status, self._media)
        if not stat.S_ISDIR(status.st_mode):
            raise _not_found(path)
        return None

    def locate_file(self, path: str, access: Access = ANYBODY) -> Found:
        """Find the regular file at a virtual path, and its state now.

        Raises
        ------
        NotFound
            Nothing is there, or no regular file, or nothing that this user may know of.
        """
        key = (path, access.hidden)
        trusted = self._trusted.get(key)
        if trusted is not None and (still := self._still(trusted)) is not None:
            return still
        real, status = self._find(path, self._check(path, access))
        if not stat.S_ISREG(status.st_mode):
            raise _not_found(path)
        found = Found(real, status)
        self._trusted.put(key, _Trusted(self._place(path), found, monotonic() + TRUST), _CACHE_ENTRY)
        return found

    def locate_new_file(self, path: str, access: Access = ANYBODY) -> str:
        """Find the real path that a file to be made at a virtual path will have; its directory must be there.

        Raises
        ------
        NotFound
            There is no such directory, or not for this user; or what is there may not be read by this user.
        InvalidRequest
            The name does not promise HDF5.
        """
        parent, _, name = path.rpartition("/")
        hidden = self._check(path, access)
        if not parent and "" not in self.roots.paths:
            raise _not_found(path)  # above several roots there is no directory on disk
        real, status = self._find(parent, hidden)
        if not stat.S_ISDIR(status.st_mode):
            raise _not_found(path)
        made = f"{real}/{name}"
        if os.path.lexists(made):
            # Somebody was quicker; or it is a link, which is followed no further than in reading.
            return self.locate_file(path, access).real
        if not self.roots.admits(made, hidden):
            raise _not_found(path)
        if self._media.of(path, made, status) != HDF5_MEDIA_TYPE:
            raise InvalidRequest(f"{path}: a new file is an HDF5 file, and is called so (.h5, .hdf5)")
        return made

    def writes(self, path: str, real: str, access: Access) -> bool:
        """Whether a user may write to the file at a virtual path, that `locate_file` found at a real one."""
        return access.writes(path) and (self._place(path) == real or self.roots.within(real, access.writable))

    def open(self, path: str, access: Access = ANYBODY) -> tuple[File, int]:
        """Open the regular file at a virtual path for reading; see `ndstream.core.ports.Store.open`.

        The descriptor is of the very file that was confined, whatever happens to its path meanwhile.

        Raises
        ------
        NotFound
            As `locate_file`.
        DataError
            It is there but cannot be read.
        """
        descriptor, real, status = self._pin(path, self._check(path, access))
        try:
            if not stat.S_ISREG(status.st_mode):
                raise _not_found(path)
            opened = _reopen(descriptor, path)
        finally:
            os.close(descriptor)
        return file_of(path, real, os.fstat(opened), self._media), opened

    def _check(self, path: str, access: Access) -> frozenset[str]:
        """Refuse what no path can be; returns the real directories that are hidden from the user."""
        if len(path) > self._limits.path_length or "\0" in path or not is_text(path):
            raise NotFound("the path is too long or not text")
        parts = path.split("/") if path else []
        # An empty part is also what a leading, trailing or doubled slash leaves; dots are never names of ours.
        if len(parts) > DEEPEST or any(not part or part.startswith(".") for part in parts) or not access.sees(path):
            raise _not_found(path)
        return frozenset(self.roots.places(access.hidden)) if access.hidden else access.hidden

    def _place(self, path: str) -> str:
        place = self.roots.locate(path)
        if place is None:
            raise _not_found(path)
        return place

    def _pin(self, path: str, hidden: frozenset[str]) -> tuple[int, str, os.stat_result]:
        """Hold what is at a virtual path without opening it: descriptor, real path and status belong together."""
        place = self._place(path)
        descriptor, status = _held(place, path)
        try:
            real = real_path(descriptor)
            if not status.st_nlink or not is_text(real) or not self.roots.admits(real, hidden):
                raise _not_found(path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, real, status

    def _still(self, trusted: _Trusted) -> Found | None:
        """The file that was confined a moment ago, if its path still leads there; None to confine it again.

        It must be in the same state, or held open by us: then no other file can have its numbers.
        """
        if monotonic() > trusted.until:
            return None
        try:
            now = os.stat(trusted.place)  # noqa: PTH116  (a system call of the hot path; a Path costs more than that)
        except OSError:
            return None
        found = trusted.found
        then = found.status
        if now.st_ino != then.st_ino or now.st_dev != then.st_dev:
            return None
        if is_unwritten(then, now):
            return found
        return Found(found.real, now) if self.holds(found.real, now) else None

    def _find(self, path: str, hidden: frozenset[str]) -> tuple[str, os.stat_result]:
        descriptor, real, status = self._pin(path, hidden)
        os.close(descriptor)
        return real, status

    def _listing(self, hidden: frozenset[str]) -> Listing:
        return Listing(self.roots, self._media, self._notes, hidden, self._limits.document)

    def _above(self, path: str) -> frozenset[str]:
        """Real paths of the directories on the way to a virtual one, itself included."""
        parts = path.split("/") if path else []
        places = (self.roots.locate("/".join(parts[:count])) for count in range(len(parts) + 1))
        return frozenset(os.path.realpath(place) for place in places if place is not None)

    def _top(self, hidden: frozenset[str], depth: int) -> Directory:
        """List the root above several named ones, which is no directory on disk."""
        files: dict[str, File] = {}
        directories: dict[str, Directory | None] = {}
        listing = self._listing(hidden)
        size = 0
        for name in sorted(self.roots.paths):
            try:
                real, status = self._find(name, hidden)
                if stat.S_ISREG(status.st_mode):
                    files[name] = file_of(name, real, status, self._media)
                    size += status.st_size
                elif depth > 0:
                    below = listing.directory(name, real, frozenset({real}), depth - 1)
                    directories[name] = below
                    size += below.size
                else:
                    size += listing.total(real, frozenset(), 1)
                    directories[name] = None
            except OSError:  # NotFound is one: hidden, or a root that went away while we serve
                continue
        return Directory(path="", size=size, files=files, directories=directories)


def _held(place: str, path: str) -> tuple[int, os.stat_result]:
    """Hold what is at a path on disk, and tell its status.

    What was removed before we have looked at it is not what is there: another file has been put in its place, perhaps.
    """
    for _ in range(_LOOKS - 1):
        descriptor, status = _opened(place, path)
        if status.st_nlink:
            return descriptor, status
        os.close(descriptor)
    return _opened(place, path)


def _opened(place: str, path: str) -> tuple[int, os.stat_result]:
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise _translated(error, path) from None
    return descriptor, os.fstat(descriptor)


def _real_root(name: str, path: Path, count: int) -> str:
    if name.startswith(".") or "/" in name or "\0" in name or not is_text(name):
        raise ConfigError(f"{name!r} cannot name what is served: one name, no slash, no dot in front")
    try:
        real = str(path.resolve(strict=True))
    except OSError as error:
        raise ConfigError(f"{path} cannot be served: {error.strerror}") from None
    if not is_text(real):
        raise ConfigError(f"{path!r} cannot be served: its path is not valid UTF-8")
    if not name and (count > 1 or not Path(real).is_dir()):
        raise ConfigError(f"{path} cannot be the root of the tree: that is one directory, alone")
    if not Path(real).is_dir() and not Path(real).is_file():
        raise ConfigError(f"{path} cannot be served: it is neither a directory nor a file")
    return real


def _not_found(path: str) -> NotFound:
    return NotFound(f"Invalid path specified: {path}")


def _reopen(descriptor: int, path: str) -> int:
    """Open for reading the very file that an ``O_PATH`` descriptor holds."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise _translated(error, path) from None
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from None


def _translated(error: OSError, path: str) -> NDStreamError:
    """Our error for one of the operating system, without the real path in it."""
    if error.errno in _ABSENT:
        return _not_found(path)
    if error.errno in _EXHAUSTED:
        return Busy(f"the server has no room to open {path}: {error.strerror}")
    return DataError(f"{path}: {error.strerror}")
