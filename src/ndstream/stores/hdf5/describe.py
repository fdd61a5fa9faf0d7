"""What is in an HDF5 file, in the words of `ndstream.core.model`.

Everything goes through h5py's low-level calls: a description of thousands of datasets is the most common thing that
a browser or a client asks for first.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any, Literal

import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5l, h5p, h5s, h5z

from ndstream.core.dtypes import DType, Float, Integer, item_size
from ndstream.core.model import (
    Attribute,
    Dataset,
    ExternalLink,
    Group,
    HardLink,
    NamedType,
    Node,
    SoftLink,
    Unreadable,
)
from ndstream.errors import NotFound, TooLarge, UnsupportedDType
from ndstream.stores.hdf5.dtypes import Kind, kind_of, type_of
from ndstream.stores.hdf5.faults import LIBRARY_ERRORS, translate
from ndstream.stores.hdf5.fetch import read_attribute, read_box, weight
from ndstream.stores.hdf5.filters import filters_of
from ndstream.stores.hdf5.names import text_of
from ndstream.stores.hdf5.references import Names
from ndstream.stores.hdf5.resolve import Found, Resolver, open_member

#: Bytes that a node or an attribute takes in a message besides its name and value, roughly.
_OVERHEAD = 100

_STORAGE: dict[int, Literal["contiguous", "compact", "chunked", "virtual"]] = {
    h5d.CONTIGUOUS: "contiguous",
    h5d.COMPACT: "compact",
    h5d.CHUNKED: "chunked",
    h5d.VIRTUAL: "virtual",
}


class _Full(TooLarge):
    """The description as a whole is too long: no trouble of one member."""


class Describer:
    """Describes objects, for one request.

    Parameters
    ----------
    resolver : Resolver
        Follows external links, and checks datasets that have their elements elsewhere.
    depth, wide, data : int
        See `ndstream.core.ports.Detail`.
    links : int
        Links of one group that are listed.
    document : int, bytes
        How long the description may become.
    """

    __slots__ = ("_data", "_depth", "_left", "_links", "_resolver", "_wide")

    def __init__(
        self, resolver: Resolver, *, depth: int = 0, wide: int = 0, data: int = 0, links: int, document: int
    ) -> None:
        self._resolver = resolver
        self._depth = depth
        self._wide = wide
        self._data = data
        self._links = links
        self._left = document

    def describe(self, found: Found) -> Node:
        """Describe an object and, if it is a group, what is in it.

        Raises
        ------
        TooLarge
            It has too many links, or the description would be too long.
        NDStreamError
            Whatever keeps this very object from being described; trouble with its members is in their nodes.
        """
        match found.object:
            case h5g.GroupID():
                return self._group(found, 0)
            case h5d.DatasetID():
                return self.dataset(found)
            case _:
                return NamedType(
                    dtype=type_of(found.object), attributes=self._attributes(found), address=found.identity
                )

    def dataset(self, found: Found, *, brief: bool = False, plist: h5p.PropDCID | None = None) -> Dataset:
        """Describe a dataset; its sources must have been checked (`Resolver.guard`).

        When `brief`, without attributes, and without the bytes that are stored, for which the library goes through all
        chunks.
        """
        dataset: h5d.DatasetID = found.object
        plist = plist or dataset.get_create_plist()
        kind = kind_of(dataset.get_type())
        if kind.handle > self._left:
            raise UnsupportedDType("one element is larger than a description may be (document)")
        self._spend(kind.length + kind.handle)
        space = dataset.get_space()
        layout = plist.get_layout()
        shape = _shape(space)
        return Dataset(
            dtype=kind.dtype,
            shape=shape,
            maxshape=_maxshape(space) if shape else shape,
            attributes={} if brief else self._attributes(found),
            storage="external" if plist.get_external_count() else _STORAGE[layout],
            chunks=plist.get_chunk() if layout == h5d.CHUNKED else None,
            filters=filters_of(plist),
            fill=_fill(plist, dataset, kind.dtype),
            data=self._inline(found, kind, shape),
            stored=0 if brief else dataset.get_storage_size(),
            address=found.identity,
        )

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise _Full("the description is longer than the limit (document); ask for less depth")

    def _group(self, found: Found, distance: int) -> Group:
        group: h5g.GroupID = found.object
        count = group.get_num_objs()
        if count > self._links:
            raise TooLarge(f"the group has {count} links, the limit (links) is {self._links}")
        listed = _links(group)
        self._spend(sum(_OVERHEAD + len(name) for name, _, _ in listed))
        attributes = self._attributes(found)
        if distance and (distance >= self._depth or count > self._wide):
            names: dict[str, Node] = {text_of(name): HardLink() for name, _, _ in listed}
            return Group(attributes=attributes, members=names, address=found.identity)
        members = {text_of(name): self._member(found, name, kind, address, distance) for name, kind, address in listed}
        links = {text_of(name): _external(group, name) for name, kind, _ in listed if kind == h5l.TYPE_EXTERNAL}
        return Group(attributes=attributes, members=members, address=found.identity, links=links)

    def _member(self, parent: Found, name: bytes, kind: int, address: int, distance: int) -> Node:
        try:
            if kind == h5l.TYPE_HARD:
                found = Found(parent.file, open_member(parent.object, name), address)
                return self._known(found, distance)
            if kind == h5l.TYPE_SOFT:
                return SoftLink(target=text_of(parent.object.links.get_val(name)))
            if kind == h5l.TYPE_EXTERNAL:
                return self._beyond(parent, name, distance)
            return Unreadable(problem="a link of a kind that only its writer can follow")
        except _Full:
            raise
        except LIBRARY_ERRORS as error:
            known = translate(error)
            return Unreadable(problem=str(known), code=known.code)

    def _known(self, found: Found, distance: int) -> Node:
        """Describe what a link of a group at `distance` leads to."""
        match found.object:
            case h5g.GroupID():
                if distance >= self._depth or found.object.get_num_objs() > self._links:
                    return HardLink(kind="group")
                return self._group(found, distance + 1)
            case h5d.DatasetID():
                plist = found.object.get_create_plist()
                self._resolver.guard(found, plist)
                return self.dataset(found, plist=plist)
            case _:
                return self.describe(found)

    def _beyond(self, parent: Found, name: bytes, distance: int) -> Node:
        filename, target = parent.object.links.get_val(name)
        try:
            found = self._resolver.follow(parent.file, filename, target)
        except NotFound:
            return _external(parent.object, name)
        return self._known(found, distance)

    def _attributes(self, found: Found) -> dict[str, Attribute]:
        if not h5a.get_num_attrs(found.object):
            return {}
        names: list[bytes] = []
        h5a.iterate(found.object, names.append)
        return {text_of(name): self._attribute(found, name) for name in sorted(names)}

    def _attribute(self, found: Found, name: bytes) -> Attribute:
        self._spend(_OVERHEAD + len(name))
        kind: Kind | None = None
        shape: tuple[int, ...] | None = None
        try:
            attribute = h5a.open(found.object, name)
            kind = kind_of(attribute.get_type())
            self._spend(kind.length)
            shape = _shape(attribute.get_space())
            if shape is None:
                return Attribute(dtype=kind.dtype, shape=None, value=None)
            count = prod(shape)
            if count * kind.handle > self._left:
                return Attribute(dtype=kind.dtype, shape=shape, value=None, problem="too large for a description")
            value = read_attribute(attribute, kind, count, Names(found.file, found.object))
        except _Full:
            raise
        except LIBRARY_ERRORS as error:
            dtype = None if kind is None else kind.dtype
            return Attribute(dtype=dtype, shape=shape, value=None, problem=str(translate(error)))
        self._spend(count * kind.handle if kind.size is not None else weight(value))
        return Attribute(dtype=kind.dtype, shape=shape, value=value)

    def _inline(self, found: Found, kind: Kind, shape: tuple[int, ...] | None) -> bytes | list[Any] | None:
        if shape is None or prod(shape) * kind.handle > self._data:
            return None
        box = ((0,) * len(shape), shape, (1,) * len(shape))
        try:
            value = read_box(
                found.object, box, most=max(self._data, _OVERHEAD), name_of=Names(found.file, found.object)
            )
        except LIBRARY_ERRORS:
            # Whoever reads the dataset is told why it cannot be read; whoever only looks at it is not.
            return None
        self._spend(weight(value))
        return value


def _links(group: h5g.GroupID) -> list[tuple[bytes, int, int]]:
    """Name, kind and, of hard links, address, in the order of the name index."""
    found: list[tuple[bytes, int, int]] = []

    def note(name: bytes, link: h5l.LinkInfo) -> None:
        # One and the same object comes for every link.
        found.append((name, link.type, link.u if link.type == h5l.TYPE_HARD else 0))

    group.links.iterate(note, info=True)
    return found


def _external(group: h5g.GroupID, name: bytes) -> ExternalLink:
    filename, target = group.links.get_val(name)
    return ExternalLink(filename=text_of(filename), target=text_of(target))


def _shape(space: h5s.SpaceID) -> tuple[int, ...] | None:
    kind = space.get_simple_extent_type()
    if kind == h5s.SIMPLE:
        shape: tuple[int, ...] = space.get_simple_extent_dims()
        return shape
    return () if kind == h5s.SCALAR else None


def _maxshape(space: h5s.SpaceID) -> tuple[int | None, ...]:
    return tuple(None if size == h5s.UNLIMITED else size for size in space.get_simple_extent_dims(True))


def _fill(plist: h5p.PropDCID, dataset: h5d.DatasetID, dtype: DType) -> bytes | None:
    """Fill value as it would be stored; None when there is none, or it has no fixed size."""
    size = item_size(dtype)
    status = plist.fill_value_defined()
    if size is None or status == h5d.FILL_VALUE_UNDEFINED:
        return None
    if status == h5d.FILL_VALUE_DEFAULT:
        return bytes(size)
    if isinstance(dtype, Integer | Float):
        code = "f" if isinstance(dtype, Float) else "i" if dtype.signed else "u"
        value = np.empty(1, f"{dtype.order}{code}{size}")
        plist.get_fill_value(value)
        return value.tobytes()
    return None if plist.get_external_count() else _fill_of_any(plist, dataset, size)


def _fill_of_any(plist: h5p.PropDCID, dataset: h5d.DatasetID, size: int) -> bytes:
    """Let a dataset in memory, to which nothing was written, show the bytes: h5py only gives numpy's spelling."""
    creation = plist.copy()
    creation.set_layout(h5d.CONTIGUOUS)
    creation.remove_filter(h5z.FILTER_ALL)
    creation.set_alloc_time(h5d.ALLOC_TIME_LATE)
    creation.set_fill_time(h5d.FILL_TIME_IFSET)
    kind = dataset.get_type().copy()  # not the committed one of the other file
    one = h5s.create_simple((1,))
    blank = h5d.create(_scratch(), None, kind, one, creation)
    data = np.empty(size, np.uint8)
    blank.read(one, one, data, mtype=kind)
    return data.tobytes()


@cache
def _scratch() -> h5f.FileID:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    return h5f.create(b"ndstream-scratch", h5f.ACC_TRUNC, fapl=access)
