"""Element types: what HDF5 can say about one element, and its spelling in numpy.

A `DType` is a value that travels: between the server and its workers, and in every protocol of our own. It says
what is **stored** (byte order, declared sizes, character set, offsets of members), which numpy alone cannot.
`to_numpy` and `from_numpy` translate to and from numpy's spelling as h5py writes it, with its metadata
(``vlen``, ``enum``, ``ref``, ``h5py_encoding``, ``h5py_opaque``), without importing h5py.

A type is *fixed* when every element has the same number of bytes in the file, so that bytes can be moved without
the HDF5 library; strings and sequences of variable length and references are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from ndstream.errors import UnsupportedDType

ByteOrder: TypeAlias = Literal["<", ">"]


class _DType(msgspec.Struct, frozen=True, kw_only=True, tag_field="class", omit_defaults=True):
    """Base of the classes below."""


class Integer(_DType, frozen=True, kw_only=True, tag="integer"):
    """Integer of 1, 2, 4 or 8 bytes; one-byte integers have order ``<``."""

    size: int
    signed: bool = True
    order: ByteOrder = "<"


class Float(_DType, frozen=True, kw_only=True, tag="float"):
    """IEEE 754 number of 2, 4 or 8 bytes, or x86 long double in 16."""

    size: int
    order: ByteOrder = "<"


class Complex(_DType, frozen=True, kw_only=True, tag="complex"):
    """Pair of floats, real part first; `size` is that of both together (8, 16 or 32)."""

    size: int
    order: ByteOrder = "<"


class Boolean(_DType, frozen=True, kw_only=True, tag="boolean"):
    """h5py's boolean: in the file an enumeration of one byte with the names FALSE and TRUE."""


class Bitfield(_DType, frozen=True, kw_only=True, tag="bitfield"):
    """Bits without a number; numpy sees an unsigned integer of `size` bytes."""

    size: int
    order: ByteOrder = "<"


class Enum(_DType, frozen=True, kw_only=True, tag="enum"):
    """Named integers, in the order of their declaration."""

    base: Integer
    members: dict[str, int]

    def __hash__(self) -> int:
        """Let what is made for a type be kept under it, as for all others."""
        return hash((self.base, frozenset(self.members.items())))


class String(_DType, frozen=True, kw_only=True, tag="string"):
    """Text of `size` bytes, or of variable length when `size` is None."""

    size: int | None = None
    charset: Literal["ascii", "utf-8"] = "utf-8"
    padding: Literal["null-terminated", "null-padded", "space-padded"] = "null-padded"


class Opaque(_DType, frozen=True, kw_only=True, tag="opaque"):
    """`size` bytes without meaning to HDF5; `label` is the tag that its writer gave."""

    size: int
    label: str = ""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """Member of a `Compound`; `offset` in bytes from the start of the element."""

    name: str
    dtype: DType
    offset: int


class Compound(_DType, frozen=True, kw_only=True, tag="compound"):
    """Record; members may leave gaps, `size` includes those."""

    fields: tuple[Field, ...]
    size: int


class Array(_DType, frozen=True, kw_only=True, tag="array"):
    """Fixed-size array as an element, C order."""

    base: DType
    shape: tuple[int, ...]


class Sequence(_DType, frozen=True, kw_only=True, tag="sequence"):
    """Variable-length sequence of `base`."""

    base: DType


class Reference(_DType, frozen=True, kw_only=True, tag="reference"):
    """Reference to an object, or to a region of a dataset."""

    to: Literal["object", "region"]


class Foreign(_DType, frozen=True, kw_only=True, tag="foreign"):
    """A type that can be named but not read as it is stored: `name` says what it is, `size` its bytes.

    Numbers of unusual widths are `Foreign` with the type the HDF5 library converts them to in `reads_as`; without
    it (time, floats the library refuses) there is no way to read it. Elements come as `readable` says.
    """

    name: str
    size: int
    reads_as: Integer | Float | Complex | None = None


DType: TypeAlias = (
    Integer
    | Float
    | Complex
    | Boolean
    | Bitfield
    | Enum
    | String
    | Opaque
    | Compound
    | Array
    | Sequence
    | Reference
    | Foreign
)

_CHARSETS: dict[Any, Literal["ascii", "utf-8"]] = {str: "utf-8", bytes: "ascii"}
_REFERENCES: dict[str, Literal["object", "region"]] = {
    "object": "object",
    "region": "region",
    "Reference": "object",
    "RegionReference": "region",
}
_NUMPY_LABEL = "NUMPY:"


def is_fixed(dtype: DType) -> bool:
    """Whether every element takes the same number of bytes, and these alone say what it is."""
    match dtype:
        case String(size=None) | Sequence() | Reference():
            return False
        case Array(base=base):
            return is_fixed(base)
        case Compound(fields=fields):
            return all(is_fixed(field.dtype) for field in fields)
        case _:
            return True


def item_size(dtype: DType) -> int | None:
    """Bytes of one element in the file; None when the type is not fixed."""
    return memory_size(dtype) if is_fixed(dtype) else None


def memory_size(dtype: DType) -> int:
    """Bytes of one element in the memory of a C program: what limits on the size of data are compared with.

    As in the file for fixed types; a string of variable length is a pointer (8), a sequence a length and a pointer
    (16), a reference 8 or, to a region, 12.
    """
    match dtype:
        case Boolean():
            return 1
        case Enum(base=base):
            return base.size
        case Array(base=base, shape=shape):
            return memory_size(base) * prod(shape)
        case Sequence():
            return 16
        case Reference(to=to):
            return 8 if to == "object" else 12
        case String(size=size):
            return 8 if size is None else size
        case _:
            return dtype.size


def readable(dtype: DType) -> DType | None:
    """Type in which elements stored as `dtype` are read; None when there is no way to read them.

    It is the very same object unless there is a `Foreign` in it. This is replaced by what the HDF5 library converts
    it to, and compounds around it are packed: the bytes in the file are then not those that are read.
    """
    match dtype:
        case Foreign(reads_as=reads_as):
            return reads_as
        case Array(base=base) | Sequence(base=base):
            inner = readable(base)
            return dtype if inner is base else inner and msgspec.structs.replace(dtype, base=inner)
        case Compound(fields=fields):
            members = [readable(field.dtype) for field in fields]
            if all(member is field.dtype for member, field in zip(members, fields, strict=True)):
                return dtype
            found = [member for member in members if member is not None]
            return _compound([field.name for field in fields], found) if len(found) == len(fields) else None
        case _:
            return dtype


def holds_references(dtype: DType) -> bool:
    """Whether elements refer to objects of the file that they are in."""
    match dtype:
        case Reference():
            return True
        case Array(base=base) | Sequence(base=base):
            return holds_references(base)
        case Compound(fields=fields):
            return any(holds_references(field.dtype) for field in fields)
        case _:
            return False


def packed(dtype: DType) -> DType:
    """Make the same type without gaps between the members of compounds, at any depth."""
    match dtype:
        case Array(base=base) | Sequence(base=base):
            return msgspec.structs.replace(dtype, base=packed(base))
        case Compound(fields=fields):
            return _compound([field.name for field in fields], [packed(field.dtype) for field in fields])
        case _:
            return dtype


def _compound(names: list[str], dtypes: list[DType]) -> Compound:
    fields = []
    offset = 0
    for name, dtype in zip(names, dtypes, strict=True):
        fields.append(Field(name=name, dtype=dtype, offset=offset))
        offset += memory_size(dtype)
    return Compound(fields=tuple(fields), size=offset)


def to_numpy(dtype: DType, *, references: tuple[type, type] | None = None) -> np.dtype[Any]:
    """Spell an element type as h5py does.

    Parameters
    ----------
    dtype : DType
        A `Foreign` is spelled as what it is read as.
    references : pair of types, optional
        The classes of h5py for references to objects and to regions, for the metadata ``ref``. Without them it is
        the word ``"object"`` or ``"region"``.

    Returns
    -------
    numpy.dtype
        With gaps, byte order and metadata. Numpy cannot say the padding of strings, the labels of opaque types that
        h5py did not write, and whether numbers are bit fields; arrays of arrays become one.

    Raises
    ------
    UnsupportedDType
        Numpy has no such type, or not on this machine.
    """
    try:
        return _spell(dtype, references)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnsupportedDType(f"numpy has no such element type: {error}") from None


def _spell(dtype: DType, references: tuple[type, type] | None) -> np.dtype[Any]:
    match dtype:
        case Integer(size=size, signed=signed, order=order):
            return np.dtype(f"{order}{'i' if signed else 'u'}{size}")
        case Float(size=size, order=order):
            return np.dtype(f"{order}f{size}")
        case Complex(size=size, order=order):
            return np.dtype(f"{order}c{size}")
        case Boolean():
            return np.dtype(np.bool_)
        case Bitfield(size=size, order=order):
            return np.dtype(f"{order}u{size}")
        case Enum(base=base, members=members):
            return _with(_spell(base, references), enum=dict(members))
        case String(size=None, charset=charset):
            return _with(np.dtype("O"), vlen=str if charset == "utf-8" else bytes)
        case String(size=size, charset=charset):
            return _with(np.dtype(f"S{size}"), h5py_encoding=charset)
        case Opaque(size=size, label=label):
            return _opaque(size, label)
        case Compound(fields=fields, size=size):
            return np.dtype(
                {
                    "names": [field.name for field in fields],
                    "formats": [_spell(field.dtype, references) for field in fields],
                    "offsets": [field.offset for field in fields],
                    "itemsize": size,
                }
            )
        case Array(base=base, shape=shape):
            inner = _spell(base, references)
            return np.dtype((inner.base, shape + inner.shape))
        case Sequence(base=base):
            return _with(np.dtype("O"), vlen=_spell(base, references))
        case Reference(to=to):
            return _with(np.dtype("O"), ref=references[to == "region"] if references else to)
        case Foreign(reads_as=None, name=name):
            raise UnsupportedDType(f"elements of type {name} cannot be read")
        case Foreign(reads_as=reads_as):
            assert reads_as is not None
            return _spell(reads_as, references)


def _with(dtype: np.dtype[Any], **metadata: Any) -> np.dtype[Any]:
    return np.dtype(dtype, metadata=metadata)


def _opaque(size: int, label: str) -> np.dtype[Any]:
    plain = np.dtype(f"V{size}")
    if not label.startswith(_NUMPY_LABEL):
        return plain
    try:
        told = np.dtype(label.removeprefix(_NUMPY_LABEL))
    except (TypeError, ValueError, SyntaxError):
        return plain
    # The label comes out of a file: an object type would make pointers of its bytes.
    simple = told.kind in "biufcmMSU" and told.itemsize == size
    return _with(told, h5py_opaque=True) if simple else plain


def from_numpy(dtype: np.dtype[Any]) -> DType:
    """Element type that h5py writes for a dtype of numpy, with h5py's metadata or without.

    Raises
    ------
    UnsupportedDType
        HDF5 has no such type: ``U`` strings, dates without ``h5py.opaque_dtype``, objects without metadata.
    """
    metadata: Mapping[str, Any] = dtype.metadata or {}
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return Array(base=from_numpy(base), shape=shape)
    if "h5py_opaque" in metadata:
        return Opaque(size=dtype.itemsize, label=_NUMPY_LABEL + dtype.str)
    if dtype.names is not None:
        return _from_record(dtype)
    if dtype.kind == "O":
        return _from_object(metadata)
    found = _from_plain(dtype, metadata)
    if "enum" in metadata:
        if not isinstance(found, Integer):
            raise UnsupportedDType(f"only integers have names, not {dtype}")
        return Enum(base=found, members={str(name): int(value) for name, value in metadata["enum"].items()})
    return found


def _from_record(dtype: np.dtype[Any]) -> Compound:
    """Members where numpy has them, or as far behind as HDF5 needs: a sequence takes more there than an object."""
    fields, names = dtype.fields, dtype.names
    assert fields is not None
    assert names is not None
    found = {}
    end = 0
    for name in sorted(names, key=lambda name: fields[name][1]):
        base, offset = fields[name][:2]
        found[name] = Field(name=name, dtype=from_numpy(base), offset=max(offset, end))
        end = found[name].offset + memory_size(found[name].dtype)
    return Compound(fields=tuple(found[name] for name in names), size=max(dtype.itemsize, end))


def _from_plain(dtype: np.dtype[Any], metadata: Mapping[str, Any]) -> DType:
    # numpy says "=" for the order of this machine and "|" for what has none; `str` spells it out.
    order: ByteOrder = ">" if dtype.str[0] == ">" else "<"
    match dtype.kind:
        case "b":
            return Boolean()
        case "i" | "u":
            return Integer(size=dtype.itemsize, signed=dtype.kind == "i", order=order)
        case "f":
            return Float(size=dtype.itemsize, order=order)
        case "c":
            return Complex(size=dtype.itemsize, order=order)
        case "S" if dtype.itemsize:
            utf8 = metadata.get("h5py_encoding") == "utf-8"
            return String(size=dtype.itemsize, charset="utf-8" if utf8 else "ascii")
        case "V" if dtype.itemsize:
            return Opaque(size=dtype.itemsize)
        case "T":
            return String(size=None)
    raise UnsupportedDType(f"HDF5 has no element type for numpy's {dtype}")


def _from_object(metadata: Mapping[str, Any]) -> DType:
    vlen, ref = metadata.get("vlen"), metadata.get("ref")
    if vlen in _CHARSETS:
        return String(size=None, charset=_CHARSETS[vlen])
    if vlen is not None:
        return Sequence(base=from_numpy(np.dtype(vlen)))
    name = ref if isinstance(ref, str) else getattr(ref, "__name__", "")
    if name in _REFERENCES:
        return Reference(to=_REFERENCES[name])
    raise UnsupportedDType("Python objects cannot be stored without saying what they are, as h5py.string_dtype does")
