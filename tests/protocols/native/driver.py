"""Runs flows against the protocol in memory, and a store that has stored chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from ndstream.core.dtypes import from_numpy
from ndstream.core.model import Dataset, Filter
from ndstream.core.ports import Access
from ndstream.core.selection import Selection, everything
from ndstream.stores.memory import Array, Group, MemoryStore
from ndstream.wire.flow import Flow, Head, Peek, Read, ReadInto, ReadSome, Request, Work

from .conftest import Peer

T = TypeVar("T")


def drive(flow: Flow[T], peer: Peer) -> T:
    """Run a flow to its end; every instruction is answered from the whole body."""
    value: Any = None
    body, at = b"", 0
    try:
        while True:
            instruction = flow.send(value)
            value = None
            match instruction:
                case Request(method=method, path=path, headers=headers, body=sent):
                    joined = b"".join(sent) if isinstance(sent, tuple) else sent or b""
                    path, _, query = path.partition("?")
                    reply = peer.ask(method, path, query=query, headers=dict(headers), body=joined)
                    body, at = reply.body, 0
                    value = Head(status=reply.status, headers=reply.headers)
                case Read(count):
                    value, at = body[at : at + count], at + count
                case ReadInto(buffer):
                    buffer[:], at = body[at : at + len(buffer)], at + len(buffer)
                case ReadSome(most):
                    value, at = body[at : at + most], at + most
                case Peek(count):
                    value = body[at : at + count]
                case Work(function):
                    function()
    except StopIteration as end:
        result: T = end.value
        return result


class ChunkReading:
    """Chunks of a dataset of h5py that a selection touches, as they are stored."""

    def __init__(self, source: h5py.Dataset, selection: Selection) -> None:
        filters = source.id.get_create_plist()
        self.dataset = Dataset(
            dtype=from_numpy(source.dtype),
            shape=source.shape,
            maxshape=source.maxshape,
            attributes={},
            storage="chunked",
            chunks=source.chunks,
            filters=tuple(
                Filter(id=number, name=name.decode(), options=options, optional=bool(flags & 1))
                for number, flags, options, name in map(filters.get_filter, range(filters.get_nfilters()))
            ),
            fill=source.fillvalue.tobytes(),
        )
        rows = []
        self._chunks = []
        grid = [-(-side // chunk) for side, chunk in zip(source.shape, source.chunks, strict=True)]
        for part in selection.over(source.chunks):
            offset = tuple(at * chunk for at, chunk in zip(part.chunk, source.chunks, strict=True))
            if source.id.get_chunk_info_by_coord(offset).byte_offset is None:
                continue
            mask, data = source.id.read_direct_chunk(offset)
            rows.append((np.ravel_multi_index(part.chunk, grid), len(data), mask))
            self._chunks.append(data)
        self.index: NDArray[np.uint64] = np.array(rows, np.uint64).reshape(-1, 3)
        self.nbytes = int(self.index[:, 1].sum())

    async def buffers(self) -> AsyncIterator[memoryview]:
        whole = memoryview(b"".join(self._chunks))
        for at in range(0, len(whole), 1000):
            yield whole[at : at + 1000]

    async def aclose(self) -> None:
        pass


class ChunkStore(MemoryStore):
    """Serves one file ``f.h5`` whose datasets are those of an open h5py file, also as stored chunks."""

    def __init__(self, file: h5py.File) -> None:
        super().__init__({"f.h5": Group({name: Array(file[name][()]) for name in file})})
        self._file = file

    async def stored(
        self, path: str, name: str, access: Access, selection: Selection | Callable[[tuple[int, ...]], Selection] | None
    ) -> ChunkReading:
        source = self._file[name]
        chosen = selection(source.shape) if callable(selection) else selection or everything(source.shape)
        return ChunkReading(source, chosen)
