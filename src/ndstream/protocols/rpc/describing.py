"""What there is in the file: listings, descriptions, attributes (SPEC.md, C4)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core import model
from ndstream.core.dtypes import is_fixed, memory_size
from ndstream.core.limits import KiB, Limits
from ndstream.core.ports import Access, Detail, Store
from ndstream.errors import DataError, InvalidRequest, NDStreamError, NotFound, UnsupportedDType, WrongKind
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc.dtypes import spell
from ndstream.protocols.rpc.values import attribute_value, from_serialized, presentation_of, shown

_DEEPEST = 8
_MOST = 10_000
_WIDE = 1000
"""Links of a group besides the one that is listed, up to which it is looked into."""
_LONG = 64 * KiB
"""Bytes of a serialized value that is taken apart in a thread."""

Fields = dict[str, Any]


class Describing:
    """Answers to questions about objects of one file."""

    def __init__(self, store: Store, path: str, limits: Limits) -> None:
        self._store = store
        self._path = path
        self._limits = limits

    async def node(self, name: str, access: Access, detail: Detail | None = None) -> model.Node:
        """Describe an object.

        Raises
        ------
        NotFound
        """
        return await self._store.describe(self._path, name, access, detail or Detail())

    async def deserialized(self, name: str, array: NDArray[Any], access: Access) -> Any:
        """Value that was serialized, if the dataset says that it was; else the very same array."""
        node = await self.node(name, access)
        marked = isinstance(node, model.Dataset) and m.MARKER in node.attributes
        if not marked:
            return array
        return await asyncio.to_thread(from_serialized, array) if array.size > _LONG else from_serialized(array)

    async def list(self, command: m.List, caller: Any) -> Fields:
        """List what is in a group, sorted by path, a page at a time."""
        if not 1 <= command.depth <= _DEEPEST or not 1 <= command.limit <= _MOST:
            raise InvalidRequest(f"a depth from 1 to {_DEEPEST}, a limit from 1 to {_MOST}")
        detail = Detail(depth=command.depth, wide=_WIDE)
        node = await self.node(command.path, caller.access, detail)
        if not isinstance(node, model.Group):
            raise WrongKind(f"{command.path} is no group")
        after = tuple(command.after.split("/")) if command.after else ()
        items: list[Fields] = []
        for name, path, member in _members(node, (), command.path.rstrip("/"), command.depth, after):
            if len(items) == command.limit:
                return {"status": "success", "items": items, "more": True}
            items.append(_item(name, path, member))
        return {"status": "success", "items": items, "more": False}

    async def stat(self, command: m.Stat, caller: Any) -> Fields:
        """Describe an object."""
        node = await self.node(command.path, caller.access)
        fields: Fields = {"status": "success", "path": command.path, "kind": _kind(node)}
        attributes = getattr(node, "attributes", {})
        fields["attributes"] = [name for name in attributes if name != m.MARKER]
        if isinstance(node, model.Dataset):
            fields |= _dataset(node)
        return fields

    async def get_attrs(self, command: m.GetAttrs, caller: Any) -> Fields:
        """Read attributes; what cannot be read is named, with the reason, unless it was asked for."""
        node = await self.node(command.path, caller.access)
        attributes: dict[str, model.Attribute] = getattr(node, "attributes", {})
        names = [name for name in attributes if name != m.MARKER] if command.names is None else list(command.names)
        missing = [name for name in names if name not in attributes]
        if missing:
            raise NotFound(f"{command.path} has no attribute called {missing[0]!r}")
        found: Fields = {}
        unreadable: dict[str, str] = {}
        for name in names:
            try:
                found[name] = attribute_value(attributes[name])
            except (DataError, UnsupportedDType) as error:
                if command.names is not None:
                    raise
                unreadable[name] = str(error)
        return {"status": "success", "attrs": found, **({"unreadable": unreadable} if unreadable else {})}


def _members(
    group: model.Group, above: tuple[str, ...], root: str, depth: int, after: tuple[str, ...]
) -> Iterator[tuple[str, str, model.Node]]:
    """Members with name and absolute path, those of groups behind them, as far as they come behind `after`.

    They are sorted by the names on the way to them: by its text, ``a-b`` would come between ``a`` and ``a/b``.
    """
    for name in sorted(group.members):
        member = group.members[name]
        names = (*above, name)
        if names > after:
            place = "/".join(names)
            yield place, f"{root}/{place}", group.links.get(name, member)
        if depth > 1 and isinstance(member, model.Group):
            yield from _members(member, names, root, depth - 1, after)


def _item(name: str, path: str, node: model.Node) -> Fields:
    item: Fields = {"name": name, "path": path, "kind": _kind(node)}
    match node:
        case model.Dataset():
            item["shape"] = None if node.shape is None else list(node.shape)
            item["dtype"] = spell(node.dtype)
        case model.SoftLink(target=target):
            item["target"] = target
        case model.ExternalLink(filename=filename, target=target):
            item["target"] = f"{filename}:{target}"
    attributes = getattr(node, "attributes", None)
    if attributes is not None:
        item["nattrs"] = len(attributes.keys() - {m.MARKER})
    return item


def _kind(node: model.Node) -> str:
    match node:
        case model.Group() | model.HardLink(kind="group"):
            return "group"
        case model.Dataset() | model.HardLink(kind="dataset"):
            return "dataset"
        case model.SoftLink():
            return "soft_link"
        case model.ExternalLink():
            return "external_link"
    return "unknown"


def _dataset(node: model.Dataset) -> Fields:
    shape = node.shape
    return {
        "shape": None if shape is None else list(shape),
        "maxshape": None if node.maxshape is None else list(node.maxshape),
        "dtype": spell(node.dtype),
        "chunks": None if node.chunks is None else list(node.chunks),
        "filters": [{"id": stage.id, "name": stage.name, "options": list(stage.options)} for stage in node.filters],
        "fillvalue": _fill(node),
        "nbytes": 0 if shape is None else memory_size(node.dtype) * prod(shape),
        "stored": node.stored,
    }


def _fill(node: model.Dataset) -> Any:
    if node.fill is None or not is_fixed(node.dtype):
        return None
    try:
        array = presentation_of(node.dtype).of_bytes(memoryview(node.fill), ())
    except NDStreamError:
        return None
    value = shown(np.asarray(array), original=False)
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else value
