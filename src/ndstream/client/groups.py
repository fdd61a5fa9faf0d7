"""Remote groups, with the habits of h5py's."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import msgspec

from ndstream.client import display
from ndstream.client.attributes import RemoteAttributes
from ndstream.client.connection import Connection
from ndstream.client.copying import copy_object
from ndstream.client.datasets import RemoteDataset
from ndstream.client.datatypes import RemoteDatatype
from ndstream.client.lasting import Lasting
from ndstream.client.links import ExternalLink, HardLink, SoftLink
from ndstream.client.members import Items, Values
from ndstream.core import model
from ndstream.core.limits import MiB
from ndstream.errors import InvalidRequest, NDStreamError, NotFound, ProtocolError, by_code

if TYPE_CHECKING:
    from ndstream.client.files import RemoteFile

MAX_DEPTH = 5
DATA_SIZE_LIMIT = 1 * MiB

SINGLE = 2  # members of a group that are asked for one by one, before all that are missing are asked for at once
TOGETHER = 8 * MiB  # data that may come along with these

_log = logging.getLogger(__name__)


class RemoteGroup(Lasting, Mapping[str, Any]):
    """A group on a server: a mapping of names to groups and datasets.

    One request describes a group and, down to `max_depth`, what is in it, with data of at most `data_size_limit`
    bytes. What did not come along is asked for when it is needed, once: the same object is given ever after.
    Soft links are followed; the object then has the name of what the link leads to.

    Attributes
    ----------
    name : str
        Absolute path inside the file.
    file_path : str
        Virtual path of the file.
    connection : Connection
    """

    kind = "group"

    def __init__(
        self,
        connection: Connection,
        file_path: str,
        name: str,
        max_depth: int = MAX_DEPTH,
        data_size_limit: int = DATA_SIZE_LIMIT,
        data: model.Group | None = None,
        parent: RemoteGroup | None = None,
        file: RemoteFile | None = None,
    ) -> None:
        self.connection = connection
        self.file_path = file_path
        self.name = name
        self._max_depth = max_depth
        self._data_size_limit = data_size_limit
        self._described = data
        self._parent = parent
        self._file: RemoteFile | None = file if file is not None or parent is None else parent._file
        self._opened: dict[str, RemoteObject] = {}
        self._singles = 0
        # A description that was asked for itself holds all that the server will tell of the members.
        self._complete = data is None

    @property
    def described(self) -> model.Group | None:
        """What is known of the group, in exact types; None before it was asked for."""
        return self._described

    @property
    def unpacked(self) -> bool:
        """Whether the group has been described."""
        return self._described is not None

    @cached_property
    def attrs(self) -> RemoteAttributes:
        """Attributes."""
        return RemoteAttributes(self.load().attributes, self.name)

    @property
    def parent(self) -> RemoteGroup:
        """Group that this one is in; the root is its own."""
        if self.name == "/":
            return self
        if self._parent is None:
            found = self._root[posixpath.dirname(self.name)]
            if not isinstance(found, RemoteGroup):
                raise ProtocolError(f"{self.name} is in {found!r}, which is no group")
            self._parent = found
        return self._parent

    @property
    def file(self) -> RemoteFile:
        """File that the group is in."""
        if self._file is None:
            raise InvalidRequest(f"{self.name} was made without its file")
        return self._file

    def load(self) -> model.Group:
        """Describe the group, by a request if it has not been described yet.

        Raises
        ------
        NotFound
            There is no such group.
        NDStreamError
        """
        if self._described is None:
            found = self._describe(self.name)
            if not isinstance(found, model.Group):
                raise NotFound(f"{self._place(self.name)} is no group")
            self._described = found
        return self._described

    def refresh(self) -> None:
        """Forget what is known of the group, and of what was opened through it: others may have changed it.

        Objects that were opened before know what they knew; those that are opened from now on are looked up anew.
        """
        self._described = None
        self._opened.clear()
        self._singles = 0
        self._complete = True
        self.__dict__.pop("attrs", None)

    def __getitem__(self, name: str | bytes) -> Any:
        """Group, dataset or committed type at a path, relative or absolute.

        Raises
        ------
        NotFound
            There is no such object, also KeyError.
        NDStreamError
        """
        return self._find(_text(name), 0)

    def get(self, name: str, default: Any = None, getclass: bool = False, getlink: bool = False) -> Any:
        """Object at a path, or `default` when there is none.

        Parameters
        ----------
        getclass : bool
            Give the class that the object has.
        getlink : bool
            Give the link itself: a `SoftLink`, `ExternalLink` or `HardLink`. With both, its class.

        Raises
        ------
        NotFound
            With `getlink`, for the root: no link leads there.
        NDStreamError
        """
        if getlink and self._start(name) == (self._root, []):
            raise NotFound(f"{self._place('/')}: no link leads to the root")
        try:
            found = self._link(name) if getlink else self[name]
        except NotFound:
            return default
        return type(found) if getclass else found

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, (str, bytes)):
            return False
        return self._holds(_text(name), 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.load().members)

    def __len__(self) -> int:
        return len(self.load().members)

    def values(self) -> Values:
        """Objects, in order."""
        self.complete()
        return Values(self)

    def items(self) -> Items:
        """Names and objects, in order."""
        self.complete()
        return Items(self)

    def visit(self, func: Callable[[str], Any]) -> Any:
        """Call `func` with the path of every object below, until it gives something other than None.

        A group comes before what is in it, members in their order. Unlike in h5py, soft and external links are
        followed, except back into a group that is being visited.
        """
        return self._visit(lambda path, _: func(path), "", (self,))

    def visititems(self, func: Callable[[str, Any], Any]) -> Any:
        """Call `func` with path and object of every object below; see `visit`.

        Objects that the server cannot describe are left out, with a warning in the log.
        """
        return self._visit(func, "", (self,))

    def copy(
        self,
        source: str | RemoteObject,
        dest: Any,
        name: str | None = None,
        shallow: bool = False,
        expand_soft: bool = False,
        expand_external: bool = False,
    ) -> None:
        """Copy an object of this file, with all below it, into a local HDF5 file.

        Parameters
        ----------
        source : str or remote object
        dest : h5py.Group or h5py.File, writable
        name : str, optional
            Name in `dest`; that of the source if not given.
        shallow : bool
            Of groups, copy only direct members, and of these groups without what is in them.
        expand_soft : bool
            Copy what soft links lead to in place of the links.
        expand_external : bool
            Copy what external links lead to in place of the links; not from servers that do not tell them apart:
            there the object is copied in any case.

        Notes
        -----
        Types, chunks, filters, fill values, attributes, links, and two names of one object stay what they are, as far
        as the server tells. Data are copied piece by piece.

        Raises
        ------
        InvalidRequest
            `dest` has such a member, or the root is to be copied and there is no `name`.
        """
        found = self[source] if isinstance(source, str) else source
        base = name or posixpath.basename(found.name if not isinstance(source, str) else posixpath.normpath(source))
        if not base or base == "/":
            raise InvalidRequest("the root has no name of its own: say which name the copy gets")
        copy_object(found, dest, base, shallow=shallow, expand_soft=expand_soft, expand_external=expand_external)

    def __enter__(self) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemoteGroup):
            return NotImplemented
        if (self.connection.server, self.file_path) != (other.connection.server, other.file_path):
            return False
        return self.name == other.name or 0 != self._address == other._address

    def __hash__(self) -> int:
        return hash((self.connection.server, self.file_path))

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.connection, self.file_path, self.name, self._max_depth, self._data_size_limit)
        return type(self), (*state, None, None, self._file)

    def __repr__(self) -> str:
        return display.group_text(self)

    def _repr_html_(self) -> str:
        return display.group_html(self)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self) if self.unpacked else []

    @property
    def _address(self) -> int:
        """What two names of one group have in common; 0 when it is not known."""
        return self._described.address if self._described is not None else 0

    # -- looking up --

    @property
    def _root(self) -> RemoteGroup:
        group = self
        while group._parent is not None:
            group = group._parent
        if group.name == "/":
            return group
        if self._file is not None:
            return self._file.root
        return RemoteGroup(self.connection, self.file_path, "/", self._max_depth, self._data_size_limit)

    def _find(self, path: str, links: int) -> RemoteObject:
        start, parts = self._start(path)
        found: RemoteObject = start
        for part in parts:
            if not isinstance(found, RemoteGroup):
                raise NotFound(f"{self._place(found.name)} is no group: it has no member {part!r}")
            found = found._child(part, links)
        return found

    def _start(self, path: str) -> tuple[RemoteGroup, list[str]]:
        """Where to begin with a path, and the names to follow from there."""
        absolute = posixpath.normpath(posixpath.join(self.name, path)).replace("//", "/", 1)
        prefix = self.name.rstrip("/") + "/"
        if absolute == self.name:
            return self, []
        if absolute.startswith(prefix):
            return self, absolute[len(prefix) :].split("/")
        return self._root, [part for part in absolute.split("/") if part]

    def _child(self, name: str, links: int) -> RemoteObject:
        """Member of this group, soft links followed."""
        opened = self._opened.get(name)
        if opened is not None:
            return opened
        node = self._node(name)
        if isinstance(node, model.SoftLink):
            if links >= self.connection.limits.link_depth:
                raise NotFound(f"{self._place(self._join(name))}: too many soft links lead to one another")
            try:
                return self._find(node.target, links + 1)
            except NotFound as error:
                raise NotFound(f"{self._place(self._join(name))} is a link to {node.target}: {error}") from error
        if _is_untold(node):
            node = self._ask(name)
        self._opened[name] = made = self._open(self._join(name), node)
        return made

    def _ask(self, name: str) -> model.Node:
        """Describe a member that did not come along; many of them together."""
        self._singles += 1
        if self._singles > SINGLE:
            self.complete()
            node = self._node(name)
            if not _is_untold(node):
                return node
        return self._describe(self._join(name))

    def complete(self) -> None:
        """Ask for what is missing of the members, all at once, unless that was done or the group was asked for itself.

        A server describes the members of a group that is asked for, but not always those of one inside of another.
        """
        described = self.load()
        if self._complete or not any(_is_untold(node) for node in described.members.values()):
            return
        self._complete = True
        data = min(self._data_size_limit, TOGETHER // len(described.members))
        found = self.connection.describe(self.file_path, self.name, max_depth=0, data_size_limit=data)
        if isinstance(found, model.Group):
            told = {name: node for name, node in found.members.items() if name in described.members}
            known = {name: node for name, node in described.members.items() if not _is_untold(node)}
            members = described.members | told | known
            self._described = msgspec.structs.replace(described, members=members, links=found.links)

    def _node(self, name: str) -> model.Node:
        try:
            return self.load().members[name]
        except KeyError:
            raise NotFound(f"{self._place(self.name)} has no member {name!r}") from None

    def _open(self, name: str, node: model.Node) -> RemoteObject:
        match node:
            case model.Group():
                around = self._around(node.address)
                if around is not None:
                    return around
                return self._new_group(name, node)
            case model.Dataset():
                return self._new_dataset(name, node)
            case model.NamedType():
                return RemoteDatatype(name, node)
            case model.Unreadable(problem=problem, code=code):
                raise by_code(code)(f"{self._place(name)}: {problem}")
            case _:
                raise ProtocolError(f"{self._place(name)}: the server describes a link in place of an object")

    def _new_group(self, name: str, node: model.Group) -> RemoteGroup:
        return RemoteGroup(self.connection, self.file_path, name, self._max_depth, self._data_size_limit, node, self)

    def _new_dataset(self, name: str, node: model.Dataset) -> RemoteDataset:
        return RemoteDataset(self.connection, self.file_path, name, node, self)

    def _around(self, address: int) -> RemoteGroup | None:
        """The group at this address, if this one is in it: a hard link may lead back."""
        group: RemoteGroup | None = self
        while address and group is not None:
            if group._address == address:
                return group
            group = group._parent
        return None

    def _describe(self, name: str) -> model.Node:
        return self.connection.describe(
            self.file_path, name, max_depth=self._max_depth, data_size_limit=self._data_size_limit
        )

    def _link(self, path: str) -> SoftLink | HardLink | ExternalLink:
        start, parts = self._start(path)
        if not parts:
            start, parts = start._root, [part for part in start.name.split("/") if part]
        *before, last = parts
        group = start._find("/".join(before) or ".", 0)
        if not isinstance(group, RemoteGroup):
            raise NotFound(f"{self._place(group.name)} is no group")
        group.complete()
        match group.load().links.get(last) or group._node(last):
            case model.SoftLink(target=target):
                return SoftLink(target)
            case model.ExternalLink(filename=filename, target=target):
                return ExternalLink(filename, target)
            case _:
                return HardLink()

    def _holds(self, path: str, links: int) -> bool:
        """Whether something is at a path; the last object itself is not asked for."""
        start, parts = self._start(path)
        if not parts:
            return True
        *before, last = parts
        try:
            group = start._find("/".join(before) or ".", links)
        except NotFound:
            return False
        if not isinstance(group, RemoteGroup) or last not in group.load().members:
            return False
        node = group.load().members[last]
        if isinstance(node, model.SoftLink):
            return links < self.connection.limits.link_depth and group._holds(node.target, links + 1)
        return True

    def _visit(self, func: Callable[[str, Any], Any], prefix: str, inside: tuple[RemoteGroup, ...]) -> Any:
        self.complete()
        for name in self:
            path = prefix + name
            try:
                found = self._child(name, 0)
            except NDStreamError as error:
                if not _is_about_object(error, self.load().members[name]):
                    raise
                _log.warning("%s is left out: %s", self._place(self._join(name)), error)
                continue
            result = func(path, found)
            if result is not None:
                return result
            if isinstance(found, RemoteGroup) and found not in inside:
                result = found._visit(func, path + "/", (*inside, found))
                if result is not None:
                    return result
        return None

    def _join(self, name: str) -> str:
        return f"{self.name.rstrip('/')}/{name}"

    def _place(self, name: str) -> str:
        return f"{self.connection.server}: /{self.file_path}::{name}"


RemoteObject: TypeAlias = RemoteGroup | RemoteDataset | RemoteDatatype


def _text(name: str | bytes) -> str:
    if isinstance(name, bytes):
        return name.decode()
    if not isinstance(name, str):
        raise InvalidRequest(f"members have names, not {name!r}")
    return name


def _is_untold(node: model.Node) -> bool:
    """Whether an object exists of which nothing has been told."""
    return isinstance(node, (model.HardLink, model.ExternalLink))


def _is_about_object(error: NDStreamError, node: model.Node) -> bool:
    """Whether the object is at fault (a broken link, an unreadable member), and not the way to it."""
    return isinstance(node, model.Unreadable) or isinstance(error, NotFound)
