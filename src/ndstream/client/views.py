"""Datasets seen in another way: as text, in another type, some members of records only. A view reads when indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from ndstream.client.datasets import RemoteDataset


class View:
    """Base: shape and length are those of the dataset."""

    def __init__(self, dataset: RemoteDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return self._dataset.len()

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the dataset."""
        return self._dataset.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._dataset.ndim

    @property
    def size(self) -> int | None:
        """Number of elements."""
        return self._dataset.size

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("remote data cannot be had without a copy")
        return np.asarray(self[...], dtype)


class TextView(View):
    """Strings as `str`."""

    dtype: np.dtype[Any] = np.dtype("O")

    def __init__(self, dataset: RemoteDataset, encoding: str, errors: str) -> None:
        super().__init__(dataset)
        self._encoding = encoding
        self._errors = errors

    def __getitem__(self, key: Any) -> Any:
        """Read as `RemoteDataset.__getitem__`, and decode.

        Raises
        ------
        UnicodeDecodeError
            When the strings are not in the encoding.
        """
        found = self._dataset[key]
        if isinstance(found, bytes):
            return found.decode(self._encoding, self._errors)
        if not isinstance(found, np.ndarray):
            return found
        decoded: NDArray[Any] = np.empty(found.shape, object)
        for position, text in enumerate(found.flat):
            decoded.flat[position] = text.decode(self._encoding, self._errors)
        return decoded


class CastView(View):
    """Elements of another type."""

    def __init__(self, dataset: RemoteDataset, dtype: np.dtype[Any]) -> None:
        super().__init__(dataset)
        self.dtype = dtype

    def __getitem__(self, key: Any) -> Any:
        """Read as `RemoteDataset.__getitem__`, converting as it arrives."""
        return self._dataset.read(key, self.dtype)


class FieldsView(View):
    """Some members of records: an array of one member, or records with several."""

    def __init__(self, dataset: RemoteDataset, names: str | Sequence[str]) -> None:
        super().__init__(dataset)
        self._names = names if isinstance(names, str) else list(names)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the member, or of records with the members."""
        own = self._dataset.dtype
        if isinstance(self._names, str):
            return own[self._names]
        return np.dtype([(name, own[name]) for name in self._names])

    def __getitem__(self, key: Any) -> Any:
        """Read as `RemoteDataset.__getitem__`; whole records travel."""
        records = self._dataset.read(key)
        if isinstance(self._names, str):
            found = records[self._names]
            return found.copy() if isinstance(found, np.ndarray) else found
        result = np.empty(np.shape(records), self.dtype)
        for name in self._names:
            result[name] = records[name]
        return result if isinstance(records, np.ndarray) else result[()]
