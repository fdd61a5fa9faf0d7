"""Copy remote objects into local HDF5 files."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndstream.client.progress import transfer
from ndstream.core import model
from ndstream.core.limits import MiB
from ndstream.core.selection import everything
from ndstream.errors import InvalidRequest, MissingExtra, NotFound, UnsupportedDType

if TYPE_CHECKING:
    from ndstream.client.datasets import RemoteDataset
    from ndstream.client.groups import RemoteGroup, RemoteObject

BLOCK = 32 * MiB  # data on their way from server to file

_log = logging.getLogger(__name__)


def copy_object(
    found: RemoteObject, dest: Any, name: str, *, shallow: bool, expand_soft: bool, expand_external: bool
) -> None:
    """Copy an object and all below it under a new name; see `RemoteGroup.copy`.

    Raises
    ------
    InvalidRequest
        `dest` has such a member already.
    MissingExtra
        h5py is not installed.
    """
    if name in dest:
        raise InvalidRequest(f"{dest.name} has a member {name!r} already")
    parent, _, last = posixpath.normpath(name).rpartition("/")
    group = dest.require_group(parent) if parent else dest
    copier = _Copier(shallow=shallow, expand_soft=expand_soft, expand_external=expand_external)
    copier.copy(found, group, last, ())


def _describe(found: RemoteObject) -> model.Group | model.Dataset | model.NamedType:
    """All that is known of an object, and for a group of all its members."""
    if isinstance(found, Mapping):
        found.complete()
        return found.load()
    return found.described


class _Copier:
    """One copy; remembers what it has made, so that two names of one object stay that."""

    def __init__(self, *, shallow: bool, expand_soft: bool, expand_external: bool) -> None:
        try:
            from ndstream.stores.hdf5 import local
        except ImportError as error:
            raise MissingExtra("copying into local files needs h5py: pip install ndstream[server]") from error
        self._local = local
        self._shallow = shallow
        self._expand_soft = expand_soft
        self._expand_external = expand_external
        self._made: dict[int, Any] = {}

    def copy(self, found: RemoteObject, into: Any, name: str, inside: tuple[RemoteGroup, ...]) -> None:
        """Copy one object and what is below it; `inside` are the groups that are being copied around it."""
        described = _describe(found)
        known = self._made.get(described.address) if described.address else None
        if known is not None:
            self._local.link_hard(into, name, known)
            return
        match described:
            case model.Group():
                made = self._group(found, described, into, name, inside)  # type: ignore[arg-type]  # a group describes groups
            case model.Dataset():
                made = self._dataset(found, described, into, name)  # type: ignore[arg-type]  # and a dataset datasets
            case _:
                made = self._local.commit_type(into, name, described.dtype)
        if described.address:
            self._made.setdefault(described.address, made)
        for problem in self._local.write_attributes(made, described.attributes):
            _log.warning("%s: %s", found.name, problem)

    def _group(
        self, group: RemoteGroup, described: model.Group, into: Any, name: str, inside: tuple[RemoteGroup, ...]
    ) -> Any:
        made = into.create_group(name)
        if described.address:
            # Before the members: one of them may be this very group.
            self._made[described.address] = made
        if self._shallow and inside:
            return made
        links = {} if self._expand_external else described.links
        for member, node in described.members.items():
            match links.get(member, node):
                case model.ExternalLink(filename=filename, target=target):
                    self._local.link_external(made, member, filename, target)
                case model.SoftLink(target=target) if not self._follows(group, member, inside):
                    self._local.link_soft(made, member, target)
                case model.Unreadable(problem=problem):
                    _log.warning("%s/%s is left out: %s", group.name.rstrip("/"), member, problem)
                case _:
                    self._member(group, member, made, inside)
        return made

    def _member(self, group: RemoteGroup, member: str, into: Any, inside: tuple[RemoteGroup, ...]) -> None:
        """Copy one member; a type that cannot be written costs nothing but this member."""
        try:
            self.copy(group[member], into, member, (*inside, group))
        except UnsupportedDType as error:
            _log.warning("%s/%s is left out: %s", group.name.rstrip("/"), member, error)

    def _follows(self, group: RemoteGroup, member: str, inside: tuple[RemoteGroup, ...]) -> bool:
        """Whether a soft link is replaced by what it leads to: not if that is nothing, or a group around it."""
        if not self._expand_soft:
            return False
        try:
            target = group[member]
        except NotFound:
            return False
        return target not in (*inside, group)

    def _dataset(self, dataset: RemoteDataset, described: model.Dataset, into: Any, name: str) -> Any:
        made = self._local.create_dataset(into, name, described)
        shape = described.shape
        if shape is None or 0 in shape:
            return made
        try:
            dtype = dataset.dtype
        except UnsupportedDType as error:
            _log.warning("%s: its data are left out: %s", dataset.name, error)
            return made
        per_block = max(1, BLOCK // dtype.itemsize)
        spare: NDArray[Any] = np.empty((min(per_block, dataset.size or 1), *dtype.shape), dtype.base)
        with transfer(str(dataset.name), dataset.nbytes):
            for block in everything(shape).blocks(per_block, described.chunks):
                data = spare[: block.count].reshape(block.shape + dtype.shape)
                dataset.fetch(block, data)
                self._local.write_box(made, block.bounds, data)
        return made
