"""A file object for h5py whose commits are atomic and durable.

Bytes behind the end of the file, that nothing committed refers to, go straight there. Bytes in place of committed ones
go to a journal beside the file. A commit is decided by a record in the journal and carried out in the file afterwards;
now and then the file is synchronised and the journal emptied. What is done when the process dies in between:
`ndstream.stores.hdf5.recovery`.

>>> with JournaledFile.open(Path("run.h5")) as disk, h5py.File(disk, "r+") as file:
...     file["images"][0] = frame
...     file.flush()
...     disk.commit()
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.errors import Conflict, FileInUse, InvalidRequest, NDStreamError, StorageFailed
from ndstream.stores.hdf5.disk import Buffer, DiskFile, failure_of
from ndstream.stores.hdf5.draft import Draft
from ndstream.stores.hdf5.log import Log, touch_of
from ndstream.stores.hdf5.records import Header
from ndstream.stores.hdf5.recovery import PATIENCE, Recovered, boot_id, journal_path, recover
from ndstream.stores.hdf5.superblock import says_written

__all__ = ["JournaledFile", "Recovered", "journal_path", "recover"]


class JournaledFile:
    """An HDF5 file that only this object writes to, between commits that happen completely or not at all.

    To h5py it is a file object: ``h5py.File(journaled, "r+")``. What h5py has written belongs to a transaction that
    ends with `commit` (or `stage` and `apply`) or with `rollback`; h5py must be flushed before it is committed, and
    closed before it is rolled back. In memory there is 1 MiB of data, and an index of the ranges that are overwritten
    (`Overlay`), however large the transaction.

    When the disk fails while h5py writes, h5py is not told: the HDF5 library could neither use nor close its file after
    an error in the middle of a flush. What it goes on writing is dropped, `failure` says why, and `stage` raises it.
    `rollback` makes the file usable again, unless it is `lost`. Not for several threads at once.

    Attributes
    ----------
    path : Path
        Real path of the file.
    recovered : Recovered or None
        What was found in a journal that was left behind, when the file was opened.
    lost : bool
        The disk did not do what it had promised, so that it is not known what is on it. All that is left to do is to
        close the file, and to open it again.
    read_last : tuple of int
        What h5py has read last: where it begins, and how many bytes it has.
    """

    def __init__(
        self,
        path: Path,
        main: DiskFile,
        journal: DiskFile,
        *,
        recovered: Recovered | None,
        number: int,
        durability: Literal["fsync", "flush"],
        limits: Limits,
    ) -> None:
        self.path = path
        self._place, self._journal = str(path), str(journal_path(path))
        self.recovered = recovered
        self.lost = False
        self.read_last = 0, 0
        self._main = main
        self._durable = main.eager = journal.eager = durability == "fsync"
        self._limit = limits.journal
        status = main.status()
        header = Header(main.identity(), boot_id(), 0, number, status.st_size)
        self._log = Log(journal, header, touch_of(status), ahead=self._durable)
        self._draft = Draft(main, self._log, self._sync)
        self._position = 0
        self._changed = self._staged = self._closed = False
        self._dropping = False
        self._failure: NDStreamError | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        number: int = 0,
        durability: Literal["fsync", "flush"] = "fsync",
        limits: Limits = DEFAULT_LIMITS,
        disk: type[DiskFile] = DiskFile,
    ) -> Self:
        """Take hold of a file for writing, once what was left behind of the last time is put in order.

        Others can open the file with the HDF5 library for reading, not for writing, until it is closed.

        Parameters
        ----------
        path : Path
            Its directory must be writable: the journal is made there.
        number : int
            Number of the last commit, if the caller knows one; the next is one higher. What is recovered counts more.
        durability : {"fsync", "flush"}
            Whether a commit outlives a crash of the machine, or only one of the process.
        limits : Limits
            `journal` is what makes a checkpoint necessary.
        disk : type of DiskFile
            How files are opened.

        Raises
        ------
        NotFound, InvalidRequest
            The file is not there, or is no regular file.
        FileInUse
            Somebody else writes to it, be it under another name, or the file says so.
        Conflict, Corrupt
            A journal that was left behind cannot be replayed, see `recover`.
        StorageFull, StorageFailed
            The disk does not let us write.
        """
        path = path.resolve()
        recovered = recover(path, disk=disk, patience=PATIENCE)
        try:
            main = _open_main(path, disk)
            try:
                journal = _open_journal(path, main, disk)
                try:
                    # fmt: off
                    opened = cls(
                        path, main, journal, recovered=recovered, durability=durability, limits=limits,
                        number=max(number, recovered.commit) if recovered else number,
                    )
                    # fmt: on
                    opened._sync(journal)
                    disk.sync_directory(path.parent)
                except BaseException:
                    disk.remove(journal_path(path))
                    journal.close()
                    raise
            except BaseException:
                main.close()
                raise
        except OSError as error:
            raise failure_of(error, path) from error
        return opened

    def __repr__(self) -> str:
        return f"<JournaledFile {self.path.name!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def number(self) -> int:
        """Number of the last commit that is decided."""
        return self._log.decided

    @property
    def changed(self) -> bool:
        """Whether anything was written since the last commit."""
        return self._changed

    @property
    def failure(self) -> NDStreamError | None:
        """Why nothing more is written; None as long as all is well. Worth a look after every operation of h5py."""
        return self._failure

    @property
    def journal_nbytes(self) -> int:
        """Length of the journal in bytes; 0 right after a checkpoint."""
        return 0 if self._log.empty else self._log.nbytes

    # -- what h5py calls --

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, from the start, from where it is, or from the end."""
        self._position = offset + (0, self._position, self._draft.size)[whence]
        return self._position

    def tell(self) -> int:
        """Position of the next byte."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill `buffer` from the position on; returns how many bytes the file had. The rest becomes zero.

        Raises
        ------
        StorageFailed
        """
        view = memoryview(buffer)
        count = max(0, min(len(view), self._draft.size - self._position))
        try:
            self._draft.read(self._position, view[:count])
        except OSError as error:
            raise failure_of(error, self.path) from error
        if count < len(view):
            view[count:] = bytes(len(view) - count)  # h5py does not look at what is returned
        self.read_last = self._position, len(view)
        self._position += count
        return count

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, or all to the end."""
        left = max(0, self._draft.size - self._position)
        buffer = bytearray(left if size < 0 else min(size, left))
        self.readinto(buffer)
        return bytes(buffer)

    def write(self, data: Buffer) -> int:
        """Write all of `data` (a contiguous buffer of bytes) at the position; returns its length.

        Raises nothing when the disk does not take it: see `failure`.
        """
        view = memoryview(data)
        start, self._position = self._position, self._position + len(view)
        if view and not self._dropping:
            self._change(self._draft.write, start, view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Make the file `size` bytes long, or end it at the position; new bytes are zero. Fails as `write` does."""
        if size is None:
            size = self._position
        if size != self._draft.size and not self._dropping:
            self._change(self._draft.resize, size)
        return size

    def flush(self) -> None:
        """Do nothing: what is written is safe when it is committed."""

    # -- transactions --

    def commit(self, note: bytes = b"") -> int:
        """Make everything that h5py has written durable, and the content of the file: `stage`, then `apply`."""
        number = self._decide(note, going_on=True)
        self.apply()
        return number

    def stage(self, note: bytes = b"") -> int:
        """Decide: everything h5py has written since the last commit will be in the file, whatever happens.

        The caller has flushed h5py. Until `apply`, readers of the file see nothing of it, nothing may be written, and
        reading through this object gives the new content.

        Parameters
        ----------
        note : bytes
            Kept with the commit until the next checkpoint, for whoever recovers the file.

        Returns
        -------
        int
            Number of the commit.

        Raises
        ------
        StorageFull, StorageFailed
            Nothing is decided; `rollback` is possible, unless `lost`: then it will be known when the file is opened.
        Conflict
            Another file has been put in the place of this one, or another program has written to it: all that is left
            to do is to close it.
        """
        return self._decide(note, going_on=False)

    def apply(self) -> None:
        """Carry out what was staged: now whoever reads the file sees the commit. Does nothing when nothing is staged.

        The caller keeps readers out meanwhile: they would see a part of it.

        Raises
        ------
        StorageFull, StorageFailed
            The commit stays decided. It may be tried again; nothing else may be done before it succeeds, but to close
            the file, which leaves the rest to `recover`.
        """
        if not self._staged:
            return
        try:
            if not self._log.touch.dirty:
                self._log.mark(self._log.touch._replace(dirty=True))
            self._draft.carry_out()
            self._log.mark(touch_of(self._main.status()), self._log.decided)
        except OSError as error:
            raise failure_of(error, self.path) from error
        self._draft.settle()
        self._changed = self._staged = False

    def abandon(self) -> None:
        """Drop what h5py will write from now on, so that it can be closed before `rollback`."""
        self._require_idle()
        self._dropping = True

    def rollback(self) -> None:
        """Forget everything since the last commit. The caller has closed h5py's file, and opens it anew afterwards.

        Raises
        ------
        StorageFailed
            The file is `lost`.
        """
        self._require_idle()
        if self.lost:
            self._raise_failure()
        try:
            self._draft.rollback()
        except OSError as error:
            self._lose(error)
            self._raise_failure()
        self._failure = None
        self._changed = self._dropping = False

    def checkpoint(self, least: int = 0) -> None:
        """Synchronise the file and empty the journal; between transactions, when there is time for it.

        It happens by itself with the first write after the journal has grown beyond its limit.

        Parameters
        ----------
        least : int, bytes
            A journal that is not longer is left as it is.

        Raises
        ------
        StorageFailed
            The file is `lost`; the journal is as it was.
        Conflict
            Another program has written to the file.
        """
        self._require_idle()
        if self._changed:
            raise RuntimeError("a transaction is under way: commit or roll back first")
        if self.lost:
            self._raise_failure()
        if self.journal_nbytes > least:
            self._check_untouched()
            self._empty()

    def _empty(self) -> None:
        if not self.journal_nbytes:
            return
        try:
            self._sync(self._main)
            self._log.checkpoint(self._draft.size, touch_of(self._main.status()))
            self._sync(self._log.file)
            self._log.shrink(2 * self._limit)  # as far as it grows with commits that are not too large
        except OSError as error:
            self._lose(error)
            self._raise_failure()
        self._draft.sink()

    def close(self) -> None:
        """Carry out what is staged, forget what is not, empty and remove the journal, and let go of the file.

        When that fails, or the file is `lost`, the journal stays, for `recover`.

        Raises
        ------
        StorageFull, StorageFailed
        """
        if self._closed:
            return
        try:
            if not self.lost:
                self._finish()
        except OSError as error:
            raise failure_of(error, self.path) from error
        finally:
            self._closed = self._dropping = True
            self._main.close()  # first: whoever gets hold of the journal can have the file too
            self._log.file.close()

    def _finish(self) -> None:
        self.apply()
        if self._changed or self._dropping:
            self.rollback()
        self._empty()
        if self._log.file.is_at(self._journal):  # also of a file that has gone from its name: there is nothing in it
            self._main.remove(Path(self._journal))

    # -- how it is done --

    def _decide(self, note: bytes, *, going_on: bool) -> int:
        """Write the record; with `going_on` it says that the main file may have been written to, as it will be."""
        self._require_idle()
        if self._failure is not None:
            self._raise_failure()
        if not self._main.is_at(self._place):
            raise Conflict(f"{self.path.name} was removed, or another file has been put in its place")
        if not self._log.file.is_at(self._journal):
            raise Conflict(f"the journal of {self.path.name} was removed while the file was being written")
        try:
            self._check_untouched()
            touch = self._log.touch
            if self._draft.straight:
                self._sync(self._main)
                touch = touch_of(self._main.status())
            number = self._log.commit(self._draft.size, touch._replace(dirty=going_on), note)
            self._sync(self._log.file)
        except (OSError, Conflict) as error:
            self._stop(error)
            self._raise_failure()
        except BaseException as error:
            self._lose(error)  # interrupted, before or after it was decided
            raise
        self._changed = self._staged = True
        return number

    def _change(self, change: Callable[..., None], *arguments: Any) -> None:
        """Change the draft, without a word to h5py when that fails."""
        try:
            if not self._changed or self._staged:
                self._require_idle()
                self._check_untouched()
                if self._log.nbytes > self._limit:
                    self.checkpoint()
                self._changed = True
            change(*arguments)
        except (OSError, RuntimeError, Conflict) as error:
            self._stop(error)
        except BaseException as error:
            self._stop(error)
            raise

    def _check_untouched(self) -> None:
        """Make sure that nobody else has written to the main file since we have, as far as its length and time tell."""
        touch = self._log.touch
        if not touch.dirty and touch != touch_of(self._main.status()):
            raise Conflict(f"{self.path.name} was changed by another program while it was being written here")

    def _require_idle(self) -> None:
        if self._closed:
            raise ValueError("the file is closed")
        if self._staged:
            raise RuntimeError("a commit is decided and not carried out: apply() comes first")

    def _sync(self, file: DiskFile) -> None:
        if self._durable:
            try:
                file.sync()
            except OSError as error:
                self._lose(error)
                raise

    def _stop(self, error: BaseException) -> None:
        """Write nothing more until `rollback`."""
        self._dropping = True
        if self._failure is None:
            self._failure = self._meaning(error)
            self._failure.__cause__ = error

    def _lose(self, error: BaseException) -> None:
        """Write nothing more at all: the kernel forgets what it could not write, and trying again proves nothing."""
        if not self.lost:
            self.lost = self._dropping = True
            self._failure = StorageFailed(
                f"{self._meaning(error)}; it is not known what is on the disk, and the file has to be opened again"
            )
            with contextlib.suppress(OSError):  # then the journal is to be believed as it is
                self._log.distrust()

    def _meaning(self, error: BaseException) -> NDStreamError:
        if isinstance(error, NDStreamError):
            return error
        if isinstance(error, OSError):
            return failure_of(error, self.path)
        return StorageFailed(f"{self.path.name}: {str(error) or 'interrupted'}")

    def _raise_failure(self) -> NoReturn:
        failure = self._failure or StorageFailed(f"{self.path.name}: writing has failed")
        raise type(failure)(*failure.args) from failure.__cause__


def _open_main(path: Path, disk: type[DiskFile]) -> DiskFile:
    main = disk.open(path)
    if not stat.S_ISREG(main.status().st_mode):
        main.close()
        raise InvalidRequest(f"{path.name} is not a regular file")
    if not main.lock(shared=True):
        main.close()
        raise FileInUse(f"{path.name} is open for writing in another program")
    if not main.claim(patience=PATIENCE):
        main.close()
        raise FileInUse(
            f"{path.name} is being written by ndstream under another name: it has a hard link, or was moved"
        )
    try:
        written = says_written(main)
    except BaseException:
        main.close()
        raise
    if written:
        main.close()
        raise FileInUse(
            f"{path.name} is open for writing in another program, in SWMR mode perhaps, or was when that died: "
            f"`h5clear -s {path.name}` makes it writable then"
        )
    return main


def _open_journal(path: Path, main: DiskFile, disk: type[DiskFile]) -> DiskFile:
    name = journal_path(path)
    try:
        journal = disk.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, main.status().st_mode & 0o666)
    except FileExistsError:
        raise FileInUse(f"{path.name} is being opened by another process of ndstream") from None
    # Somebody who recovers the file may have taken our blank journal for one that was left behind.
    if not journal.lock(shared=False, patience=PATIENCE) or not journal.is_at(name):
        journal.close()
        raise FileInUse(f"{path.name} is being opened by another process of ndstream")
    return journal
