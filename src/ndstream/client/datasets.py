"""Remote datasets, read as h5py's are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ndstream.client import display
from ndstream.client.connection import Connection
from ndstream.client.described import DescribedDataset
from ndstream.client.gathering import gather
from ndstream.client.values import array_of, taken
from ndstream.client.views import CastView, FieldsView, TextView
from ndstream.core.dtypes import DType, String
from ndstream.core.limits import MiB
from ndstream.core.model import Dataset
from ndstream.core.selection import Picks, Selection, Span, Spans, everything, select
from ndstream.errors import InvalidRequest, InvalidSelection, NotFound, RequestError, UnsupportedDType
from ndstream.protocols.hdfstream.descriptor import MOST_AXES, MOST_RANGES

if TYPE_CHECKING:
    from ndstream.client.files import RemoteFile
    from ndstream.client.groups import RemoteGroup

ITERATED = 1 * MiB  # rows are iterated over in reads of about this size
CONVERTED = 32 * MiB  # elements are converted in blocks of this size


class RemoteDataset(DescribedDataset):
    """A dataset on a server: shape, type and attributes are here, data are read by indexing.

    Indexing takes what h5py takes, and steps, unsorted, repeated or several index arrays, and masks as numpy does.
    Nothing else reads data, except ``np.asarray``, iteration, and data so small that they came with the description:
    these are not asked for again.

    A class with another source of data can inherit from this one. It needs `connection` (an object with
    ``request_slice`` and ``request_slice_into``), `file_path`, `name`, `shape`, `dtype`, `ndim`, `data` (None, or the
    whole array) and `max_nr_slices`, and need not call ``__init__``.

    Attributes
    ----------
    shape : tuple of int, or None for a null dataspace
    dtype : numpy.dtype
        As h5py has it: byte order, names of enumerations, strings of variable length as objects.
    ndim : int
    name : str
        Absolute path inside the file.
    file_path : str
        Virtual path of the file.
    connection : Connection
    data : ndarray or None
        All elements, when they came with the description.
    max_nr_slices : int
        Ranges of the first axis in one request.
    """

    max_nr_slices: int = MOST_RANGES
    kind = "dataset"

    def __init__(
        self, connection: Connection, file_path: str, name: str, data: Dataset, parent: RemoteGroup | None = None
    ) -> None:
        self.connection = connection
        self.file_path = file_path
        super().__init__(name, data)
        self._parent = parent

    @property
    def parent(self) -> RemoteGroup:
        """Group that the dataset is in."""
        if self._parent is None:
            raise InvalidRequest(f"{self.name} was made without its group")
        return self._parent

    @property
    def file(self) -> RemoteFile:
        """File that the dataset is in."""
        return self.parent.file

    def __getitem__(self, args: Any) -> Any:
        """Read a part of the data.

        Parameters
        ----------
        args
            Integers, slices, one Ellipsis, integer lists or arrays, masks; names of fields besides.

        Returns
        -------
        ndarray, or a scalar when every axis is an integer
            Of `dtype`; a new array.

        Raises
        ------
        InvalidSelection, OutOfBounds
            Nothing is requested then.
        NDStreamError
        """
        fields, key = _split(args)
        if fields:
            return self.fields(fields[0] if len(fields) == 1 else fields)[key]
        return self.read(key)

    def read(self, key: Any, dtype: DTypeLike | None = None) -> Any:
        """Read a part of the data as elements of another type: ``ds.read(np.s_[:10], "f8")``.

        As `__getitem__` otherwise; `dtype` None keeps the type.

        Raises
        ------
        UnsupportedDType
            There is no conversion to that type.
        """
        wanted = self.dtype if dtype is None else np.dtype(dtype)
        if self.shape is None:
            return self.nothing(key)
        selection = select(key, self.shape)
        result: NDArray[Any] = np.empty(selection.shape + wanted.shape, wanted.base)
        self.fetch(selection, result)
        return self.found(key, result)

    def read_direct(self, array: NDArray[Any], source_sel: Any = None, dest_sel: Any = None) -> None:
        """Read into an array that is there already: much faster than into a new one.

        Parameters
        ----------
        array : ndarray, writable
            When its part `dest_sel` is C-contiguous and of the type of the dataset, bytes are received in it.
        source_sel, dest_sel
            Part of the dataset, part of the array, such as ``np.s_[10:20]``; None is all. Axes of length 1 aside,
            both have the same shape.

        Raises
        ------
        InvalidSelection, OutOfBounds
        UnsupportedDType
            The values cannot all be kept in the type of the array.
        """
        if self.shape is None:
            raise InvalidRequest(f"{self.name}: a null dataspace has no elements to read")
        selection = everything(self.shape) if source_sel is None else select(source_sel, self.shape)
        part = array[() if dest_sel is None else dest_sel]
        self._check_cast(part.dtype)
        shape = selection.shape + self.dtype.shape
        if _without_ones(part.shape) != _without_ones(shape):
            raise InvalidSelection(f"{self.name}: a selection of shape {shape} does not go into one of {part.shape}")
        is_view = isinstance(part, np.ndarray) and np.may_share_memory(part, array)
        if is_view and part.flags.c_contiguous:
            self.fetch(selection, part.reshape(shape))
            return
        result: NDArray[Any] = np.empty(shape, self.dtype.base)
        self.fetch(selection, result)
        array[() if dest_sel is None else dest_sel] = result.reshape(part.shape)

    def request_slices(self, slices: Sequence[Any], dest: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read many ranges of the first axis in as few requests as possible.

        Parameters
        ----------
        slices : sequence of index expressions
            Each a slice or an integer of the first axis, or a tuple with the same further indices in all. In any
            order, repeated and overlapping as needed.
        dest : ndarray, C-contiguous, optional
            Where the result goes.

        Returns
        -------
        ndarray
            The slices one behind the other along the first axis, which is never dropped.

        Raises
        ------
        ValueError
            There are no slices, or `dest` has another shape.
        InvalidSelection, OutOfBounds
        """
        if not len(slices):
            raise InvalidRequest(f"{self.name}: there are no slices to request")
        selection = _many(slices, self.shape or ())
        shape = selection.shape + self.dtype.shape
        if dest is None:
            dest = np.empty(shape, self.dtype.base)
        elif dest.shape != shape or not dest.flags.c_contiguous:
            raise InvalidRequest(f"{self.name}: the destination must be C-contiguous and of shape {shape}")
        self._check_cast(dest.dtype)
        self.fetch(selection, dest)
        return dest

    def follow(self) -> Iterator[NDArray[Any]]:
        """Iterate over what is appended along the first axis, from this call on: one array of new rows at a time.

        Waits for the next one without polling. Close the iterator to stop.

        Raises
        ------
        InvalidRequest
            The server does not tell of changes, or a scalar cannot grow.
        NotFound
            The dataset, or its file, is gone: deleted, moved, or replaced.
        NDStreamError
        """
        self.len()
        return self.connection.growth(self.file_path, self.name, self.dtype)

    def iter_chunks(self, sel: Any = None) -> Iterator[tuple[slice, ...]]:
        """Go over the chunks that a selection of slices touches, as slices clipped to it, in C order.

        Raises
        ------
        TypeError
            The dataset is not chunked, or the server does not tell.
        InvalidSelection
        """
        if self.chunks is None or self.shape is None:
            raise UnsupportedDType(f"{self.name} is not chunked")
        selection = everything(self.shape) if sel is None else select(sel, self.shape)
        if not all(isinstance(axis, Span) and axis.step == 1 for axis in selection.axes) or selection.joint:
            raise InvalidSelection("chunks are iterated over in slices without a step")
        return _over_chunks(selection.bounds, self.chunks)

    def asstr(self, encoding: str | None = None, errors: str = "strict") -> TextView:
        """View strings as `str`; without `encoding` as their character set says.

        Raises
        ------
        TypeError
            These are no strings.
        """
        dtype: DType = self._described.dtype
        if not isinstance(dtype, String):
            raise UnsupportedDType(f"{self.name}: asstr() is for strings only")
        return TextView(self, encoding or dtype.charset, errors)

    def astype(self, dtype: DTypeLike) -> CastView:
        """View elements as those of another type."""
        return CastView(self, np.dtype(dtype))

    def fields(self, names: str | Sequence[str]) -> FieldsView:
        """View some members of records, or one.

        Raises
        ------
        TypeError
            These are no records.
        ValueError
            There is no such member.
        """
        if self.dtype.names is None:
            raise UnsupportedDType(f"{self.name}: fields are for records only")
        wanted = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in wanted if name not in self.dtype.names]
        if unknown:
            raise InvalidRequest(f"{self.name} has no field {unknown[0]!r}")
        return FieldsView(self, names if isinstance(names, str) else wanted)

    def len(self) -> int:
        """Length of the first axis.

        Raises
        ------
        TypeError
            There are no axes.
        """
        if not self.shape:
            raise UnsupportedDType(f"{self.name}: a scalar has no length")
        return self.shape[0]

    def refresh(self) -> None:
        """Look shape and attributes up again: others may have changed them. Data are read anew after that.

        Raises
        ------
        NotFound
            It is not there any more.
        """
        found = self.connection.describe(self.file_path, self.name, max_depth=0, data_size_limit=0)
        if not isinstance(found, Dataset):
            raise NotFound(f"{self.name} is no dataset any more")
        self.renew(found)

    def close(self) -> None:
        """Nothing to do: kept because files in other libraries need it."""

    def __len__(self) -> int:
        return self.len()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        length = self.len()
        row = max(1, self.nbytes // max(1, length))
        step = max(1, ITERATED // row)
        for start in range(0, length, step):
            yield from self.read(slice(start, min(start + step, length)))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.name} is remote: its data cannot be had without a copy")
        return np.asarray(self.read(...), dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteDataset) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> tuple[Any, ...]:
        described: Dataset = msgspec.structs.replace(self._described, data=None)
        return type(self), (self.connection, self.file_path, self.name, described, self._parent)

    def __repr__(self) -> str:
        return display.dataset_text(self)

    def _repr_html_(self) -> str:
        return display.dataset_html(self)

    def _identity(self) -> tuple[str, str, int | str]:
        described: Dataset = self._described
        return self.connection.server, self.file_path, described.address or self.name

    def _check_cast(self, target: np.dtype[Any]) -> None:
        if target != self.dtype.base and not np.can_cast(self.dtype.base, target, "safe"):
            raise UnsupportedDType(f"{self.name}: values of type {self.dtype} do not all fit into {target}")

    def fetch(self, selection: Selection, result: NDArray[Any]) -> None:
        """Read a selection into a C-contiguous array of its shape, the axes of an array type last."""
        if self.data is not None:
            result[...] = taken(selection, self.data)
        elif result.dtype == self.dtype.base or getattr(self.connection, "converts", False):
            self._request(selection, result)
        else:
            self._convert(selection, result)

    def _convert(self, selection: Selection, result: NDArray[Any]) -> None:
        """Read as the type of the dataset and convert, a block at a time."""
        extra = self.dtype.shape
        flat = result.reshape((selection.count, *extra))
        start = 0
        for block in selection.blocks(max(1, CONVERTED // self.dtype.itemsize)):
            own: NDArray[Any] = np.empty(block.shape + extra, self.dtype.base)
            self._request(block, own)
            flat[start : start + block.count] = own.reshape((block.count, *extra))
            start += block.count

    def _request(self, selection: Selection, result: NDArray[Any]) -> None:
        connection = self.connection
        if not isinstance(connection, Connection):
            gather(connection, self.file_path, self.name, selection, result, most_ranges=self.max_nr_slices)
            return
        try:
            connection.read(self.file_path, self.name, selection, result, self._described)
        except RequestError:
            # Original servers slice no more than 8 axes; with its description a dataset comes whole.
            if self.ndim <= MOST_AXES or self.nbytes > connection.limits.document:
                raise
            whole = connection.describe(self.file_path, self.name, max_depth=0, data_size_limit=self.nbytes)
            if not isinstance(whole, Dataset) or whole.data is None or whole.shape is None:
                raise
            result[...] = taken(selection, array_of(whole.dtype, whole.shape, whole.data))


def _split(args: Any) -> tuple[list[str], Any]:
    """Part names of fields from the rest of an index expression."""
    parts = args if isinstance(args, tuple) else (args,)
    fields = [part for part in parts if isinstance(part, str)]
    if not fields:
        return fields, args
    rest = tuple(part for part in parts if not isinstance(part, str))
    return fields, rest


def _many(slices: Sequence[Any], shape: tuple[int, ...]) -> Selection:
    """Selection of many ranges of the first axis."""
    if not shape:
        raise InvalidSelection("a scalar has no ranges")
    keys = [key if isinstance(key, tuple) else (key,) for key in slices]
    firsts = [key[0] if key else slice(None) for key in keys]
    rest = keys[0][1:]
    if any(key[1:] != rest for key in keys):
        raise InvalidSelection("slices of one request differ in the first axis only")
    frame = select((slice(None), *rest), shape)
    starts, counts, steps = _extents(firsts, shape[0])
    if (steps == 1).all():
        axis: Spans | Picks = Spans(starts, counts)
    else:
        pieces = [np.arange(count) * step + start for start, count, step in zip(starts, counts, steps, strict=True)]
        axis = Picks(np.concatenate(pieces))
    return replace(frame, axes=(axis, *frame.axes[1:]), dropped=frame.dropped - {0})


def _extents(firsts: Sequence[Any], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Start, count and step of each index into the first axis."""
    extents = np.empty((3, len(firsts)), np.int64)
    for number, first in enumerate(firsts):
        (axis,) = select(first, (length,)).axes
        if not isinstance(axis, Span):
            raise InvalidSelection("each of the slices is a slice or an integer in the first axis")
        extents[:, number] = axis.start, axis.count, axis.step
    return extents[0], extents[1], extents[2]


def _over_chunks(bounds: Sequence[tuple[int, int]], chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    grid = tuple(
        -(-stop // size) - start // size if stop > start else 0
        for (start, stop), size in zip(bounds, chunks, strict=True)
    )
    for position in np.ndindex(grid):
        yield tuple(
            slice(max(start, (start // size + at) * size), min(stop, (start // size + at + 1) * size), 1)
            for (start, stop), size, at in zip(bounds, chunks, position, strict=True)
        )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
