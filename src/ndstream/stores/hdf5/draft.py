"""A file as it would be if the transaction under way were committed.

Bytes go to one of two places. Behind the floor, where no commit since the last checkpoint has anything, large writes
go straight to the main file: nothing refers to them before the commit. All others are laid down in the journal, and an
`Overlay` remembers where.
"""

from __future__ import annotations

from collections.abc import Callable

from ndstream.core.limits import KiB, MiB
from ndstream.stores.hdf5.disk import HASTE, DiskFile
from ndstream.stores.hdf5.log import REFRESH, Log, touch_of
from ndstream.stores.hdf5.overlay import ZEROS, Overlay

#: A write of that much behind the floor goes straight to the file. Less goes through the journal, as long as all of it
#: together is less: that costs less than to synchronise two files.
_STRAIGHT = 128 * KiB
#: The beginning never goes straight: a file that was never committed must not look like one that was.
_HEAD = 4 * KiB
_PIECE = 1 * MiB
_RUN = 64  # buffers written to the main file at once


class Draft:
    """The main file, the journal, and what tells which bytes are where. Raises plain `OSError`.

    Parameters
    ----------
    main : DiskFile
        As the last commit left it.
    log : Log
        Nothing is laid down in it yet.
    sync : function of a DiskFile
        Waits until a file is on the disk, if it matters.

    Attributes
    ----------
    size : int, bytes
        Length of the file that the transaction makes.
    straight : int, bytes
        What went straight to the main file.
    """

    def __init__(self, main: DiskFile, log: Log, sync: Callable[[DiskFile], None]) -> None:
        self.size = self._committed = self._length = main.status().st_size
        self._floor = max(_HEAD, self.size)
        self.straight = 0
        self._main = main
        self._log = log
        self._sync = sync
        self._overlay = Overlay()
        self._copied = memoryview(bytearray(_PIECE))
        self._small = self._unmarked = 0

    def read(self, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `start`; where the file has none they are zero."""
        stop = start + len(view)
        pieces = list(self._overlay.pieces(start, stop)) if self._overlay else []
        if len(pieces) != 1 or pieces[0][:2] != (start, stop):
            count = self._main.read(start, view)
            if count < len(view):
                view[count:] = bytes(len(view) - count)
        for low, high, position in pieces:
            part = view[low - start : high - start]
            if position == ZEROS:
                part[:] = bytes(len(part))
            else:
                self._log.read(position, part)

    def write(self, start: int, view: memoryview) -> None:
        """Put the bytes of `view`, at least one, at `start`."""
        stop = start + len(view)
        self._grow(start)
        if start < self._floor < stop:
            self.write(start, view[: self._floor - start])
            start, view = self._floor, view[self._floor - start :]
        if self._goes_straight(start, stop):
            self._write_straight(start, view)
        else:
            self._lay_down(start, stop, view)
        self.size = max(self.size, stop)

    def resize(self, size: int) -> None:
        """Make the file shorter, or longer by zeros."""
        self._grow(size)
        end = self._overlay.end
        if size < end:
            # These bytes stand in the journal already, and would be back if the file grew again.
            self._lay_zeros(size, end)
        keep = max(size, self._floor)
        if self._length > keep:
            self._main.resize(keep)
            self._length = keep
        self.size = size

    def carry_out(self) -> None:
        """Bring the main file to what the draft is, once the journal has decided on it; may be repeated.

        What of the main file was not written straight before is written now, in its order, neighbours together.
        """
        run: list[memoryview] = []
        start = stop = 0
        for low, high, position in self._overlay.pieces(0, self.size):
            view = None if position == ZEROS else self._log.view(position, high - low)
            if run and (low != stop or len(run) == _RUN or view is None):
                self._put(start, stop, run)
                run = []
            if position == ZEROS:
                self._count(self._main.clear(low, high - low))
                continue
            if view is None:
                self._copy(low, high, position)
                continue
            start, stop = (start if run else low), high
            run.append(view)
        if run:
            self._put(start, stop, run)
        if self._length != self.size:
            self._main.resize(self.size)
            self._length = self.size

    def settle(self) -> None:
        """Go on from the commit that has been carried out."""
        self._floor = max(self._floor, self.size)
        self._committed = self.size
        self._begin()

    def rollback(self) -> None:
        """Go back to the last commit."""
        if self._length > self._committed:
            self._main.resize(self._committed)
            self._length = self._committed
        self._log.rollback()
        if self.straight:
            self._log.mark(touch_of(self._main.status()))
        self.size = self._committed
        self._begin()

    def sink(self) -> None:
        """Lower the floor to the end of the file, after a checkpoint."""
        self._floor = max(_HEAD, self.size)

    def _begin(self) -> None:
        self._overlay.clear()
        self.straight = self._small = self._unmarked = 0

    def _grow(self, stop: int) -> None:
        """Have zeros up to `stop` where there are bytes of before the file was made shorter."""
        stop = min(stop, self._floor)
        if self.size < stop:
            self._lay_zeros(self.size, stop)

    def _lay_zeros(self, start: int, stop: int) -> None:
        self._overlay.put(start, stop, ZEROS)
        self._log.add_zeros(start, stop - start)

    def _goes_straight(self, start: int, stop: int) -> bool:
        if start < self._floor:
            return False  # a commit since the checkpoint may have bytes there, and a replay would put them back
        if not self.straight and self._small + stop - start < _STRAIGHT:
            return False
        return not self._overlay.touches(start, stop)

    def _write_straight(self, start: int, view: memoryview) -> None:
        if not self.straight:
            self._log.mark(self._log.touch._replace(dirty=True))
        self.straight += len(view)
        for at in range(0, len(view), HASTE):
            piece = view[at : at + HASTE]
            self._put(start + at, start + at + len(piece), [piece])
            self._main.hasten(len(piece))
        self._refresh(len(view))

    def _lay_down(self, start: int, stop: int, view: memoryview) -> None:
        place = next(self._overlay.pieces(start, stop), None)
        if place is not None and place[:2] == (start, stop) and self._log.patch(place.position, view):
            return
        self._overlay.put(start, stop, self._log.add(start, view))
        if start >= self._floor:
            self._small += len(view)
        for low, high in list(self._overlay.crowds(start, stop)):
            whole = memoryview(bytearray(high - low))
            self.read(low, whole)
            self._overlay.put(low, high, self._log.add(low, whole))

    def _put(self, start: int, stop: int, views: list[memoryview]) -> None:
        self._length = max(self._length, stop)  # before, so that a write that fails half way is cut off as well
        self._main.write(start, *views)

    def _copy(self, start: int, stop: int, position: int) -> None:
        while start < stop:
            piece = self._copied[: stop - start]
            self._log.read(position, piece)
            self._put(start, start + len(piece), [piece])
            self._count(len(piece))
            position += len(piece)
            start += len(piece)

    def _count(self, nbytes: int) -> None:
        self._main.hasten(nbytes)
        self._refresh(nbytes)

    def _refresh(self, nbytes: int) -> None:
        """Let the journal know now and then that it is still we who write to the main file."""
        self._unmarked += nbytes
        if self._unmarked > REFRESH:
            self._unmarked = 0
            self._log.mark(self._log.touch)
            self._sync(self._log.file)
