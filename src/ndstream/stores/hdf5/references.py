"""References in HDF5 files as paths.

The library finds the path of an object by walking the whole file, each time. Here the walk is done once for a file
that is open, since files with dimension scales hold several references for every dataset.
"""

from __future__ import annotations

from typing import Any

from h5py import h5g, h5l, h5o, h5r, h5s

from ndstream.errors import TooLarge
from ndstream.stores.hdf5.names import text_of
from ndstream.stores.hdf5.open_files import OpenFile

#: Objects whose paths are kept for one open file; others are looked up one by one.
_PATHS = 1 << 17
#: Blocks or points of one region.
_PARTS = 1 << 16


class Names:
    """Turns references that were read from one file into plain values (`ndstream.core.elements`).

    Parameters
    ----------
    file : OpenFile
        The file they were read from.
    place : h5py identifier
        Any object in it.
    """

    __slots__ = ("_file", "_place")

    def __init__(self, file: OpenFile, place: Any) -> None:
        self._file = file
        self._place = place

    def __call__(self, reference: Any) -> Any:
        """Path of an object, or path and selection of a region; None for a reference that leads nowhere."""
        try:
            target = h5r.dereference(reference, self._place) if reference else None
        except (OSError, ValueError, RuntimeError, KeyError):
            return None  # the object was deleted
        if target is None:
            return None
        path = self._path(h5o.get_info(target).addr, reference)
        if path is None or not isinstance(reference, h5r.RegionReference):
            return path
        return {"name": path, **_region(h5r.get_region(reference, self._place))}

    def _path(self, address: int, reference: Any) -> str | None:
        if self._file.paths is None:
            self._file.paths = _walk(self._place)
        path = self._file.paths.get(address)
        if path is None and len(self._file.paths) >= _PATHS:
            name = h5r.get_name(reference, self._place)
            return None if name is None else text_of(name)
        return path


def _walk(place: Any) -> dict[int, str]:
    """Path of every object of a file by its address; of several paths the first in the order of the file."""
    root = h5g.open(place, b"/")
    paths = {h5o.get_info(root).addr: "/"}

    def visit(name: bytes, link: h5l.LinkInfo) -> bool | None:
        if link.type == h5l.TYPE_HARD:
            paths.setdefault(link.u, "/" + text_of(name))
        return True if len(paths) >= _PATHS else None

    root.links.visit(visit, info=True)
    return paths


def _region(space: h5s.SpaceID) -> dict[str, Any]:
    kind = space.get_select_type()
    if kind == h5s.SEL_POINTS:
        if space.get_select_elem_npoints() > _PARTS:
            raise TooLarge(f"a region of more than {_PARTS} points")
        return {"points": space.get_select_elem_pointlist().tolist()}
    if kind == h5s.SEL_HYPERSLABS:
        if space.get_select_hyper_nblocks() > _PARTS:
            raise TooLarge(f"a region of more than {_PARTS} blocks")
        # The library gives the last index of a block, everybody else the one after it.
        return {"blocks": [[first.tolist(), (last + 1).tolist()] for first, last in space.get_select_hyper_blocklist()]}
    if kind == h5s.SEL_ALL:
        shape = space.get_simple_extent_dims()
        return {"blocks": [[[0] * len(shape), list(shape)]]}
    return {"blocks": []}
