"""From a name to an object, without ever leaving what is served.

Names are followed component by component, so that the HDF5 library never opens another file by itself: an external
link is followed only into a regular file below the served roots that the user may see. The library does open the
sources of virtual datasets and the files of external storage when it reads; those are looked up here first, in all
the places where it would look, and the dataset is refused when one of them is outside.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from h5py import h5d, h5g, h5l, h5o, h5p, h5t

from ndstream.errors import Corrupt, DataError, NDStreamError, NotFound, Replaced, TooLarge
from ndstream.stores.hdf5.faults import LIBRARY_ERRORS, reason_of
from ndstream.stores.hdf5.names import spellings
from ndstream.stores.hdf5.open_files import OpenFile, OpenFiles
from ndstream.stores.hdf5.roots import Roots

#: Numbers that are tried for a ``%b`` in the name of a source before giving up.
_NUMBERED = 1 << 16
_Chain: TypeAlias = tuple[tuple[str, int], ...]
_PERCENT = re.compile(r"%([%b])")


@dataclass(frozen=True, slots=True)
class Found:
    """An object and the file that it is in; `address` is its own within that file."""

    file: OpenFile
    object: Any
    address: int

    @property
    def identity(self) -> int:
        """Equal for two ways to one object, whichever files they begin in; 63 bits."""
        return self.file.number ^ self.address


class Resolver:
    """Follows names, for one user during one request.

    Parameters
    ----------
    files : OpenFiles
        Where files are opened.
    roots : Roots
        What is served.
    hidden : iterable of str
        Virtual directories that do not exist for the user.
    link_depth : int
        How many soft and external links one name may lead through.

    Attributes
    ----------
    others : set of str
        Other files than the one it began in on which an answer depended: their real paths, and those by which links
        name them.
    """

    __slots__ = ("_cleared", "_files", "_hidden", "_link_depth", "_roots", "others")

    def __init__(self, files: OpenFiles, roots: Roots, hidden: Iterable[str], link_depth: int) -> None:
        self._files = files
        self._roots = roots
        self._hidden = roots.places(hidden)
        self._link_depth = link_depth
        self._cleared: set[tuple[str, int]] = set()
        self.others: set[str] = set()

    def find(self, file: OpenFile, name: str) -> Found:
        """Find the object with an absolute name; ``.``, ``..`` and empty components are read as in paths of files.

        Raises
        ------
        NotFound
            There is no such object, a link leads nowhere or out of what is served, or there are too many links.
        Corrupt
            The object is there and cannot be opened.
        DataError
            It is a virtual or external dataset that reaches out of what is served.
        """
        kept = file.kept(name)
        if kept is not None:
            return Found(file, *kept)
        walk = _Walk(self, file, name)
        found = walk.to(name)
        self._files.hold(found.file)
        if isinstance(found.object, h5d.DatasetID):
            plist = found.object.get_create_plist()
            self.guard(found, plist)
            if not walk.crossed and plist.get_layout() != h5d.VIRTUAL and not plist.get_external_count():
                file.keep(name, found.object, found.address)
        return found

    def follow(self, file: OpenFile, filename: bytes, target: bytes) -> Found:
        """Follow an external link that was met in `file`; raises as `find` does."""
        name = os.fsdecode(target)
        other = self.external(file, filename, name)
        return self.find(other, name)

    def external(self, file: OpenFile, filename: bytes, name: str) -> OpenFile:
        """Open the file that an external link in `file` names, relative to the directory of `file`."""
        named = _beside(file, filename)
        real = os.path.realpath(named)
        self.others |= {os.path.normpath(named), real}
        if not self._roots.admits(real, self._hidden):
            raise _missing(name)
        try:
            return self._files.open(real)
        except NotFound:
            raise _missing(name) from None

    @property
    def link_depth(self) -> int:
        """How many soft and external links one name may lead through."""
        return self._link_depth

    def guard(self, found: Found, plist: h5p.PropDCID | None = None) -> None:
        """Refuse a dataset whose elements the library would fetch from outside of what is served.

        Parameters
        ----------
        found : Found
            Groups and types always pass.
        plist : h5py.h5p.PropDCID, optional
            Creation properties of the dataset, if they are at hand.

        Raises
        ------
        DataError
            A source of the virtual dataset, or of one of its sources, or a file of its external storage is outside.
        """
        if isinstance(found.object, h5d.DatasetID):
            self._guard(found, plist or found.object.get_create_plist(), ())

    def _guard(self, found: Found, plist: h5p.PropDCID, above: _Chain) -> None:
        """`guard` for a dataset that is a source of those `above` it."""
        for index in range(plist.get_external_count()):
            self._admit_storage(found.file, plist.get_external(index)[0])
        if plist.get_layout() != h5d.VIRTUAL:
            return
        this = (found.file.path, found.address)
        # The library follows such a circle until its stack is full.
        if this in above:
            raise DataError("the virtual dataset is one of its own sources")
        if len(above) > self._link_depth:
            raise DataError(f"virtual datasets of virtual datasets, more than {self._link_depth} times")
        if this in self._cleared:
            return
        for index in range(plist.get_virtual_count()):
            filename, name = plist.get_virtual_filename(index), plist.get_virtual_dsetname(index)
            for one in {(filename, name), (_numbered(filename, 0), _numbered(name, 0))}:
                self._admit_source(found.file, *one, (*above, this))
            if "%b" in filename + name:
                self._admit_numbered(found.file, filename, name, (*above, this))
        self._cleared.add(this)

    def _admit_numbered(self, file: OpenFile, filename: str, name: str, above: _Chain) -> None:
        # The library stops at the first number that is not there.
        for number in range(_NUMBERED):
            if not self._admit_source(file, _numbered(filename, number), _numbered(name, number), above):
                return
        raise TooLarge(f"a virtual dataset of more than {_NUMBERED} numbered sources")

    def _admit_storage(self, file: OpenFile, filename: bytes) -> None:
        real = os.path.realpath(_beside(file, filename))
        self.others.add(real)
        if not self._harmless(real):
            raise DataError("the external storage of the dataset is not in what is served")

    def _admit_source(self, file: OpenFile, filename: str, name: str, above: _Chain) -> bool:
        """Check one source; returns whether it is there."""
        other = file if filename == "." else self.source_file(file, os.fsencode(filename))
        if other is None:
            return False
        try:
            found = _Walk(self, other, name, strict=True).to(name)
        except NotFound:
            return False  # the library gives the fill value
        if isinstance(found.object, h5d.DatasetID):
            self._guard(found, found.object.get_create_plist(), above)
        return True

    def source_file(self, file: OpenFile, filename: bytes) -> OpenFile | None:
        """Open the file that the library would, if it followed `filename` from `file` by itself.

        Returns None when there is no such file that can be opened.

        Raises
        ------
        DataError
            One of the places where the library would look is outside of what is served, or it would not look there.
        """
        # The library tries these one after another (H5F_prefix_open_file), the last one relative to the directory of
        # the process.
        name = os.fsdecode(filename)
        first = os.path.realpath(_beside(file, filename))
        if not file.reaches and first != file.path:
            raise DataError("a source of the virtual dataset is in another file: not to be read while this is written")
        others = (_beside(file, os.fsencode(Path(name).name)), Path.cwd() / name)
        places = [first, *(os.path.realpath(other) for other in others if os.path.lexists(other))]
        self.others.update(places)
        if not all(self._harmless(place) for place in places):
            raise DataError("a source of the virtual dataset is not in what is served")
        for place in places:
            try:
                return self._files.open(place)
            except Replaced:
                raise
            except NDStreamError:
                continue  # so does the library
        return None

    def _harmless(self, real: str) -> bool:
        """Whether the library may try to open that path: served, and not a device or a pipe."""
        if not self._roots.admits(real, self._hidden):
            return False
        try:
            return stat.S_ISREG(Path(real).stat().st_mode)
        except OSError:
            return True  # nothing there


class _Walk:
    """One name on its way; with `strict` the names mean what they mean to the library when it goes by itself."""

    def __init__(self, resolver: Resolver, file: OpenFile, name: str, *, strict: bool = False) -> None:
        self.resolver = resolver
        self.file = file
        self.name = name
        self.strict = strict
        self.followed = 0
        self.crossed = False
        self.trail = [_root(file)]

    def to(self, name: str) -> Found:
        ahead = _components(name)
        while ahead:
            part = ahead.pop()
            if part == ".." and not self.strict:
                if len(self.trail) > 1:
                    self.trail.pop()
                continue
            group = self.trail[-1]
            if not isinstance(group, h5g.GroupID):
                raise _missing(self.name)
            ahead.extend(self._step(group, part))
        found = self.trail[-1]
        return Found(self.file, found, h5o.get_info(found).addr)

    def _step(self, group: h5g.GroupID, part: str) -> list[str]:
        """Go to one member; returns the components that a link puts in front of the rest, last one first."""
        link, info = self._link(group, part)
        if info.type == h5l.TYPE_HARD:
            self.trail.append(open_member(group, link))
            return []
        self.followed += 1
        if self.followed > self.resolver.link_depth:
            raise NotFound(f"{self.name}: more than {self.resolver.link_depth} links one after another")
        if info.type == h5l.TYPE_SOFT:
            target = os.fsdecode(group.links.get_val(link))
            if target.startswith("/"):
                del self.trail[1:]
            return _components(target)
        if info.type == h5l.TYPE_EXTERNAL:
            filename, path = group.links.get_val(link)
            self.file = self._other(filename)
            self.crossed = True
            self.trail = [_root(self.file)]
            return _components(os.fsdecode(path))
        raise DataError(f"{self.name}: a link of a kind that only its writer can follow")

    def _other(self, filename: bytes) -> OpenFile:
        if not self.strict:
            return self.resolver.external(self.file, filename, self.name)
        other = self.resolver.source_file(self.file, filename)
        if other is None:
            raise _missing(self.name)
        return other

    def _link(self, group: h5g.GroupID, part: str) -> tuple[bytes, h5l.LinkInfo]:
        for link in spellings(part):
            if b"\0" not in link and group.links.exists(link):
                return link, group.links.get_info(link)
        raise _missing(self.name)


def open_member(group: h5g.GroupID, link: bytes) -> h5g.GroupID | h5d.DatasetID | h5t.TypeID:
    """Open the object that a hard link in `group` leads to.

    Raises
    ------
    Corrupt
        The link is there, so the object should be, and cannot be opened.
    """
    try:
        return h5o.open(group, link)
    except LIBRARY_ERRORS as error:
        raise Corrupt(f"the object cannot be opened: {reason_of(error)}") from None


def _root(file: OpenFile) -> h5g.GroupID:
    return h5g.open(file.id, b"/")


def _components(path: str) -> list[str]:
    """Components of a path, last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _numbered(pattern: str, number: int) -> str:
    return _PERCENT.sub(lambda found: "%" if found[1] == "%" else str(number), pattern)


def _beside(file: OpenFile, filename: bytes) -> Path:
    return Path(file.path).parent / os.fsdecode(filename)


def _missing(name: str) -> NotFound:
    return NotFound(f"{name}: there is no such object")
