"""HDF5 files with something of everything in them, for tests.

Each part of the file is a group of its own, made by the function that is named like it; tests pick by name, or walk
everything. What this machine's libraries cannot write is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

__all__ = ["counted", "write_sample"]

SHAPE = (7, 5)
_KINDS = ("i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
_NUMBERS = ("i1", "u1", *(order + kind for kind in _KINDS for order in "<>"))


def write_sample(path: Path, *, libver: str | tuple[str, str] = "earliest") -> Path:
    """Write a file with every element type, layout, filter, link, attribute, dataspace and name.

    Parameters
    ----------
    path : Path
        File to make; ``<stem>_parts.h5`` and ``<stem>_raw.bin``, which it refers to, are made beside it.
    libver
        Oldest and newest format, as of `h5py.File`.

    Returns
    -------
    Path
        `path`.
    """
    with h5py.File(path.with_name(f"{path.stem}_parts.h5"), "w", libver=libver) as parts:
        _parts(parts)
    with h5py.File(path, "w", libver=libver) as file:
        for part in _PARTS:
            part(file.create_group(part.__name__.strip("_")))
        file.attrs["title"] = "sample"
    return path


def counted(dtype: str | np.dtype[Any], shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, np.dtype[Any]]:
    """Make an array whose elements all differ as far as the type allows."""
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


def _parts(file: h5py.File) -> None:
    file["counted"] = counted("<i4")
    file["group/inner"] = counted("<f8")
    file["group"].attrs["where"] = "in the other file"


def _types(group: h5py.Group) -> None:
    for spelling in _NUMBERS:
        name = spelling.replace("<", "little_").replace(">", "big_")
        group[name] = counted(spelling)
    group["long_double"] = counted("<f16") / 3
    group["boolean"] = counted("i1") % 2 == 0
    group.create_dataset("enumeration", data=counted("<i2") % 3, dtype=h5py.enum_dtype({"Z": 2, "A": 0, "m": 1}, "<i2"))
    group["fixed_ascii"] = np.array([b"", b"a", b"abc\0", b"abcd"], "S4")
    group.create_dataset("fixed_utf8", data=["ä".encode(), b"x"], dtype=h5py.string_dtype("utf-8", 6))
    group.create_dataset("text", data=["", "ascii", "größer", "x" * 1000], dtype=h5py.string_dtype())
    group.create_dataset("text_ascii", data=[b"one", b"two"], dtype=h5py.string_dtype("ascii"))
    group["record"] = _records(np.dtype([("a", "<i4"), ("b", ">f8"), ("c", "S3")]))
    group["record_gaps"] = _records(np.dtype({"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [3, 8]}))
    inner = np.dtype([("x", "<f4"), ("y", "<i2", (2, 3))])
    group["record_nested"] = _records(np.dtype([("inner", inner), ("many", inner, (2,)), ("flag", "?")]))
    group.create_dataset("record_text", (3,), np.dtype([("id", "<i4"), ("name", h5py.string_dtype())]))
    group["record_text"][...] = np.array([(1, "one"), (2, ""), (3, "drei")], group["record_text"].dtype)
    group.create_dataset("array", (4,), np.dtype(("<i4", (2, 3))))[...] = np.arange(24).reshape(4, 2, 3)
    group.create_dataset("sequence", (4,), h5py.vlen_dtype(np.dtype("<i4")))
    for index in range(3):  # the last one is never written
        group["sequence"][index] = np.arange(index * 2)
    group["opaque"] = np.array([b"\x00\x01\x02", b"abc"], "V3")
    days = np.array(["2024-02-29", "1969-12-31"], "datetime64[D]")
    group["date"] = days.astype(h5py.opaque_dtype(days.dtype))
    group["object_reference"] = np.array([group["boolean"].ref, group.ref, h5py.Reference()], h5py.ref_dtype)
    regions = [group["u1"].regionref[1:3, ::2], group["u1"].regionref[[0, 2], 1]]
    group.create_dataset("region_reference", data=np.array(regions, h5py.regionref_dtype), dtype=h5py.regionref_dtype)
    group["committed"] = np.dtype([("a", "<i4")])
    group["committed"].attrs["unit"] = "m"
    group.create_dataset("of_committed", (2,), group["committed"])
    _exotic_types(group)


def _records(dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """Fill three records with bytes that differ, booleans with booleans."""
    records = np.zeros(3, dtype)
    for name in dtype.names or ():
        field = records[name]
        if field.dtype.names:
            records[name] = _records(field.dtype)[0]
        elif field.dtype.kind == "S":
            records[name] = [b"", b"x", b"xyz"]
        else:
            records[name] = np.arange(1, 1 + field.size).reshape(field.shape)
    return records


def _exotic_types(group: h5py.Group) -> None:
    """Types that h5py reads or describes, but does not write by itself."""
    narrow = h5t.STD_I32LE.copy()
    narrow.set_precision(20)
    narrow.set_offset(4)
    odd = h5t.STD_I32LE.copy()
    odd.set_size(3)
    brain = h5t.IEEE_F32LE.copy()  # bfloat16
    brain.set_fields(15, 7, 8, 0, 7)
    brain.set_size(2)
    brain.set_ebias(127)
    low: dict[str, tuple[h5t.TypeID, np.ndarray[Any, np.dtype[Any]]]] = {
        "bitfield": (h5t.STD_B8LE, counted("u1")),
        "integer_20_bits": (narrow, counted("<i4")),
        "integer_3_bytes": (odd, counted("<i4")),
        "bfloat16": (brain, counted("<f4")),
    }
    for padding in ("nullterm", "spacepad"):
        text = h5t.C_S1.copy()
        text.set_size(5)
        text.set_strpad(getattr(h5t, f"STR_{padding.upper()}"))
        low[f"text_{padding}"] = text, np.array([b"ab", b"abcd", b""], "S5")
    for name, (stored, values) in low.items():
        dataset = h5d.create(group.id, name.encode(), stored, h5s.create_simple(values.shape))
        memory = stored if stored.get_class() in (h5t.STRING, h5t.BITFIELD) else h5t.py_create(values.dtype)
        dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(values), memory)
    h5d.create(group.id, b"time", h5t.UNIX_D32LE, h5s.create_simple((2,)))


def _layouts(group: h5py.Group) -> None:
    file = Path(group.file.filename)
    group["contiguous"] = counted("<i4")
    group.create_dataset("never_written", SHAPE, "<i4", fillvalue=7)
    group.create_dataset("never_written_chunks", SHAPE, "<i4", fillvalue=-7, chunks=(2, 2))
    group.create_dataset("chunked", data=counted("<i4"), chunks=(3, 2))
    group.create_dataset("one_chunk", data=counted("<i4"), chunks=SHAPE)
    group.create_dataset("growing", data=counted("<i4"), chunks=(2, 5), maxshape=(None, 5))
    group.create_dataset("growing_both", data=counted("<i4"), chunks=(2, 2), maxshape=(None, None))
    sparse = group.create_dataset("sparse", (20, 20), "<f4", chunks=(6, 6), fillvalue=2.5)
    sparse[7:9, 3:15] = 1
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    _create(group, "compact", counted("<i4"), compact)
    external = h5p.create(h5p.DATASET_CREATE)
    external.set_external(f"{file.stem}_raw.bin".encode(), 8, counted("<i4").nbytes)
    file.with_name(f"{file.stem}_raw.bin").write_bytes(bytes(8) + counted("<i4").tobytes())
    h5d.create(group.id, b"external", h5t.STD_I32LE, h5s.create_simple(SHAPE), external)
    partial = h5p.create(h5p.DATASET_CREATE)
    partial.set_chunk((3, 2))
    partial.set_deflate(1)
    with suppress(AttributeError):  # since h5py 3.14
        partial.set_chunk_opts(h5d.CHUNK_DONT_FILTER_PARTIAL_CHUNKS)
    with suppress(ValueError):  # the oldest file format has no place for the option
        _create(group, "unfiltered_edges", counted("<i4"), partial)
    _virtual(group, file)


def _create(group: h5py.Group, name: str, values: np.ndarray[Any, np.dtype[Any]], options: h5p.PropDCID) -> None:
    space = h5s.create_simple(values.shape)
    h5d.create(group.id, name.encode(), h5t.py_create(values.dtype), space, options).write(h5s.ALL, h5s.ALL, values)


def _virtual(group: h5py.Group, file: Path) -> None:
    here = h5py.VirtualSource(".", f"{group.name}/contiguous", SHAPE, "<i4")
    there = h5py.VirtualSource(f"{file.stem}_parts.h5", "counted", SHAPE, "<i4")
    layout = h5py.VirtualLayout((3, *SHAPE), "<i4")
    layout[0] = here
    layout[1] = there
    group.create_virtual_dataset("virtual", layout, fillvalue=-1)


def _filters(group: h5py.Group) -> None:
    shape = (40, 30)
    numbers = counted("<i4", shape) % 500
    options: dict[str, dict[str, Any]] = {
        "gzip": {"compression": "gzip", "compression_opts": 4},
        "gzip_shuffle": {"compression": "gzip", "shuffle": True},
        "gzip_shuffle_fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "shuffle": {"shuffle": True},
        "fletcher32": {"fletcher32": True},
        "lzf": {"compression": "lzf"},
        "lzf_shuffle": {"compression": "lzf", "shuffle": True},
        "scale_offset": {"scaleoffset": 0},
        "szip": {"compression": "szip"},
    }
    options |= _plugin_options()
    for name, option in options.items():
        with suppress(ValueError):  # not compiled into this HDF5
            group.create_dataset(name, data=numbers, chunks=(16, 16), **option)
    group.create_dataset("scale_offset_float", data=numbers / 4, dtype="<f4", chunks=(16, 16), scaleoffset=2)
    nbit = h5p.create(h5p.DATASET_CREATE)
    nbit.set_chunk((16, 16))
    nbit.set_filter(h5py.h5z.FILTER_NBIT, 0)
    narrow = h5t.STD_I32LE.copy()
    narrow.set_precision(20)
    dataset = h5d.create(group.id, b"nbit", narrow, h5s.create_simple(shape), nbit)
    dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(numbers), h5t.NATIVE_INT32)
    mixed = group.create_dataset("some_unfiltered", (4, 256), "<i4", chunks=(1, 256), compression="gzip")
    mixed[...] = np.arange(1024).reshape(4, 256)
    mixed.id.write_direct_chunk((2, 0), np.arange(256, dtype="<i4").tobytes(), filter_mask=1)


def _plugin_options() -> dict[str, dict[str, Any]]:
    try:
        import hdf5plugin  # an extra
    except ImportError:
        return {}
    return {
        "blosc": hdf5plugin.Blosc(),
        "blosc2": hdf5plugin.Blosc2(),
        "bitshuffle": hdf5plugin.Bitshuffle(),
        "bzip2": hdf5plugin.BZip2(),
        "lz4": hdf5plugin.LZ4(),
        "zstd": hdf5plugin.Zstd(),
        "zstd_shuffle": {**hdf5plugin.Zstd(), "shuffle": True},
    }


def _spaces(group: h5py.Group) -> None:
    group["scalar"] = np.float64(1.5)
    group["scalar_text"] = "größe"
    group["scalar_record"] = np.array((1, 2.0), [("a", "<i4"), ("b", "<f8")])
    group["null"] = h5py.Empty("<f4")
    group["null_text"] = h5py.Empty(h5py.string_dtype())
    group.create_dataset("empty", (0,), "<i4")
    group.create_dataset("empty_middle", (3, 0, 2), "<f8")
    group.create_dataset("empty_growing", (0, 4), "<f8", maxshape=(None, 4), chunks=(8, 4))
    group.create_dataset("empty_text", (0,), h5py.string_dtype())
    group["eight_axes"] = counted("<i2", (1, 2, 1, 3, 1, 2, 1, 2))


def _links(group: h5py.Group) -> None:
    parts = f"{Path(group.file.filename).stem}_parts.h5"
    group["data"] = counted("<i4")
    group["below/data"] = counted("<i8")
    group["hard"] = group["data"]
    group["below/cycle"] = group
    for name, target in {
        "soft": f"{group.name}/data",
        "soft_relative": "below/data",
        "soft_to_group": "below",
        "soft_chain": "soft",
        "soft_broken": "/nowhere",
        "soft_cycle": "soft_cycle",
    }.items():
        group[name] = h5py.SoftLink(target)
    for name, (file, target) in {
        "external": (parts, "/counted"),
        "external_group": (parts, "/group"),
        "external_broken_object": (parts, "/nowhere"),
        "external_broken_file": ("nowhere.h5", "/"),
        "external_absolute": ("/etc/hostname", "/"),
        "external_out": (f"../../../../../../../../tmp/{parts}", "/"),
    }.items():
        group[name] = h5py.ExternalLink(file, target)


def _attributes(group: h5py.Group) -> None:
    group["dataset"] = counted("<i4")
    for owner in (group, group["dataset"]):
        attributes = owner.attrs
        for spelling in _NUMBERS:
            attributes[spelling] = counted(spelling, (3,))
        attributes["text"] = "größer"
        attributes["texts"] = np.array(["a", "", "ü"], h5py.string_dtype())
        attributes.create("fixed", b"ab", dtype="S10")
        attributes["boolean"] = np.True_
        attributes.create("enumeration", 1, dtype=h5py.enum_dtype({"OFF": 0, "ON": 1}, "i1"))
        attributes["record"] = np.array([(1, 2.0)], [("a", "<i4"), ("b", ">f8")])
        attributes.create("array", np.arange(6).reshape(2, 3), dtype=np.dtype(("<i4", (3,))))
        attributes["scalar"] = 5
        attributes["matrix"] = counted("<f8", (2, 3))
        attributes["null"] = h5py.Empty("<f8")
        attributes["empty"] = np.zeros((0,), "<f4")
        attributes["reference"] = group.ref
        attributes["references"] = np.array([group.ref, owner.ref], h5py.ref_dtype)
        sequence = np.empty(2, object)
        sequence[:] = [np.arange(3, dtype="<i4"), np.arange(0, dtype="<i4")]
        attributes.create("sequence", sequence, dtype=h5py.vlen_dtype(np.dtype("<i4")))
        attributes["opaque"] = np.void(b"\x00\x01")
        attributes["größe"] = 1
        attributes["with space"] = 2
        attributes["nd"] = 3
        attributes["vlen"] = "four"
    many = group.create_group("many")
    for number in range(100):
        many.attrs[f"attribute {number}"] = number


def _names(group: h5py.Group) -> None:
    for name in (
        "nd",
        "vlen",
        "größe",
        "日本語",
        "with space",
        "dots.in.name",
        "...",
        "a:b;c,d?e#f%20",
        "'\"\\",
        "n" * 300,
    ):
        group[name] = counted("<i4", (3,))
        group.create_group(f"group {name}")["inside"] = counted("<i4", (2,))
    h5d.create(group.id, b"not utf-8 \xff", h5t.STD_I32LE, h5s.create_simple((2,)))


def _groups(group: h5py.Group) -> None:
    wide = group.create_group("wide")
    for number in range(60):
        wide[f"d{number}"] = number
    twenty = group.create_group("twenty")
    for number in range(20):
        twenty[f"d{number}"] = number
    group.create_group("/".join(f"level{number}" for number in range(30)))
    group.create_group("empty")
    ordered = group.create_group("ordered", track_order=True)
    for name in "zyxabc":
        ordered[name] = 1


def _dimensions(group: h5py.Group) -> None:
    """Dimension scales, as netCDF-4 uses them."""
    for name, size in (("time", 3), ("x", 4)):
        group[name] = np.arange(size, dtype="<f8")
        group[name].make_scale(name)
        group[name].attrs["units"] = "m"
    field = group.create_dataset("field", data=counted("<f4", (3, 4)))
    for axis, name in enumerate(("time", "x")):
        field.dims[axis].attach_scale(group[name])
        field.dims[axis].label = name
    field.attrs["_FillValue"] = np.float32(-999)


_PARTS: tuple[Callable[[h5py.Group], None], ...] = (
    _types,
    _layouts,
    _filters,
    _spaces,
    _links,
    _attributes,
    _names,
    _groups,
    _dimensions,
)
