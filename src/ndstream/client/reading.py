"""How data are read from a server of ours: what is asked for in which form, and in how many requests.

Courses (`ndstream.wire.flow`), for synchronous and asynchronous programs alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TypeAlias

from ndstream.client.blocks import BlockCache
from ndstream.core.dtypes import is_fixed, to_numpy
from ndstream.core.limits import Limits, MiB
from ndstream.core.model import Dataset
from ndstream.core.selection import Selection
from ndstream.errors import Conflict, UnsupportedDType, UnsupportedFilter
from ndstream.protocols.native.flows import Decode, NativeFlows, Wanted
from ndstream.protocols.native.messages import MOST_READS
from ndstream.stores.hdf5.decode import pipeline
from ndstream.wire.flow import Course, Start

THROUGH = 1 * MiB
"""Bytes from which on compressed data are asked for as they are stored, to be decoded here."""
_TOGETHER = 16 * MiB  # of many reads in one request
_ATTEMPTS = 3  # at many reads in several requests
_WASTE = 2  # of chunks, at most that many times the bytes that are wanted of them

_Ask: TypeAlias = Callable[[Wanted, str | None], Start]


def read(
    flows: NativeFlows, path: str, wanted: Wanted, described: Dataset | None, blocks: BlockCache | None = None
) -> Course[None]:
    """Read a selection of a dataset.

    A long read is made in parts, several at once, all of one state of the file. When it is written to meanwhile the
    whole is asked for in one request, which sees one state for as long as it lasts.

    Parameters
    ----------
    described : Dataset, optional
        What is known of the dataset. None when the server does not send stored chunks.
    blocks : BlockCache, optional
        Where small reads look first.

    Raises
    ------
    NDStreamError
        What is in the array is undefined then.
    """
    if blocks is not None and described is not None and (yield from blocks.read(flows, path, wanted, described)):
        return
    decode = None if described is None else decode_here(described, wanted.selection)
    if decode is not None and described is not None:
        try:
            yield from _in_parts(flows, path, wanted, described, _Stored(flows, path, described, decode))
            return
        except UnsupportedDType:
            pass  # these chunks the server keeps to itself: it can still decode them
    yield from _in_parts(flows, path, wanted, described, _Elements(flows, path))


@dataclass(frozen=True, slots=True)
class _Elements:
    """Asks for elements."""

    flows: NativeFlows
    path: str

    def __call__(self, part: Wanted, state: str | None) -> Start:
        return partial(self.flows.read, self.path, [part], state)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Asks for stored chunks."""

    flows: NativeFlows
    path: str
    described: Dataset
    decode: Decode

    def __call__(self, part: Wanted, state: str | None) -> Start:
        return partial(self.flows.read_stored, self.path, part, self.described, self.decode, state)


def _in_parts(flows: NativeFlows, path: str, wanted: Wanted, described: Dataset | None, ask: _Ask) -> Course[None]:
    chunks = None if described is None else described.chunks
    if (most := longest_part(wanted, chunks, flows.limits)) < wanted.selection.count:
        (state,) = yield (partial(flows.state, path),)
        try:
            yield [ask(part, state) for part in parts(wanted, most, chunks)]
            return
        except Conflict:
            pass
    yield (ask(wanted, None),)


def read_many(flows: NativeFlows, path: str, wanted: Sequence[Wanted]) -> Course[None]:
    """Read selections of several datasets of a file: in one request, or in as many as it takes, all of one state.

    Raises
    ------
    Conflict
        The file was changed again and again between the requests.
    NDStreamError
        What is in the arrays is undefined then.
    """
    groups = list(_groups(wanted))
    if not groups:
        return
    if len(groups) == 1:
        yield (partial(flows.read, path, groups[0]),)
        return
    for left in reversed(range(_ATTEMPTS)):
        (state,) = yield (partial(flows.state, path),)
        try:
            yield [partial(flows.read, path, group, state) for group in groups]
            return
        except Conflict:
            if not left:
                raise


def _groups(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Cut many reads into groups that one request may have, since a server holds those that are small."""
    group: list[Wanted] = []
    nbytes = 0
    for one in wanted:
        if group and (len(group) == MOST_READS or nbytes + one.destination.nbytes > _TOGETHER):
            yield group
            group, nbytes = [], 0
        group.append(one)
        nbytes += one.destination.nbytes
    if group:
        yield group


def longest_part(wanted: Wanted, chunks: tuple[int, ...] | None, limits: Limits) -> int:
    """Elements of one part of a read: as many as the limit says, and at least a row of chunks.

    With less than a row most chunks would be sent to two parts.
    """
    shape = wanted.selection.shape
    count = wanted.selection.count
    if not count:
        return 0
    element = wanted.destination.nbytes // count
    row = 1 if chunks is None else chunks[0] * prod(shape[1:])
    return max(limits.read_part // max(1, element), row, 1)


def parts(wanted: Wanted, most: int, chunks: tuple[int, ...] | None = None) -> Iterator[Wanted]:
    """Cut a read into reads of at most `most` elements, each into its own part of the array."""
    extra = wanted.destination.shape[len(wanted.selection.shape) :]
    flat = wanted.destination.reshape(-1, *extra)
    start = 0
    for block in wanted.selection.blocks(most, chunks):
        yield Wanted(wanted.name, block, flat[start : start + block.count].reshape(block.shape + extra))
        start += block.count


def decode_here(described: Dataset, selection: Selection) -> Decode | None:
    """What decodes stored chunks of a dataset; None when the server had better send elements.

    It pays when the data are compressed and many, most of what the chunks hold is wanted, and all filters are known.
    """
    chunks = described.chunks
    if chunks is None or not described.filters or not is_fixed(described.dtype):
        return None
    itemsize = to_numpy(described.dtype).itemsize
    if selection.count * itemsize < THROUGH:
        return None
    touched = 1
    for (start, stop), chunk in zip(selection.bounds, chunks, strict=True):
        touched *= (-(-stop // chunk) - start // chunk) * chunk
    if touched > _WASTE * selection.count:
        return None
    try:
        return pipeline(described.filters, prod(chunks) * itemsize).decode
    except UnsupportedFilter:
        return None
