"""Element types: what HDF5 can say about one element, and its spelling in numpy.

A `DType` is a value that travels: between the server and its workers, and in every protocol of our own. It says
what is **stored** (byte order, declared sizes, character set, offsets of members), which numpy alone cannot.
`to_numpy` and `from_numpy` translate to and from numpy's spelling as h5py writes it, with its metadata
(``vlen``, ``enum``, ``ref``, ``h5py_encoding``, ``h5py_opaque``), without importing h5py.

A type is *fixed* when every element has the same number of bytes in the file, so that bytes can be moved without
the HDF5 library; strings and sequences of variable length and references are not.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

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

    Integers and floats of unusual widths are `Foreign` with the type the HDF5 library converts them to in
    `reads_as`; without it (time, VAX floats the library refuses) there is no way to read it.
    """

    name: str
    size: int
    reads_as: Integer | Float | None = None


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
