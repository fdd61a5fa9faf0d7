"""Documents of hdfstream, read into the data model. The reading half of the codec.

A document is decoded by position: what a map means follows from where it stands, never from the keys it has, so that
members and attributes may have any name (specification section 3.10). What an original server leaves out, a server of
ours says in extra keys; what neither says keeps its default.

Source: specification section 3; SPEC.md for the extra keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import DType, Sequence, String, from_numpy, is_fixed, readable, to_numpy
from ndstream.core.elements import restore
from ndstream.core.model import (
    Attribute,
    Dataset,
    Directory,
    ExternalLink,
    File,
    Filter,
    Group,
    HardLink,
    NamedType,
    Node,
    SoftLink,
    Unreadable,
)
from ndstream.errors import NDStreamError, ProtocolError, UnsupportedDType
from ndstream.protocols.hdfstream.conversion import convert, same_bytes
from ndstream.protocols.hdfstream.spelling import element_dtype

Document: TypeAlias = dict[str, Any]

_TYPES = 256  # element types kept
_decode_type = msgspec.msgpack.Decoder(DType).decode


def decode_document(body: bytes) -> Document:
    """Decode the body of an answer.

    Raises
    ------
    ProtocolError
        It is not a msgpack map, or nested too deeply.
    """
    try:
        document = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the answer is no msgpack document: {error}") from None
    if not isinstance(document, dict):
        raise ProtocolError("the answer is msgpack, but no map")
    return document


def decode_entry(document: Document, path: str) -> Directory | File:
    """Read the description of a directory or of a file; `path` is the virtual path that was asked for.

    Raises
    ------
    ProtocolError
    """
    with_path = path.strip("/")
    try:
        if document.get("type") == "directory" or "directories" in document:
            return _directory(document, with_path)
        return _file(document, with_path)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"the description of /{with_path} has an unknown form: {error!r}") from None


def decode_node(document: Document) -> Node:
    """Read the description of an object inside an HDF5 file.

    A member or attribute that has a form of its own becomes `Unreadable`, or has a `problem`: the rest stands.

    Raises
    ------
    ProtocolError
        The document as a whole is not of the form of section 3.
    """
    try:
        return _node(document)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(f"the description has an unknown form: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Elements:
    """A document of variable-length data: `values` flattened, of an array of shape `shape`.

    When `restorable`, they are as `ndstream.core.elements` has them; else str, or arrays, as section 3.9 says.
    """

    shape: tuple[int, ...]
    values: list[Any]
    restorable: bool

    def array(self, dtype: DType | None) -> NDArray[Any]:
        """Make the array: of the type `dtype` as h5py has it, or without, objects as they came.

        Raises
        ------
        ProtocolError
            The elements are not of that type.
        """
        if dtype is not None:
            return restore(self.for_type(dtype), dtype, self.shape)
        result = np.empty(len(self.values), object)
        for position, value in enumerate(self.values):
            result[position] = _fixed(value).array() if isinstance(value, dict) else value
        return result.reshape(self.shape)

    def for_type(self, dtype: DType) -> list[Any]:
        """The values as `ndstream.core.elements` has them."""
        if self.restorable:
            return self.values
        match dtype:
            case String(size=None):
                return [value.encode() if isinstance(value, str) else value for value in self.values]
            case Sequence(base=base):
                target = to_numpy(base)
                return [convert(_fixed(value).array(), target).tobytes() for value in self.values]
            case _:
                raise ProtocolError(f"elements of type {dtype} came as if they were strings")


def decode_elements(document: Document) -> Elements:
    """Read a document of variable-length data.

    Raises
    ------
    ProtocolError
        It is of another form, or has more or fewer elements than its shape.
    """
    try:
        return _elements(document)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"data of variable length has an unknown form: {error!r}") from None


def decode_array(document: Document) -> NDArray[Any]:
    """Read an array of fixed-size elements that is a document or part of one; a view of the bytes where possible.

    Raises
    ------
    ProtocolError
    """
    try:
        return _fixed(document).array()
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"an array has an unknown form: {error!r}") from None


def _directory(document: Document, path: str) -> Directory:
    below = f"{path}/" if path else ""
    return Directory(
        path=path,
        size=_integer(document["size"]),
        files={name: _file(entry, below + name) for name, entry in document["files"].items()},
        directories={
            name: None if entry is None else _directory(entry, below + name)
            for name, entry in document["directories"].items()
        },
        description=document.get("description"),
        labels=document.get("labels"),
    )


def _file(entry: Document, path: str) -> File:
    return File(
        path=path,
        size=_integer(entry["size"]),
        modified=_integer(entry["last_modified"]) * 1_000_000,
        media_type=str(entry["type"]),
        generation=str(entry.get("generation", "")),
    )


def _node(document: Document) -> Node:
    kind = document["hdf5_object"]
    if kind == "group":
        return _group(document)
    if kind == "dataset":
        return _dataset(document)
    if kind == "soft_link":
        return SoftLink(target=str(document["target"]))
    if kind == "datatype" and "dtype" in document:
        return NamedType(
            dtype=_told_type(document["dtype"]),
            attributes=_attributes(document),
            address=document.get("address", 0),
        )
    return Unreadable(problem="the server cannot describe this object", code="dtype")


def _group(document: Document) -> Group:
    more = document.get("more") or {}
    members = {name: _member(member, more.get(name)) for name, member in document["members"].items()}
    # What the standard form leaves out altogether stands only in the extra key.
    members |= {name: _member(None, told) for name, told in more.items() if name not in members}
    links = {name: _external(told["link"]) for name, told in more.items() if "link" in told}
    return Group(attributes=_attributes(document), members=members, address=document.get("address", 0), links=links)


def _external(link: Any) -> ExternalLink:
    filename, target = link
    return ExternalLink(filename=str(filename), target=str(target))


def _member(member: Document | None, told: Mapping[str, Any] | None) -> Node:
    """One member, from its description and from what `more` tells of it."""
    if told is not None and "external" in told:
        return _external(told["external"])
    if told is not None and "problem" in told:
        return Unreadable(problem=str(told["problem"]), code=str(told.get("code", "data")))
    if member is None:
        return HardLink(kind=told.get("kind") if told is not None else None)
    try:
        return _node(member)
    except (NDStreamError, KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        return Unreadable(problem=f"its description has an unknown form: {error}", code="protocol")


def _dataset(document: Document) -> Dataset:
    dtype = _stored_type(document)
    shape = None if document.get("null") else tuple(_integer(size) for size in document["shape"])
    data = document.get("data")
    maxshape = document.get("maxshape")
    chunks = document.get("chunks")
    return Dataset(
        dtype=dtype,
        shape=shape,
        maxshape=tuple(maxshape) if maxshape is not None else shape,
        attributes=_attributes(document),
        storage=document.get("storage", "contiguous"),
        chunks=tuple(chunks) if chunks is not None else None,
        filters=tuple(msgspec.convert(filters, list[Filter])) if (filters := document.get("filters")) else (),
        fill=document.get("fill"),
        data=None if data is None or shape is None else _stored(data, dtype, shape),
        stored=document.get("stored", 0),
        address=document.get("address", 0),
    )


def _stored_type(document: Document) -> DType:
    """Element type in the file: as our server says, or guessed from how it looks on the wire."""
    told = document.get("dtype")
    if told is not None:
        return _told_type(told)
    wire = element_dtype(document["type"])
    # Variable length and compound both are kind "V"; plain numbers of that kind are sequences of them.
    if document.get("kind") == "V" and wire.kind in "iufcbS":
        return Sequence(base=from_numpy(wire))
    return from_numpy(wire)


def _told_type(told: Any) -> DType:
    """Element type as our server describes it; few types describe many datasets."""
    return _type_of(msgspec.msgpack.encode(told))


@lru_cache(maxsize=_TYPES)
def _type_of(encoded: bytes) -> DType:
    dtype: DType = _decode_type(encoded)
    return dtype


def _attributes(document: Document) -> dict[str, Attribute]:
    standard = {name: _attribute(value) for name, value in document["attributes"].items()}
    told = document.get("attributes_more")
    if not told:
        return standard
    merged = standard | {name: msgspec.convert(value, Attribute) for name, value in told.items()}
    return {name: merged[name] for name in sorted(merged)}


def _attribute(value: Any) -> Attribute:
    """One attribute in the standard form, whose type is only known as it looks on the wire."""
    try:
        if isinstance(value, str):
            return Attribute(dtype=String(), shape=(), value=[value.encode()])
        if isinstance(value, dict) and "vlen" in value:
            return _variable_attribute(_elements(value))
        fixed = _fixed(value)
        return Attribute(dtype=from_numpy(fixed.dtype), shape=fixed.shape, value=fixed.body)
    except (ProtocolError, UnsupportedDType, KeyError, TypeError, ValueError) as error:
        return Attribute(dtype=None, shape=None, value=None, problem=f"its form is unknown: {error}")


def _variable_attribute(elements: Elements) -> Attribute:
    first = elements.values[0] if elements.values else ""
    dtype: DType = Sequence(base=from_numpy(_fixed(first).dtype)) if isinstance(first, dict) else String()
    return Attribute(dtype=dtype, shape=elements.shape, value=elements.for_type(dtype))


def _stored(data: Document, dtype: DType, shape: tuple[int, ...]) -> bytes | list[Any]:
    """Data that came with a description, as `Dataset.data` has it."""
    present = readable(dtype)
    if present is None:
        raise ProtocolError("data came for a type that cannot be read")
    if not is_fixed(present):
        elements = _elements(data)
        if elements.shape != shape:
            raise ProtocolError(f"data of shape {elements.shape} came for a dataset of shape {shape}")
        return elements.for_type(present)
    fixed = _fixed(data)
    target = to_numpy(present)
    if prod(fixed.shape + fixed.dtype.shape) != prod(shape + target.shape):
        raise ProtocolError(f"data of shape {fixed.shape} came for a dataset of shape {shape} and type {target}")
    if same_bytes(fixed.dtype.base, target.base):
        return fixed.body
    return convert(np.frombuffer(fixed.body, fixed.dtype.base), target.base).tobytes()


def _elements(document: Document) -> Elements:
    shape = tuple(_integer(size) for size in document["shape"])
    values = document["data"]
    if document.get("vlen") is not True or not isinstance(values, list) or len(values) != prod(shape):
        raise ProtocolError(f"data of variable length and shape {shape} does not have that many elements")
    return Elements(shape, values, restorable=document.get("elements") is True)


@dataclass(frozen=True, slots=True)
class _Fixed:
    """An array of fixed-size elements: `body` holds them in C order."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    body: bytes

    def array(self) -> NDArray[Any]:
        """View them; axes that belong to the element type come last."""
        flat: NDArray[Any] = np.frombuffer(self.body, self.dtype)
        return flat.reshape(self.shape + flat.shape[1:])


def _fixed(document: Document) -> _Fixed:
    if document.get("nd") is not True:
        raise ProtocolError("an array does not say that it is one")
    dtype = element_dtype(document["type"])
    if dtype.hasobject:
        raise ProtocolError("strings of variable length came as if they were fixed")
    shape = tuple(_integer(size) for size in document["shape"])
    pieces = document["data"]
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if len(body) != document["nbytes"] or len(body) != prod(shape) * dtype.itemsize:
        raise ProtocolError(f"{len(body)} bytes came for an array of shape {shape} and type {dtype}")
    return _Fixed(dtype, shape, body)


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a size belongs")
    return value
