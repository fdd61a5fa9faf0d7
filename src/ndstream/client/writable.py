"""Remote files that are written to, with the habits of h5py: ``ndstream.open(url, name, mode="r+")``.

Every statement is a commit of its own, durable when it returns; ``with file.transaction():`` makes one of many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Self

import msgspec
from numpy.typing import DTypeLike, NDArray

from ndstream.client import changes
from ndstream.client.attributes import RemoteAttributes
from ndstream.client.connection import Connection
from ndstream.client.datasets import RemoteDataset
from ndstream.client.files import RemoteFile
from ndstream.client.groups import RemoteGroup
from ndstream.client.writer import Writer
from ndstream.core import model
from ndstream.core.operations import (
    Copy,
    CreateDataset,
    CreateGroup,
    Delete,
    DeleteAttributes,
    Move,
    Operation,
    Outcome,
)
from ndstream.errors import Exists, InvalidRequest, NotFound

MODES = ("r", "r+", "a", "x", "w-")
"""As of ``h5py.File``, without "w"; "x" and "w-" are the same."""
NEW = "0"
"""Number of the commit before the first one: the condition on which a file is made."""


class WritableAttributes(RemoteAttributes, MutableMapping[str, Any]):
    """Attributes that can be set and deleted; what is known of them is looked up again after every change."""

    def __init__(self, owner: WritableGroup | WritableDataset) -> None:
        super().__init__({}, owner.name)
        self._object = owner

    def described(self) -> Mapping[str, model.Attribute]:
        """What is known of the attributes, see `RemoteAttributes.described`."""
        return self._object.load().attributes

    def __setitem__(self, name: str, value: Any) -> None:
        """Set an attribute; one of that name is replaced, whatever its type."""
        self.update({name: value})

    def __delitem__(self, name: str) -> None:
        """Remove an attribute."""
        self._object.change(DeleteAttributes(name=self._owner, names=(name,)))

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Set many attributes in one commit."""
        self._object.change(changes.set_attributes(self._owner, dict(other, **values)))

    def create(
        self, name: str, data: Any, shape: tuple[int, ...] | None = None, dtype: DTypeLike | None = None
    ) -> None:
        """Set an attribute of a shape and type; one of that name is replaced.

        Raises
        ------
        InvalidRequest, UnsupportedDType
            The data are not of that shape or type.
        """
        self._object.change(changes.create_attribute(self._owner, name, data, shape, dtype))

    def modify(self, name: str, value: Any) -> None:
        """Change the value of an attribute and keep its shape and type; make it when it is not there.

        Raises
        ------
        InvalidRequest, UnsupportedDType
            The value is not of that shape or type.
        """
        self._object.change(changes.modify_attribute(self._owner, name, self.described().get(name), value))


class WritableDataset(RemoteDataset):
    """A dataset that can be written to: ``dataset[10:20] = values``.

    `shape` is that of the last time it was looked up, or changed by this very object; see `refresh`.
    """

    def __init__(
        self, connection: Connection, file_path: str, name: str, data: model.Dataset, parent: WritableGroup
    ) -> None:
        # Small data that came along would not show what is written later.
        described: model.Dataset = msgspec.structs.replace(data, data=None)
        super().__init__(connection, file_path, name, described, parent)
        self._writer = parent.writer
        self._known = self._writer.commits

    @property
    def attrs(self) -> WritableAttributes:  # may change: not to be cached
        """Attributes."""
        return WritableAttributes(self)

    def load(self) -> model.Dataset:
        """Describe the dataset, by a request if something was changed since it was looked up."""
        if self._known != self._writer.commits:
            self.refresh()
        return self._described

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a part of the data; the value is broadcast, numbers are converted as h5py does.

        Raises
        ------
        InvalidSelection, OutOfBounds, UnsupportedDType
            Nothing is sent, or nothing was done.
        """
        self.change(changes.write(self, self._writer.shape_of(self), key, value))

    def append(self, value: Any, axis: int = 0, key: str | None = None) -> int | None:
        """Make the dataset longer, atomically.

        Parameters
        ----------
        value
            What is appended, with all axes, or one row without its axis.
        key : str, optional
            Field by which rows that are there already are replaced.

        Returns
        -------
        int or None
            Index along `axis` where it landed; None in a transaction.
        """
        outcome = self.change(changes.append(self, value, axis, key))
        return None if outcome is None else outcome.start

    def insert(self, index: int, value: Any, axis: int = 0) -> None:
        """Insert before `index`; what is behind moves on."""
        self.change(changes.insert(self, index, value, axis))

    def write_direct(self, source: NDArray[Any], source_sel: Any = None, dest_sel: Any = None) -> None:
        """Write a part of an array to a part of the dataset.

        Parameters
        ----------
        source : ndarray
            Sent without a copy when the part is C-contiguous and of the type of the dataset.
        source_sel, dest_sel
            Part of the array, part of the dataset, such as ``np.s_[10:20]``; None is all.
        """
        self[... if dest_sel is None else dest_sel] = source[... if source_sel is None else source_sel]

    def flush(self) -> None:
        """Nothing to do: what was written is durable already."""

    def resize(self, size: int | tuple[int, ...], axis: int | None = None) -> None:
        """Give the dataset another shape, or another length along one axis."""
        self.change(changes.resize(self, self._writer.shape_of(self), size, axis))

    def refresh(self) -> None:
        """Look shape and attributes up again, see `RemoteDataset.refresh`."""
        super().refresh()
        self._known = self._writer.commits

    def change(self, operation: Operation) -> Outcome | None:
        """Carry out an operation, and keep the shape that it left."""
        return self._writer.do(operation, self._told)

    def _told(self, outcome: Outcome) -> None:
        if outcome.shape is not None:
            self.shape = outcome.shape
            self._described = msgspec.structs.replace(self._described, shape=outcome.shape)


class WritableGroup(RemoteGroup, MutableMapping[str, Any]):
    """A group whose members can be made, moved and deleted. What is known of it is forgotten with every change."""

    def __init__(self, *arguments: Any, writer: Writer | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.writer = writer or Writer(self.connection, self.file_path)
        self._known = self.writer.commits

    @property
    def attrs(self) -> WritableAttributes:  # may change: not to be cached
        """Attributes."""
        return WritableAttributes(self)

    def load(self) -> model.Group:
        """Describe the group, by a request if that was not done since the last change."""
        if self._known != self.writer.commits:
            self.refresh()
            self._known = self.writer.commits
        return super().load()

    def create_group(self, name: str) -> WritableGroup:
        """Make a group, and those on the way that are missing.

        Raises
        ------
        Exists
        """
        made: WritableGroup = self._made(CreateGroup(name=self._below(name)))
        return made

    def require_group(self, name: str) -> WritableGroup:
        """Group of this name; it is made when it is not there."""
        made: WritableGroup = self._made(CreateGroup(name=self._below(name), exist_ok=True))
        return made

    def create_dataset(
        self,
        name: str,
        shape: int | tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
        data: Any = None,
        **options: Any,
    ) -> WritableDataset:
        """Make a dataset.

        Parameters
        ----------
        name : str
        shape, dtype, data
            As in h5py: data say what the others do not.
        **options
            `maxshape`, `chunks`, `compression` (gzip, lzf, lz4, zstd, or the number of a filter), `compression_opts`,
            `shuffle`, `fletcher32`, `fillvalue`.

        Returns
        -------
        WritableDataset or None
            None in a transaction: it is not there yet.

        Raises
        ------
        Exists, InvalidRequest, UnsupportedDType, UnsupportedFilter
        """
        made: WritableDataset = self._made(changes.create_dataset(self._below(name), shape, dtype, data, **options))
        return made

    def require_dataset(
        self, name: str, shape: int | tuple[int, ...], dtype: DTypeLike, exact: bool = False, **options: Any
    ) -> WritableDataset:
        """Dataset of this name, which is made when it is not there. Any number of programs may require it at once.

        Raises
        ------
        UnsupportedDType
            There is one of another shape or, with `exact`, type; without, of a type that this one does not go into.
        """
        if name not in self:
            try:
                return self.create_dataset(name, shape, dtype, exist_ok=True, **options)
            except Exists:
                pass  # somebody was quicker
        found: WritableDataset = self[name]
        changes.check_required(found, self._below(name), shape, dtype, exact=exact)
        return found

    def create_dataset_like(self, name: str, other: RemoteDataset) -> WritableDataset:
        """Make a dataset of the type, shape and storage of another one, without its data.

        Raises
        ------
        Exists
        """
        made: WritableDataset = self._made(changes.like(other.described, self._below(name)))
        return made

    def __setitem__(self, name: str, value: Any) -> None:
        """Make a member: a link of a `SoftLink`, a second name of an object of this file, a dataset of anything else.

        Raises
        ------
        Exists, Forbidden, InvalidRequest, UnsupportedDType
        """
        self.change(changes.member(self._below(name), value, self.file_path))

    def __delitem__(self, name: str) -> None:
        """Remove a link; the object goes with its last one."""
        self.change(Delete(name=self._below(name)))

    def move(self, source: str, dest: str) -> None:
        """Give a member another name."""
        self.change(Move(name=self._below(source), target=self._below(dest)))

    def copy(self, source: Any, dest: Any, name: str | None = None, *arguments: Any, **options: Any) -> None:
        """Copy an object of this file: to a path of it when `dest` is a str, else as `RemoteGroup.copy`.

        Raises
        ------
        Exists, NotFound
        InvalidRequest
            The object is of another file: ``ndstream put`` copies it.
        """
        if not isinstance(dest, str):
            super().copy(source, dest, name, *arguments, **options)
            return
        path = self._below(source) if isinstance(source, str) else changes.inside(source, self.file_path)
        self.change(Copy(name=path, target=self._below(dest)))

    def change(self, operation: Operation) -> Outcome | None:
        """Carry out an operation."""
        return self.writer.do(operation)

    def _made(self, operation: CreateGroup | CreateDataset) -> Any:
        return None if self.change(operation) is None else self[operation.name]

    def _below(self, name: str) -> str:
        return changes.below(self.name, name)

    def _child(self, name: str, links: int) -> Any:
        self.load()
        return super()._child(name, links)

    def _new_group(self, name: str, node: model.Group) -> RemoteGroup:
        return WritableGroup(self.connection, self.file_path, name, self._max_depth, 0, node, self, writer=self.writer)

    def _new_dataset(self, name: str, node: model.Dataset) -> RemoteDataset:
        return WritableDataset(self.connection, self.file_path, name, node, self)


class WritableFile(RemoteFile, MutableMapping[str, Any]):
    """A file on a server that can be written to."""

    @cached_property
    def writer(self) -> Writer:
        """Where operations go."""
        return Writer(self.connection, self.file_path)

    @property
    def mode(self) -> str:
        """Always "r+"."""
        return "r+"

    @cached_property
    def root(self) -> WritableGroup:
        """The root group."""
        self.check_hdf5()
        return WritableGroup(self.connection, self.file_path, "/", self._max_depth, 0, file=self, writer=self.writer)

    def transaction(self) -> AbstractContextManager[None]:
        """Carry out what is done in a ``with`` block together when it ends, or not at all when it raises.

        Raises
        ------
        InvalidRequest
            A transaction is under way already.
        NDStreamError
            At the end: nothing was done.
        """
        return self.writer.transaction()

    def create_group(self, name: str) -> WritableGroup:
        """Make a group, see `WritableGroup.create_group`."""
        return self.root.create_group(name)

    def require_group(self, name: str) -> WritableGroup:
        """Group of this name, see `WritableGroup.require_group`."""
        return self.root.require_group(name)

    def create_dataset(self, name: str, *arguments: Any, **options: Any) -> WritableDataset:
        """Make a dataset, see `WritableGroup.create_dataset`."""
        return self.root.create_dataset(name, *arguments, **options)

    def require_dataset(self, name: str, *arguments: Any, **options: Any) -> WritableDataset:
        """Dataset of this name, see `WritableGroup.require_dataset`."""
        return self.root.require_dataset(name, *arguments, **options)

    def __setitem__(self, name: str, value: Any) -> None:
        """Make a member, see `WritableGroup`."""
        self.root[name] = value

    def __delitem__(self, name: str) -> None:
        """Remove a link."""
        del self.root[name]

    def move(self, source: str, dest: str) -> None:
        """Give an object another name."""
        self.root.move(source, dest)

    def create_dataset_like(self, name: str, other: RemoteDataset) -> WritableDataset:
        """Make a dataset like another one, see `WritableGroup.create_dataset_like`."""
        return self.root.create_dataset_like(name, other)

    def flush(self) -> None:
        """Nothing to do: what was written is durable already."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.root)

    def __enter__(self) -> Self:  # type: ignore[override]  # of a file that is read it is the root group
        return self


def check_mode(mode: str) -> None:
    """Refuse a mode that there is not.

    Raises
    ------
    InvalidRequest
    """
    if mode == "w":
        raise InvalidRequest("remote files are not emptied by opening them: mode 'x' makes a new one, 'a' adds to it")
    if mode not in MODES:
        raise InvalidRequest(f"remote files are opened with mode {', '.join(map(repr, MODES))}, not {mode!r}")


def must_make(found: model.Directory | model.File | None, place: str, mode: str) -> bool:
    """Whether a file is to be made before it is opened for writing in this mode.

    Parameters
    ----------
    found : Directory, File or None
        What is there.

    Raises
    ------
    Exists
        The mode is for new files.
    InvalidRequest
        This is a directory.
    NotFound
        The mode is for files that are there.
    """
    if isinstance(found, model.Directory):
        raise InvalidRequest(f"{place} is a directory: open its files for writing")
    if found is not None and mode in ("x", "w-"):
        raise Exists(f"{place} is there already")
    if found is None and mode == "r+":
        raise NotFound(f"{place}: there is no such file; mode 'a' makes it")
    return found is None
