"""From a name to the place that is written to, without ever leaving the file.

Soft links on the way are followed; an external link is `Forbidden`. Parents that are missing are made as groups.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from h5py import h5d, h5f, h5g, h5l, h5o, h5p, h5t

from ndstream.errors import Exists, Forbidden, InvalidRequest, NotFound, WrongKind
from ndstream.stores.hdf5.names import spellings

Object: TypeAlias = "h5g.GroupID | h5d.DatasetID | h5t.TypeID"


class Destinations:
    """Names in one file that is open for writing.

    Parameters
    ----------
    file : h5py.h5f.FileID
    link_depth : int
        How many soft links one name may lead through.
    changing : callable
        Called before anything is made.
    """

    def __init__(self, file: h5f.FileID, link_depth: int, changing: Callable[[], None]) -> None:
        self._root = h5g.open(file, b"/")
        self._link_depth = link_depth
        self._changing = changing

    def find(self, name: str) -> Object:
        """Find the object of that name.

        Raises
        ------
        NotFound, Forbidden, InvalidRequest
        """
        return self._walk(name, _parts(name), create=False)

    def parent(self, name: str, *, create: bool = False) -> tuple[h5g.GroupID, bytes]:
        """Find the group that the link called `name` is in, or will be in, and what it is called there.

        Raises
        ------
        NotFound, Forbidden, InvalidRequest
        """
        parts = _parts(name)
        if not parts:
            raise InvalidRequest("the root group is always there")
        group = self._walk(name, parts[:-1], create=create)
        if not isinstance(group, h5g.GroupID):
            raise WrongKind(f"{name}: there is an object in the way that is not a group")
        for link in spellings(parts[-1]):
            if group.links.exists(link):
                return group, link
        return group, spellings(parts[-1])[0]

    def free(self, name: str) -> tuple[h5g.GroupID, bytes]:
        """Do the same for a link that is to be made, parents included.

        Raises
        ------
        Exists
            There is one already.
        """
        group, link = self.parent(name, create=True)
        if group.links.exists(link):
            raise Exists(f"{name} is there already")
        return group, link

    def taken(self, name: str) -> tuple[h5g.GroupID, bytes]:
        """Do the same for a link that must be there.

        Raises
        ------
        NotFound
        """
        group, link = self.parent(name)
        if not group.links.exists(link):
            raise NotFound(f"{name}: there is no such object")
        return group, link

    def _walk(self, name: str, parts: list[str], *, create: bool) -> Object:
        ahead = parts[::-1]
        trail: list[Object] = [self._root]
        followed = 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                if len(trail) > 1:
                    trail.pop()
                continue
            group = trail[-1]
            if not isinstance(group, h5g.GroupID):
                raise _in_the_way(name, create)
            link = next((link for link in spellings(part) if group.links.exists(link)), None)
            if link is None:
                if not create:
                    raise NotFound(f"{name}: there is no such object")
                self._changing()
                trail.append(new_group(group, part.encode("utf-8", "surrogateescape")))
                continue
            kind = group.links.get_info(link).type
            if kind == h5l.TYPE_HARD:
                trail.append(h5o.open(group, link))
                continue
            if kind != h5l.TYPE_SOFT:
                raise Forbidden(f"{name}: leads into another file, which must be written to by its own name")
            followed += 1
            if followed > self._link_depth:
                raise NotFound(f"{name}: more than {self._link_depth} links one after another")
            target = os.fsdecode(group.links.get_val(link))
            if target.startswith("/"):
                del trail[1:]
            ahead.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
            create = False  # what a link should lead to is not for us to make
        return trail[-1]


def new_group(group: h5g.GroupID, link: bytes) -> h5g.GroupID:
    """Make a group."""
    return h5g.create(group, link, lcpl=utf8_names())


def utf8_names() -> h5p.PropLCID:
    """Properties of links whose names are UTF-8."""
    properties = h5p.create(h5p.LINK_CREATE)
    properties.set_char_encoding(h5t.CSET_UTF8)
    return properties


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if "\0" in name or ".." in parts:
        raise InvalidRequest(f"{name!r} cannot name an object that is written to")
    return parts


def _in_the_way(name: str, create: bool) -> WrongKind | NotFound:
    if create:
        return WrongKind(f"{name}: there is an object in the way that is not a group")
    return NotFound(f"{name}: there is no such object")
