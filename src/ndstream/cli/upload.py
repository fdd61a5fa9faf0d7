"""What ``ndstream put`` does: operations in commits of bounded size, and nothing half done under a name of its own."""

from __future__ import annotations

import logging
import posixpath
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.cli.extra import needs
from ndstream.cli.extract import Extract
from ndstream.cli.place import Place
from ndstream.cli.replica import Replica
from ndstream.client import changes, payloads
from ndstream.client.progress import transfer
from ndstream.core.limits import MiB
from ndstream.core.operations import Append, CreateGroup, Delete, Move, Operation, Write
from ndstream.core.selection import Selection, parse_selection, select
from ndstream.core.selection.plain import to_plain
from ndstream.errors import Exists, InvalidRequest, InvalidSelection, NDStreamError, UnsupportedDType

BATCH = 32 * MiB
"""Bytes of one commit, about; what is longer takes several."""
_COUNT = 1000  # operations of one commit
_ELEMENT = 64  # bytes of an element that is a list itself

log = logging.getLogger("ndstream.cli")


class NpyFile:
    """An array in an .npy file, as a dataset; nothing is read before it is asked for.

    Raises
    ------
    OSError
    InvalidRequest
        It is no such file, or holds pickled objects.
    """

    chunks = None

    def __init__(self, path: Path) -> None:
        try:
            self._array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            # What numpy says is advice for its own callers: to trust pickles.
            raise InvalidRequest(f"{path}: no .npy file of numbers, text or records, or one cut short") from error
        self.name = path.stem
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self.attrs: dict[str, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]


class Upload:
    """Commits operations to one file, as many at a time as a commit should have.

    Parameters
    ----------
    place : Place
        A file that is not there is made with the first commit.

    Attributes
    ----------
    draft : str
        Name of a group for what is not complete; it goes when the upload ends, well or not.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.draft = f"/.put-{uuid.uuid4().hex}"
        self._waiting: list[Operation] = []
        self._nbytes = 0
        self._begun = False

    def add(self, operation: Operation) -> None:
        """Carry out an operation, now or with those that follow.

        Raises
        ------
        NDStreamError
        """
        nbytes = _weight(operation)
        if self._waiting and (self._nbytes + nbytes > BATCH or len(self._waiting) >= _COUNT):
            self._commit()
        self._waiting.append(operation)
        self._nbytes += nbytes

    def finish(self, last: Sequence[Operation] = ()) -> None:
        """Commit what is left together with the operations that are given.

        Raises
        ------
        NDStreamError
        """
        self._waiting += last
        self._commit()

    def give_up(self) -> None:
        """Take away what may have been committed of a draft."""
        if self._begun:
            with suppress(NDStreamError):  # the error that led here says more
                self.place.connection.apply(self.place.path, [Delete(name=self.draft, missing_ok=True)])

    def _commit(self) -> None:
        waiting, self._waiting, self._nbytes = self._waiting, [], 0
        # Before the answer: who is interrupted does not wait for it, and the server does what it was asked.
        self._begun = True
        self.place.connection.apply(self.place.path, waiting, create=self.place.file is None)


def copy_objects(place: Place, path: Path, name: str | None, *, force: bool) -> None:
    """Copy an object of a local HDF5 file, or all that is in the file, with types, storage, attributes and links.

    Parameters
    ----------
    path : Path
        The local file.
    name : str, optional
        Absolute name of an object in it; None is the whole.

    Raises
    ------
    Exists
        Something of that name is there, and `force` is not given.
    NDStreamError, OSError
        Nothing is there of it.
    """
    with needs("server", "copying from local HDF5 files"):
        from ndstream.stores.hdf5.source import Source

    with Source(path) as source, transfer(path.name, path.stat().st_size) as watch:
        upload = Upload(place)
        whole = name in (None, "/")
        into_root = whole and place.is_root
        last = path.stem if whole else posixpath.basename(name or "")
        replica = Replica(source, name or "/", f"{upload.draft}/0", home="/" if into_root else None, watch=watch)
        names = {each: f"/{each}" for each in replica.members()} if into_root else {"": place.name_for(last)}
        _check_free(place, names.values(), force=force)
        try:
            upload.add(CreateGroup(name=upload.draft))
            for operation in replica.operations():
                upload.add(operation)
            # A member that could not be copied was left out.
            made = {each: wanted for each, wanted in names.items() if not each or each in replica.copied}
            upload.finish([*replica.closing, *_named(upload, made, force=force)])
        except BaseException:
            upload.give_up()
            raise


def put_array(place: Place, extract: Extract, name: str, *, append: bool, compression: str | None, force: bool) -> None:
    """Put an array where the place says: behind a dataset, into a part of one, or as a new one called `name`."""
    if append:
        append_rows(place, extract)
    elif place.address.selection is not None:
        fill(place, extract)
    else:
        make_dataset(place, extract, name, compression=compression, force=force)


def make_dataset(place: Place, extract: Extract, name: str, *, compression: str | None, force: bool) -> None:
    """Make a dataset of an array, with its attributes.

    Raises
    ------
    Exists
        Something of that name is there, and `force` is not given.
    UnsupportedDType
        Elements of such a type cannot be written.
    NDStreamError
        Nothing is there of it.
    """
    names = {"": place.name_for(name)}
    _check_free(place, names.values(), force=force)
    upload = Upload(place)
    target = f"{upload.draft}/0"
    dtype = payloads.element_type(extract.dtype, None)
    try:
        upload.add(CreateGroup(name=upload.draft))
        upload.add(changes.create_dataset(target, extract.shape, dtype, None, compression=compression))
        for operation in _attributes(extract, target):
            upload.add(operation)
        for key, values in _pieces(extract):
            selection = to_plain(select(key, extract.shape), explicit=True)
            upload.add(Write(name=target, data=payloads.payload_of(values, dtype), selection=selection))
        upload.finish(_named(upload, names, force=force))
    except BaseException:
        upload.give_up()
        raise


def fill(place: Place, extract: Extract) -> None:
    """Write an array to the part of a dataset that the place says; it is broadcast as numpy does.

    Raises
    ------
    InvalidSelection
        It does not have the shape.
    NDStreamError
    """
    dataset = place.dataset()
    selection = parse_selection(place.address.selection or "...", dataset.shape or ())
    wanted = selection.shape + dataset.dtype.shape
    upload = Upload(place)
    if extract.shape == wanted:
        for key, values in _pieces(extract):
            part = select(key[: len(selection.shape)], selection.shape)
            upload.add(_write(dataset, selection.compose(part), values))
    else:
        try:
            fits = np.broadcast_shapes(extract.shape, wanted) == wanted
        except ValueError:
            fits = False
        if not fits:
            raise InvalidSelection(f"{place.text}: an array of shape {extract.shape} does not go into {wanted}")
        upload.add(_write(dataset, selection, _all(extract)))
    upload.finish()


def append_rows(place: Place, extract: Extract) -> None:
    """Append an array to a dataset along its first axis: rows, or one row.

    Raises
    ------
    InvalidRequest
        It has another number of axes.
    NDStreamError
    """
    dataset = place.dataset()
    upload = Upload(place)
    rank = dataset.ndim + len(dataset.dtype.shape)
    if len(extract.shape) == rank and rank:
        with transfer(dataset.name, extract.nbytes) as watch:
            for rows in extract.rows():
                upload.add(changes.append(dataset, rows.reshape(-1, *extract.shape[1:]), 0, None))
                if watch is not None:
                    watch(rows.nbytes)
    elif len(extract.shape) == rank - 1:
        upload.add(changes.append(dataset, _all(extract), 0, None))
    else:
        raise InvalidRequest(f"{place.text}: an array of {len(extract.shape)} axes does not go behind one of {rank}")
    upload.finish()


def _check_free(place: Place, names: Iterable[str], *, force: bool) -> None:
    for name in names:
        if not force and place.kind(name) is not None:
            raise Exists(f"{place.text}: {name} exists; --force replaces it")


def _named(upload: Upload, names: Mapping[str, str], *, force: bool) -> list[Operation]:
    """Operations that give the objects of a draft their names, all at once."""
    last: list[Operation] = []
    for inside, name in names.items():
        if force:
            last.append(Delete(name=name, missing_ok=True))
        last.append(Move(name=f"{upload.draft}/0/{inside}".rstrip("/"), target=name))
    return [*last, Delete(name=upload.draft)]


def _attributes(extract: Extract, target: str) -> Iterator[Operation]:
    for name, value in extract.dataset.attrs.items():
        try:
            yield changes.set_attributes(target, {name: value})
        except UnsupportedDType as error:
            log.warning("%s: attribute %r is left out: %s", extract.dataset.name, name, error)


def _pieces(extract: Extract) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    with transfer(extract.dataset.name, extract.nbytes) as watch:
        for key, values in extract.pieces():
            yield key, values
            if watch is not None:
                watch(values.nbytes)


def _all(extract: Extract) -> NDArray[Any]:
    return extract.read(tuple(slice(0, side) for side in extract.shape))


def _write(dataset: Any, selection: Selection, values: NDArray[Any]) -> Write:
    data = payloads.payload_of(values, dataset.dtype)
    return Write(name=dataset.name, data=data, selection=to_plain(selection, explicit=True))


def _weight(operation: Operation) -> int:
    """Bytes of data in an operation, about."""
    match operation:
        case Write(data=payload) | Append(data=payload):
            data = payload.data
            return sum(map(_length, data)) if isinstance(data, list) else memoryview(data).nbytes
        case _:
            return 0


def _length(element: Any) -> int:
    """Bytes that an element of variable length takes, about."""
    return len(element) + 8 if isinstance(element, str | bytes) else _ELEMENT
