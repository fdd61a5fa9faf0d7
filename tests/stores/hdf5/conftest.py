"""What tests of the way of the bytes share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from ndstream.core.dtypes import is_fixed
from ndstream.core.model import Dataset
from ndstream.stores.hdf5.dtypes import type_of
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.locate import layout_of
from ndstream.stores.hdf5.messages import Located

Locate = Callable[..., Located]


@pytest.fixture(scope="session")
def locate() -> Locate:
    """Locate a dataset as a worker does, in this process."""
    return _locate


def _locate(path: Path, name: str, *, chunk_index: int = 1 << 20) -> Located:
    status = path.stat()
    with h5py.File(path) as file:
        dataset = file[name]
        dtype = type_of(dataset.id.get_type())
        layout = layout_of(dataset.id, dtype, file_size=status.st_size, chunk_index=chunk_index)
        fill = np.asarray(dataset.fillvalue, dataset.dtype).tobytes() if is_fixed(dtype) else None
        return Located(
            dataset=Dataset(dtype=dtype, shape=dataset.shape, maxshape=dataset.maxshape, attributes={}, fill=fill),
            layout=layout,
            file=str(path),
            generation=generation_of(status),
        )
