"""From descriptions to documents: what a client is told about directories, files and objects.

A stock client is told what it can digest, and nothing else (SPEC.md, "Stock clients"); one that announced itself gets
extra keys behind the standard ones. Data too long to be held here is left as a hole, that the service fills.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from msgspec import UNSET, Raw, UnsetType

from ndstream.core.dtypes import Array, Compound, DType, Reference, Sequence, String, is_fixed, readable
from ndstream.core.model import (
    Attribute,
    Dataset,
    Directory,
    ExternalLink,
    File,
    Group,
    HardLink,
    NamedType,
    Node,
    SoftLink,
    Unreadable,
)
from ndstream.errors import DataError, UnsupportedDType, by_code
from ndstream.protocols.hdfstream.messages import (
    AttributeDocument,
    DatasetDocument,
    DirectoryDocument,
    FileEntry,
    GroupDocument,
    NamedTypeDocument,
    NDArray_,
    ObjectDocument,
    SoftLinkDocument,
    VLenArray,
)
from ndstream.protocols.hdfstream.wire_types import WireType, wire_type

WIDEST = 20
"""Links of a group that is looked into below the requested object."""

# -- names that stock clients take for something else --

_ALIASES = re.compile(r"(nd|vlen)~+")


def disguise(names: Collection[str]) -> Mapping[str, str]:
    """Names under which a stock client can be shown `names`, for those it would choke on: nd and vlen.

    These get a tilde behind them, more when there is such a name already; `reveal` takes tildes away.
    """
    changed: dict[str, str] = {}
    for name in ("nd", "vlen"):
        if name in names:
            alias = name + "~"
            while alias in names:
                alias += "~"
            changed[name] = alias
    return changed


def reveal(path: str) -> str:
    """Undo `disguise` in every component of a path."""
    if "~" not in path:
        return path
    return "/".join(found[1] if (found := _ALIASES.fullmatch(part)) else part for part in path.split("/"))


# -- directories and files --


def file_entry(file: File, *, extended: bool) -> FileEntry:
    """Describe a file."""
    return FileEntry(
        type=file.media_type,
        size=file.size,
        last_modified=file.modified // 1_000_000,
        generation=file.generation if extended else UNSET,
    )


def directory_document(directory: Directory, *, extended: bool) -> DirectoryDocument:
    """Describe a directory, and those in it that were looked into."""
    names = [*directory.files, *directory.directories, *(directory.labels or ())]
    alias = {} if extended else disguise(names)
    labels = directory.labels
    return DirectoryDocument(
        size=directory.size,
        description=directory.description,
        labels=None if labels is None else {alias.get(name, name): text for name, text in labels.items()},
        files={alias.get(name, name): file_entry(file, extended=extended) for name, file in directory.files.items()},
        directories={
            alias.get(name, name): None if sub is None else directory_document(sub, extended=extended)
            for name, sub in directory.directories.items()
        },
    )


# -- data of variable length --


def carried(elements: list[Any], dtype: DType) -> list[Any]:
    """Turn elements (`ndstream.core.elements`) of a type that is not fixed into those of a standard vlen document."""
    match dtype:
        case String():
            return [element.decode(errors="replace") for element in elements]
        case Reference(to="object"):
            return [element or "" for element in elements]
        case Sequence(base=base) if is_fixed(base):
            return [_nested(element, wire_type(base)) for element in elements]
        case _:
            return [_plain(element, dtype) for element in elements]


def _nested(element: bytes, wire: WireType) -> NDArray_:
    assert wire.stored is not None
    count = len(element) // (wire.stored.itemsize * prod(wire.dims))
    return fixed_array(wire, (count,), element)


def _plain(element: Any, dtype: DType) -> Any:
    """Turn one element of any type into values that msgpack has, readable without knowing the type."""
    match dtype:
        case String(size=None):
            return element.decode(errors="replace")
        case Reference():
            return element
        case Compound(fields=fields) if isinstance(element, list):
            alias = disguise([member.name for member in fields])
            return {
                alias.get(member.name, member.name): _plain(value, member.dtype)
                for member, value in zip(fields, element, strict=True)
            }
        case Array(base=base) | Sequence(base=base) if isinstance(element, list):
            return [_plain(value, base) for value in element]
        case Sequence(base=base):
            wire = wire_type(base)
            return [_numbers(row) for row in wire.array(element)]
        case _:
            return _numbers(wire_type(dtype).array(element)[0])


def _numbers(value: Any) -> Any:
    """Turn what numpy holds into plain numbers, lists, bytes and maps; complex numbers into pairs."""
    array = np.asarray(value)
    if array.dtype.names:
        if array.ndim:
            return [_numbers(row) for row in array]
        alias = disguise(array.dtype.names)
        return {alias.get(name, name): _numbers(array[name]) for name in array.dtype.names}
    if array.dtype.kind == "c":
        return _numbers(np.stack([array.real, array.imag], axis=-1))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array.tolist()


def fixed_array(wire: WireType, shape: tuple[int, ...], stored: bytes) -> NDArray_:
    """Make an array document of stored bytes, spelled as the original server spells attributes."""
    data = wire.convert(stored)
    return NDArray_(
        type=wire.element,
        kind=wire.kind,
        shape=shape + wire.dims,
        nbytes=len(data),
        data=[data] if len(data) else [],
    )


def spelled(wire: WireType, *, extended: bool) -> Any:
    """Spelling of the type of a dataset, and of the arrays that are read from it.

    Our own clients get the axes of an array type with the type. Stock clients cannot read such a type: they get the
    axes behind those of the dataset.
    """
    if not extended:
        return wire.mapped
    return [wire.element, wire.dims] if wire.dims else wire.element


# -- objects --


@dataclass(frozen=True, slots=True, kw_only=True)
class Describer:
    """Makes documents of nodes.

    Parameters
    ----------
    limit : int, bytes
        Datasets that take more come without data.
    depth : int
        Levels below the requested object to which groups are looked into.
    extended
        Whether the client understands our extension.
    holes : mapping
        What stands for the data of a dataset, by its name, where the node does not hold it: see `holes`.
    """

    limit: int
    depth: int = 0
    extended: bool
    holes: Mapping[str, Raw] = field(default_factory=dict)

    def document(self, node: Node, name: str) -> ObjectDocument:
        """Describe the object called `name`.

        Raises
        ------
        DataError
            It cannot be described, or not to this client.
        """
        found = self._object(node, name, 0)
        if found is not None:
            return found
        if isinstance(node, Unreadable):
            raise by_code(node.code)(node.problem)
        if isinstance(node, NamedType):
            raise UnsupportedDType(f"{name} is a datatype, which this client cannot be told about")
        raise DataError(f"{name} cannot be described")

    def missing(self, node: Node, name: str) -> Iterator[str]:
        """Names of the datasets in a description whose data should come along and is not there."""
        if isinstance(node, Dataset):
            if node.data is None and node.shape is not None and self._fits(node):
                yield name
        elif isinstance(node, Group):
            for member, child in node.members.items():
                yield from self.missing(child, f"{name.rstrip('/')}/{member}")

    def _fits(self, node: Dataset) -> bool:
        wire = wire_type(node.dtype)
        return wire.carrier != "nothing" and 0 < prod(node.shape or ()) * wire.size <= self.limit

    def _object(self, node: Node, name: str, level: int) -> ObjectDocument | None:
        match node:
            case Dataset():
                return self._dataset(node, name)
            case Group():
                return self._group(node, name, level)
            case SoftLink(target=target):
                return SoftLinkDocument(target=target)
            case NamedType(dtype=dtype, address=address) if self.extended:
                attributes, more = self._attributes(node.attributes)
                return NamedTypeDocument(attributes=attributes, dtype=dtype, address=address, attributes_more=more)
            case _:
                return None

    def _group(self, node: Group, name: str, level: int) -> GroupDocument:
        prefix = name.rstrip("/") + "/"
        alias = {} if self.extended else disguise(node.members)
        # Where a group is not looked into, even links that are known come as nil.
        looked_into = level == 0 or (level < self.depth and len(node.members) <= WIDEST)
        members = {
            alias.get(key, key): self._object(child, prefix + key, level + 1) if looked_into else None
            for key, child in node.members.items()
        }
        attributes, attributes_more = self._attributes(node.attributes)
        if not self.extended:
            return GroupDocument(attributes=attributes, members=members)
        more = {key: told for key, child in node.members.items() if (told := _told(child, node.links.get(key)))}
        return GroupDocument(
            attributes=attributes,
            members=members,
            address=node.address,
            more=more or UNSET,
            attributes_more=attributes_more,
        )

    def _dataset(self, node: Dataset, name: str) -> DatasetDocument:
        wire = wire_type(node.dtype)
        shape = (0,) if node.shape is None else node.shape
        expanded = () if self.extended else wire.dims
        attributes, more = self._attributes(node.attributes)
        standard = DatasetDocument(
            attributes=attributes,
            type=spelled(wire, extended=self.extended),
            kind=wire.kind,
            shape=shape + expanded,
            data=self._data(node, wire, name),
        )
        if not self.extended:
            return standard
        return DatasetDocument(
            attributes=attributes,
            type=standard.type,
            kind=wire.kind,
            shape=shape,
            data=standard.data,
            dtype=node.dtype,
            maxshape=node.maxshape,
            chunks=node.chunks,
            filters=node.filters,
            fill=node.fill,
            null=True if node.shape is None else UNSET,
            storage=node.storage,
            stored=node.stored,
            address=node.address,
            attributes_more=more,
        )

    def _data(self, node: Dataset, wire: WireType, name: str) -> NDArray_ | VLenArray | Raw | UnsetType:
        """Data that comes along with the description: held in it, or a hole, or none."""
        shape = (0,) if node.shape is None else node.shape
        count = prod(shape)
        if wire.carrier == "nothing" or count * wire.size > self.limit:
            return UNSET
        if count == 0:
            stored: bytes | list[Any] | None = b"" if wire.carrier == "bytes" else []
        else:
            stored = node.data
        if stored is None:
            return self.holes.get(name, UNSET)
        if isinstance(stored, list):
            return self._variable(node.dtype, shape, stored)
        data = wire.convert(stored)
        return NDArray_(
            type=spelled(wire, extended=self.extended),
            kind=wire.kind,
            shape=shape if self.extended else shape + wire.dims,
            nbytes=len(data),
            data=[data] if len(data) else [],
        )

    def _variable(self, dtype: DType, shape: tuple[int, ...], elements: list[Any]) -> VLenArray:
        if self.extended:
            return VLenArray(shape=shape, data=elements, elements=True)
        return VLenArray(shape=shape, data=carried(elements, readable(dtype) or dtype))

    def _attributes(
        self, attributes: Mapping[str, Attribute]
    ) -> tuple[dict[str, Any], dict[str, AttributeDocument] | UnsetType]:
        """Attributes in the standard form, and all that this does not say."""
        alias = {} if self.extended else disguise(attributes)
        standard: dict[str, Any] = {}
        more: dict[str, AttributeDocument] = {}
        for name, attribute in attributes.items():
            document, complete = _attribute(attribute)
            if document is not None:
                standard[alias.get(name, name)] = document
            if self.extended and not complete:
                more[name] = AttributeDocument(
                    dtype=attribute.dtype,
                    shape=attribute.shape,
                    value=attribute.value,
                    problem=UNSET if attribute.problem is None else attribute.problem,
                )
        return standard, more or UNSET


def _attribute(attribute: Attribute) -> tuple[NDArray_ | VLenArray | None, bool]:
    """Put an attribute in the standard form, if it has one, and say whether that form says everything."""
    dtype, shape, value = attribute.dtype, attribute.shape, attribute.value
    if dtype is None or shape is None or value is None:
        return None, False
    wire = wire_type(dtype)
    if wire.carrier == "bytes" and isinstance(value, bytes):
        return fixed_array(wire, shape, value), wire.faithful
    if wire.carrier in ("strings", "arrays") and isinstance(value, list):
        elements = carried(value, readable(dtype) or dtype)
        lossless = wire.carrier == "arrays" or not any("\ufffd" in text for text in elements)
        return VLenArray(shape=shape, data=elements), wire.faithful and lossless
    return None, False


def _told(node: Node, link: ExternalLink | None) -> dict[str, Any]:
    """What the standard form of a member, found behind a link if there is one, does not say."""
    behind = {"link": (link.filename, link.target)} if link is not None else {}
    match node:
        case ExternalLink(filename=filename, target=target):
            return {"external": (filename, target)}
        case Unreadable(problem=problem, code=code):
            return behind | {"problem": problem, "code": code}
        case HardLink(kind=kind) if kind is not None:
            return behind | {"kind": kind}
        case _:
            return behind
