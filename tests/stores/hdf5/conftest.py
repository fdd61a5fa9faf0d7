"""What tests of the way of the bytes share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ndstream.core.dtypes import is_fixed
from ndstream.core.limits import MiB
from ndstream.core.model import Dataset, Node
from ndstream.errors import by_code
from ndstream.stores.hdf5.dtypes import type_of
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.locate import layout_of
from ndstream.stores.hdf5.messages import Describe, Described, Failed, Fetch, Fetched, Hello, Located, Target
from ndstream.stores.hdf5.worker import Worker

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


class Asked:
    """A worker inside of this process, over one served directory; raises what it answers with a `Failed`."""

    def __init__(self, root: Path, **limits: Any) -> None:
        self.root = root
        self.lasting = True
        settings: dict[str, Any] = {
            "open_files": 4, "memory": 1 << 40, "chunk_index": 1 << 20, "links": 1000, "link_depth": 8,
            "document": 16 * MiB,
        }  # fmt: skip
        self.worker = Worker(Hello(roots={"": str(root)}, **(settings | limits)))

    def target(self, path: str, name: str, hidden: frozenset[str] = frozenset()) -> Target:
        file = self.root / path
        return Target(file=str(file), generation=generation_of(file.stat()), name=name, hidden=hidden)

    def answer(self, request: Any) -> Any:
        reply = self.worker.answer(request)
        if isinstance(reply, Failed):
            assert str(self.root) not in reply.message
            raise by_code(reply.code)(reply.message)
        return reply

    def describe(
        self, path: str, name: str = "/", *, depth: int = 0, wide: int = 20, data: int = 0, hidden: tuple[str, ...] = ()
    ) -> Node:
        target = self.target(path, name, frozenset(hidden))
        described: Described = self.answer(Describe(target=target, depth=depth, wide=wide, data=data))
        self.lasting = described.lasting
        return described.node

    def fetch(self, path: str, name: str, *axes: tuple[int, int, int], most: int = MiB) -> bytes | list[Any]:
        start, count, step = zip(*axes, strict=True) if axes else ((), (), ())
        request = Fetch(target=self.target(path, name), start=start, count=count, step=step, most=most)
        fetched: Fetched = self.answer(request)
        return fetched.data


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    """A worker in this process over the temporary directory."""
    asked = Asked(tmp_path)
    yield asked
    asked.worker.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until something holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (what processes do sets no event in this one)
            await asyncio.sleep(0.005)
