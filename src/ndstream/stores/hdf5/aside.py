"""Data of operations that is too large for a message to the owner process: laid aside, in a file that both have."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from ndstream.core.limits import KiB, MiB
from ndstream.core.operations import Operation, Payload
from ndstream.stores.hdf5.messages import Batch, Spooled
from ndstream.stores.spools import SpoolFiles, place_of

_Place: TypeAlias = tuple[int, memoryview]  # offset in the file, bytes

#: Data of an operation that goes with the message.
INLINE = 64 * KiB
#: What of larger data is written in one step, by how many threads; each begins at a whole number of pages.
_PIECE = 4 * MiB
_THREADS = 2
_PAGES = 64 * KiB


@dataclass(frozen=True, slots=True)
class Laid:
    """A batch whose large data is in the file.

    Attributes
    ----------
    batch : Batch
        Without it.
    begin : int
        Where it is, for `Aside.clear`.
    """

    batch: Batch
    begin: int


class Aside:
    """The file of one owner process; closed when nobody has it any more, and no thread writes to it.

    Raises
    ------
    Busy
        There are no temporary files.

    Attributes
    ----------
    descriptor : int
    reached : bool
        Whether the process can open what the server has open: then what lies in a file already is not laid anywhere.
    """

    def __init__(self) -> None:
        self.reached = False
        self._file = SpoolFiles().take()
        self.descriptor = self._file.descriptor
        self._ends: dict[int, int] = {}  # of what is in it, by where it begins

    @property
    def nbytes(self) -> int:
        """Bytes of the data that is in it, or on its way there."""
        return sum(end - begin for begin, end in self._ends.items())

    async def lay(self, batch: Batch) -> Laid:
        """Write the large data of a batch to the file, in threads; ends when none of them writes any more.

        Raises
        ------
        Busy
            There is no room on the disk.
        """
        reached = self.reached
        begin = self._take(sum(_room(_payload(operation), reached=reached) for operation in batch.operations))
        try:
            slim, places = await asyncio.to_thread(_parted, batch, begin, reached=reached)
            shares = [asyncio.to_thread(self._write, places[first::_THREADS]) for first in range(_THREADS)]
            for outcome in await asyncio.gather(*shares, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        except BaseException:
            self.clear(begin)
            raise
        return Laid(slim, begin)

    def clear(self, begin: int) -> None:
        """Have the room for other data."""
        del self._ends[begin]

    def _take(self, nbytes: int) -> int:
        """Find the first gap that is large enough; of several that are taken each has one of its own."""
        begin, nbytes = 0, max(nbytes, _PAGES)
        for start, end in sorted(self._ends.items()):
            if start - begin >= nbytes:
                break
            begin = end
        self._ends[begin] = begin + nbytes
        return begin

    def _write(self, places: list[_Place]) -> None:
        for offset, view in places:
            self._file.write(offset, view)


def inline(batch: Batch) -> Batch:
    """Make a batch without large data one that goes with a message as it is."""
    return _parted(batch, 0)[0]


def _payload(operation: Operation) -> Payload | None:
    """Data of an operation, if it has such that is bytes."""
    payload = getattr(operation, "data", None)
    if not isinstance(payload, Payload) or isinstance(payload.data, list) or payload.data is None:
        return None
    return payload


def _room(payload: Payload | None, *, reached: bool) -> int:
    """Bytes that data needs in the file: whole pages, or none when it is small, or lies in a file that is reached."""
    view = memoryview(b"" if payload is None else payload.data)
    if view.nbytes <= INLINE or (reached and place_of(view) is not None):
        return 0
    return -(-view.nbytes // _PAGES) * _PAGES


def _parted(batch: Batch, begin: int, *, reached: bool = False) -> tuple[Batch, list[_Place]]:
    """Take the large data out of a batch; returns it, and what belongs where in the file, from `begin` on."""
    places: list[_Place] = []

    def slim(operation: Operation) -> Operation:
        nonlocal begin
        payload = _payload(operation)
        room = _room(payload, reached=reached)
        if payload is None or (not room and isinstance(payload.data, bytes)):
            return operation
        view = memoryview(payload.data).cast("B")
        plain: Any
        if room:
            plain = msgspec.to_builtins(Spooled(offset=begin, nbytes=view.nbytes))
            places.extend((begin + at, view[at : at + _PIECE]) for at in range(0, view.nbytes, _PIECE))
            begin += room
        elif view.nbytes > INLINE and (place := place_of(view)) is not None:
            descriptor, offset = place
            plain = msgspec.to_builtins(Spooled(offset=offset, nbytes=view.nbytes, descriptor=descriptor))
        else:
            plain = bytes(view)
        payload = msgspec.structs.replace(payload, data=plain)
        return msgspec.structs.replace(operation, data=payload)

    return msgspec.structs.replace(batch, operations=tuple(map(slim, batch.operations))), places
