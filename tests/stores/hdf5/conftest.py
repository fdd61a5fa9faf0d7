"""What tests of the way of the bytes share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ndstream.core.dtypes import is_fixed
from ndstream.core.limits import MiB
from ndstream.core.model import Dataset, Node
from ndstream.core.operations import Operation
from ndstream.errors import by_code
from ndstream.stores.hdf5.dtypes import type_of
from ndstream.stores.hdf5.generation import generation_of
from ndstream.stores.hdf5.locate import layout_of
from ndstream.stores.hdf5.messages import (
    Applied,
    Apply,
    Batch,
    Describe,
    Described,
    Done,
    Failed,
    Fetch,
    Fetched,
    Hello,
    Located,
    Publish,
    Refused,
    Take,
    Target,
    WritingLimits,
)
from ndstream.stores.hdf5.owner import Owner
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


class Owning:
    """The owner of a file, inside of this process; the file is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._spool = os.open(path.parent, os.O_RDWR | os.O_TMPFILE)
        settings: dict[str, Any] = {
            "open_files": 4, "memory": 1 << 40, "chunk_index": 1 << 20, "links": 1000, "link_depth": 8,
            "document": 16 * MiB,
        }  # fmt: skip
        self.owner = Owner(Hello(roots={"": str(path.parent)}, **settings), self._spool)
        limits = WritingLimits(chunk=MiB, link_depth=8, selections=64, spool=64 * MiB, journal=64 * MiB)
        self.answer(Take(target=self.target(), descriptor=-1, create=True, number=0, durability="flush", limits=limits))

    def target(self, name: str = "/") -> Target:
        return Target(file=str(self.path), generation="", name=name)

    def answer(self, request: Any) -> Any:
        reply = self.owner.answer(request)
        if isinstance(reply, Failed):
            raise by_code(reply.code)(reply.message)
        return reply

    def commit(self, *batches: Sequence[Operation]) -> list[Done | Refused]:
        """Carry out batches in one commit; there are fewer results where one has failed that had changed something."""
        some = tuple(Batch(operations=tuple(operations)) for operations in batches)
        applied: Applied = self.answer(Apply(target=self.target(), batches=some))
        self.answer(Publish(target=self.target()))
        return list(applied.results)

    def apply(self, *operations: Operation) -> None:
        """Carry out one batch, or raise what is wrong with it."""
        (result,) = self.commit(operations)
        if isinstance(result, Refused):
            raise by_code(result.code)(result.message)

    def close(self) -> None:
        self.owner.close()
        os.close(self._spool)


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
