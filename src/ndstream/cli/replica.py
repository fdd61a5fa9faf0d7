"""Objects of an HDF5 file of this machine as operations that make them anew elsewhere."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from ndstream.client import changes
from ndstream.client.progress import Watch
from ndstream.core import model
from ndstream.core.dtypes import Array, Compound, DType, Reference, Sequence, holds_references, item_size, readable
from ndstream.core.limits import MiB
from ndstream.core.operations import CreateGroup, Link, Operation, Payload, SetAttributes, Write
from ndstream.core.selection import everything
from ndstream.core.selection.plain import to_plain
from ndstream.errors import NDStreamError

if TYPE_CHECKING:
    from ndstream.stores.hdf5.source import Source

PIECE = 8 * MiB
"""Bytes of data in one operation, about."""
_VARIABLE = 64  # bytes that stand for an element of variable length

Operations: TypeAlias = Iterator[Operation]

log = logging.getLogger("ndstream.cli")


class Replica:
    """An object with all that is below it, under another name.

    Types, storage, attributes, soft links, and which names mean one object stay what they are. References follow what
    they refer to, as long as that is copied. What cannot be written is left out, and logged.

    Parameters
    ----------
    source : Source
    name : str
        Absolute name of the object.
    target : str
        Absolute name of the copy, which is free.
    home : str, optional
        Absolute name of what gets the attributes of the object itself, in `closing`; the copy when not given.
    watch : callable, optional
        Told of the bytes that are on their way.

    Attributes
    ----------
    copied : set of str
        Names of the members of the object that were copied.
    closing : list of Operation
        What is to be done to `home`, when all else is done and before the copies get other names.
    """

    def __init__(
        self, source: Source, name: str, target: str, *, home: str | None = None, watch: Watch | None = None
    ) -> None:
        self._source = source
        self._name = name.rstrip("/")
        self._target = target
        self._home = home
        self._watch = watch
        self.copied: set[str] = set()
        self.closing: list[Operation] = []
        self._made: dict[int, str] = {}
        # What holds references is written when everything that they may lead to is there.
        self._later: list[Callable[[], Operations]] = []

    def members(self) -> list[str]:
        """Names of the members of the object."""
        node = self._source.describe(self._name or "/")
        return list(node.members) if isinstance(node, model.Group) else []

    def operations(self) -> Operations:
        """Yield the operations, in the order in which they are to be carried out.

        Raises
        ------
        NDStreamError
            The object itself cannot be read.
        """
        root = self._name or "/"
        node = self._source.describe(root)
        yield from self._object(node, root)
        yield from self._rest()
        if self._home is not None and isinstance(node, model.Group | model.Dataset):
            self.closing += self._attributes(node, root, self._home)
            self.closing += self._rest()

    def _rest(self) -> Operations:
        later, self._later = self._later, []
        for write in later:
            yield from write()

    def _object(self, node: model.Node, name: str) -> Operations:
        target = self._moved(name)
        address = getattr(node, "address", 0)
        if address and address in self._made:
            yield self._link(name, self._made[address], "hard")
            return
        match node:
            case model.Group():
                made: Operations = self._group(node, name, target)
            case model.Dataset() if (dtype := readable(node.dtype)) is not None:
                made = self._dataset(node, dtype, name, target)
            case _:
                log.warning("%s is left out: it is a type, or its elements are of one that cannot be written", name)
                return
        if address:
            self._made[address] = target
        self._note(name)
        yield from made
        if self._home is None or target != self._target:
            yield from self._attributes(node, name, target)

    def _group(self, node: model.Group, name: str, target: str) -> Operations:
        yield CreateGroup(name=target)
        for member, below in node.members.items():
            yield from self._member(node, below, posixpath.join(name, member))

    def _member(self, group: model.Group, node: model.Node, name: str) -> Operations:
        if posixpath.basename(name) in group.links:
            log.warning("%s is left out: links out of the file are not made on a server", name)
            return
        match node:
            case model.SoftLink(target=path):
                yield self._link(name, path, "soft")
            case model.ExternalLink():
                log.warning("%s is left out: links out of the file are not made on a server", name)
            case model.Unreadable(problem=problem):
                log.warning("%s is left out: %s", name, problem)
            case model.HardLink():
                yield from self._object(self._source.describe(name), name)
            case _:
                yield from self._object(node, name)

    def _dataset(self, node: model.Dataset, dtype: DType, name: str, target: str) -> Operations:
        if dtype is not node.dtype:
            node = msgspec.structs.replace(node, dtype=dtype, fill=None)
        yield changes.like(node, target)
        if node.shape is None or 0 in node.shape:
            return
        if holds_references(dtype):
            self._later.append(partial(self._data, node, name, target))
        else:
            yield from self._data(node, name, target)

    def _data(self, node: model.Dataset, name: str, target: str) -> Operations:
        assert node.shape is not None
        size = item_size(node.dtype) or _VARIABLE
        for block in everything(node.shape).blocks(max(PIECE // max(size, 1), 1), node.chunks):
            data = self._source.read(name, block)
            if isinstance(data, list):
                data = [self._element(item, node.dtype) for item in data]
            payload = Payload(dtype=node.dtype, shape=block.shape, data=data)
            yield Write(name=target, data=payload, selection=to_plain(block, explicit=True))
            if self._watch is not None:
                self._watch(block.count * size)

    def _attributes(self, node: model.Group | model.Dataset, name: str, target: str) -> Operations:
        now: dict[str, Payload] = {}
        later: dict[str, model.Attribute] = {}
        for each, attribute in node.attributes.items():
            dtype = None if attribute.dtype is None else readable(attribute.dtype)
            if attribute.problem is not None or dtype is None:
                log.warning("%s: attribute %r is left out: %s", name, each, attribute.problem or "unknown type")
            elif holds_references(dtype):
                later[each] = attribute
            else:
                now[each] = self._payload(attribute, dtype)
        if now:
            yield SetAttributes(name=target, values=now)
        if later:
            self._later.append(partial(self._referring, later, target))

    def _referring(self, attributes: Mapping[str, model.Attribute], target: str) -> Operations:
        values = {}
        for each, attribute in attributes.items():
            assert attribute.dtype is not None
            values[each] = self._payload(attribute, readable(attribute.dtype) or attribute.dtype)
        yield SetAttributes(name=target, values=values)

    def _payload(self, attribute: model.Attribute, dtype: DType) -> Payload:
        value: Any = attribute.value if attribute.value is not None else b""
        if isinstance(value, list):
            value = [self._element(item, dtype) for item in value]
        return Payload(dtype=dtype, shape=attribute.shape, data=value)

    def _element(self, item: Any, dtype: DType) -> Any:
        """An element with its references to where the copies are; null where there is none."""
        match dtype:
            case Reference() if isinstance(item, str):
                return self._referred(item)
            case Reference() if isinstance(item, dict):
                place = self._referred(item["name"])
                return None if place is None else {**item, "name": place}
            case Sequence(base=base) | Array(base=base) if isinstance(item, list):
                return [self._element(each, base) for each in item]
            case Compound(fields=fields):
                return [self._element(each, field.dtype) for each, field in zip(item, fields, strict=True)]
            case _:
                return item

    def _referred(self, path: str) -> str | None:
        if path == (self._name or "/") and self._home is not None:
            return self._home
        inside = path == (self._name or "/") or path.startswith(f"{self._name}/")
        return self._moved(path) if inside and self._reaches(path) else None

    def _reaches(self, path: str) -> bool:
        """Whether the object at a path was copied, by that very name."""
        try:
            return getattr(self._source.describe(path), "address", None) in self._made
        except NDStreamError:
            return False

    def _link(self, name: str, target: str, kind: Literal["soft", "hard"]) -> Link:
        self._note(name)
        return Link(name=self._moved(name), target=target, kind=kind)

    def _note(self, name: str) -> None:
        """Note what was copied right below the object."""
        below = name[len(self._name) :].strip("/")
        if below and "/" not in below:
            self.copied.add(below)

    def _moved(self, name: str) -> str:
        """Name of the copy of an object."""
        below = name[len(self._name) :].strip("/")
        return f"{self._target}/{below}" if below else self._target
