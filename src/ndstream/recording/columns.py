"""Datasets of an entry that grow by rows: one value of each message, or one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import from_numpy
from ndstream.core.limits import KiB
from ndstream.core.model import Filter
from ndstream.core.operations import (
    Append,
    CreateDataset,
    Operation,
    Payload,
    Resize,
    SetAttributes,
    Write,
    WriteChunk,
)
from ndstream.core.packets import Buffer
from ndstream.recording.values import TEXT, Plain, numbers, payload, stored, texts

#: Rows of one chunk of a column, at most, and bytes: a commit writes the last chunk of each column again.
_ROWS = 1024
_BYTES = 64 * KiB


class Column:
    """A value for each row.

    Parameters
    ----------
    name : str
        Path of the dataset.
    example : str or ndarray
        A value; all others have its type and shape.
    fill : number, optional
        Value of rows that have none, where it is not 0, NaN or empty text.
    attributes : dict of str to str
    """

    def __init__(self, name: str, example: Plain, fill: int | None = None, **attributes: str) -> None:
        self.name = name
        self.length = 0
        self.dtype: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self._fill: bytes | None = None
        self._attributes = attributes
        self._rows: dict[int, Plain] = {}
        self._made = False
        if not isinstance(example, str):
            self.dtype, self._shape = example.dtype, example.shape
            if fill is not None:
                self._fill = np.array(fill, self.dtype).tobytes()
            elif self.dtype.kind in "fc":
                self._fill = np.array(np.nan, self.dtype).tobytes()

    def fits(self, value: Plain) -> bool:
        """Whether a value can be put here, be it after a conversion that loses nothing."""
        if isinstance(value, str) or self.dtype is None:
            return isinstance(value, str) and self.dtype is None
        return value.shape == self._shape and np.can_cast(value.dtype, self.dtype, "safe")

    def put(self, row: int, value: Plain) -> None:
        """Have a value written, which fits."""
        self._rows[row] = value

    def operations(self, count: int) -> Iterator[Operation]:
        """What writes the values that were put, and makes the column `count` rows long."""
        if not self._made:
            self._made = True
            yield self._create()
            if self._attributes:
                values = {key: payload(value) for key, value in self._attributes.items()}
                yield SetAttributes(name=self.name, values=values)
        rows, values_of = sorted(self._rows), self._rows
        late = [row for row in rows if row < self.length]
        if late:
            axes = [{"indices": late}, *([0, side, 1] for side in self._shape)]
            data = self._payload([values_of[row] for row in late])
            yield Write(name=self.name, data=data, selection={"axes": axes})
        for run in runs(rows[len(late) :]):
            if run.start > self.length:
                yield self._resize(run.start)
            yield Append(name=self.name, data=self._payload([values_of[row] for row in run]))
            self.length = run.stop
        if count > self.length:
            yield self._resize(count)
        self._rows = {}

    def _resize(self, length: int) -> Resize:
        self.length = length
        return Resize(name=self.name, shape=(length, *self._shape))

    def _create(self) -> CreateDataset:
        dtype = TEXT if self.dtype is None else from_numpy(self.dtype)
        size = int(np.prod(self._shape)) * (16 if self.dtype is None else self.dtype.itemsize)
        return CreateDataset(
            name=self.name,
            dtype=dtype,
            shape=(0, *self._shape),
            maxshape=(None, *self._shape),
            chunks=(min(_ROWS, max(1, _BYTES // size)), *self._shape),
            fill=self._fill,
        )

    def _payload(self, values: list[Plain]) -> Payload:
        if self.dtype is None:
            return texts([str(value) for value in values])
        return numbers(np.stack([np.asarray(value) for value in values]).astype(self.dtype, copy=False))


class Frames:
    """An image for each row, one chunk each, stored as it is given.

    Parameters
    ----------
    name : str
        Path of the dataset.
    dtype : dtype
    shape : tuple of int
        Of one image; no side is 0.
    filters : tuple of Filter
        That the dataset has.
    """

    def __init__(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], filters: tuple[Filter, ...]) -> None:
        self.name = name
        self.shape = shape
        self.length = 0
        self._kind = (dtype, shape)
        self._filters = filters
        self._put: dict[int, tuple[Buffer, int]] = {}
        self._made = False

    def fits(self, dtype: np.dtype[Any], shape: tuple[int, ...], filters: tuple[Filter, ...]) -> bool:
        """Whether an image can be put here; one that went through no filter always can, if it has the right shape."""
        return (dtype, shape) == self._kind and filters in ((), self._filters)

    def put(self, row: int, filters: tuple[Filter, ...], data: Buffer) -> None:
        """Have an image written, which fits."""
        self._put[row] = data, 0 if filters else (1 << len(self._filters)) - 1

    def operations(self, count: int) -> Iterator[Operation]:
        """What stores the images that were put, and makes the dataset `count` rows long."""
        dtype, shape = self._kind
        if not self._made:
            self._made = True
            yield CreateDataset(
                name=self.name,
                dtype=from_numpy(dtype),
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(1, *shape),
                filters=self._filters,
            )
        for row, (data, mask) in sorted(self._put.items()):
            yield WriteChunk(name=self.name, start=(row, *(0 for _ in shape)), data=stored(data), mask=mask)
            self.length = max(self.length, row + 1)
        if count > self.length:
            self.length = count
            yield Resize(name=self.name, shape=(count, *shape))
        self._put = {}


def table(name: str, dtype: np.dtype[Any], chunk: int) -> CreateDataset:
    """What makes an empty dataset of records, or of bytes, that grows."""
    return CreateDataset(name=name, dtype=from_numpy(dtype), shape=(0,), maxshape=(None,), chunks=(chunk,))


def attributes(name: str, values: Mapping[str, Plain | list[str]]) -> SetAttributes:
    """What sets attributes; a list of text becomes an array of it."""
    made = {key: texts(value) if isinstance(value, list) else payload(value) for key, value in values.items()}
    return SetAttributes(name=name, values=made)


def runs(rows: list[int]) -> Iterator[range]:
    """Ranges of numbers, which are in order, that follow each other."""
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or rows[index] != rows[index - 1] + 1:
            yield range(rows[start], rows[index - 1] + 1)
            start = index


def as_array(values: list[tuple[int, int]]) -> NDArray[np.int64]:
    """Array of pairs, of two axes even when there are none."""
    return np.array(values, "<i8").reshape(-1, 2)
