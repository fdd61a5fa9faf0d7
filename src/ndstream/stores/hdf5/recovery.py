"""What is done with a journal that was left behind: its decided commits are carried out, the rest is forgotten.

A journal belongs to a file, not to a name: when another file has the name now, the journal is put aside. When the file
is the same but was changed by somebody else, the two cannot be brought together, and both are left as they are.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from ndstream.errors import Conflict, Corrupt, FileInUse, Replaced
from ndstream.stores.hdf5.disk import DiskFile, failure_of
from ndstream.stores.hdf5.records import Header
from ndstream.stores.hdf5.replay import Scan, replay, scan

#: Writing to the main file after the journal has the last word on it: a copy between disks may take that long.
_GRACE = 60_000_000_000

#: Seconds to wait for a lock that somebody holds who may be about to die, or only looks (`standing`).
PATIENCE = 1.0

#: What there is in the place of a journal is none of ours; a name may be too long to have one.
_NO_JOURNAL = frozenset({errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP})

_ADVICE = "to have the file as it is now"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was found in a journal.

    Attributes
    ----------
    commit : int
        Number of the last commit. The file is as that commit left it.
    replayed : int
        How many commits were carried out now.
    nbytes : int, bytes
        What was written to the file for it.
    notes : tuple of (int, bytes)
        Number and note of the commits since the last checkpoint, oldest first, those carried out before included.
    """

    commit: int
    replayed: int
    nbytes: int
    notes: tuple[tuple[int, bytes], ...]


def journal_path(path: Path) -> Path:
    """Where the journal of the file at `path` is: beside it, under a hidden name."""
    return path.with_name(f".{path.name}.ndstream-journal")


def boot_id() -> bytes:
    """Sixteen bytes that no other boot of no other machine has."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", ""))


class Standing(Enum):
    """What the journal of a file says of whoever writes the file."""

    NOBODY = auto()  #: there is no journal, or nothing in it yet
    ALIVE = auto()  #: somebody writes the file
    DEAD = auto()  #: what is in the journal was left behind


class LeftBehind(Replaced):
    """A file is to be put in order before it is read, because whoever wrote it died.

    Attributes
    ----------
    path : str
        Its real path.
    """

    def __init__(self, path: str) -> None:
        super().__init__("the file has changed while it was read")
        self.path = path


def standing(path: Path | str) -> Standing:
    """Look whether somebody writes a file, or has left something to be done to it. Costs a system call for most files.

    What was left behind and is not for this process to carry out is taken for what somebody writes, with a warning.

    Raises
    ------
    StorageFailed
        There is no looking, because no more files can be opened for instance.
    """
    path = Path(path)
    name = journal_path(path)
    try:
        journal = DiskFile.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return Standing.ALIVE
    except OSError as error:
        if error.errno in _NO_JOURNAL:
            return Standing.NOBODY
        raise failure_of(error, path) from error
    try:
        status = journal.status()
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return Standing.NOBODY
        if not journal.lock(shared=True):
            return Standing.ALIVE
        if not journal.is_at(name):
            return Standing.NOBODY
    finally:
        journal.close()
    if not _is_free(path):
        return Standing.ALIVE
    if os.access(name, os.W_OK) and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK):
        return Standing.DEAD
    _log.warning("%s is read as it is: not allowed to carry out what may be left in %s", path, name.name)
    return Standing.ALIVE


def _is_free(path: Path) -> bool:
    """Whether no other program has a file open for writing."""
    main = _open_main(path, DiskFile, os.O_RDONLY | os.O_NONBLOCK)
    if main is None:
        return True
    try:
        return main.lock(shared=True)
    finally:
        main.close()


def recover(path: Path, *, disk: type[DiskFile] = DiskFile, patience: float = 0.0) -> Recovered | None:
    """Put a file in order whose owner died; to be called before the file is opened for reading or for writing.

    Costs one system call where there is no journal. Afterwards the file is as the last decided commit left it, every
    byte of it synchronised, and the journal is gone. It may be interrupted and called again.

    Parameters
    ----------
    path : Path
        The main file, by its real path.
    disk : type of DiskFile
        How files are opened.
    patience : float, seconds
        How long to wait for whoever holds the journal, or the file: it may be about to die, or only look (`standing`).

    Returns
    -------
    Recovered or None
        None when there is no journal, or none for this file (it has been put aside, with a warning).

    Raises
    ------
    FileInUse
        The owner is alive, or another program holds the file for writing, or ndstream under another name.
    Conflict
        Somebody else has changed the file since. The journal is still there, and the message says what to do.
    Corrupt
        The journal is damaged so that it cannot be told what it belongs to. Both files are left as they are.
    StorageFull, StorageFailed
        The disk does not let us. What is decided stays in the journal.
    """
    try:
        journal = _lock_journal(path, disk, patience)
        if journal is None:
            return None
        try:
            return _recover(path, journal, disk, patience)
        finally:
            journal.close()
    except OSError as error:
        raise failure_of(error, path) from error


def put_in_order(path: Path) -> None:
    """`recover` a file that is going to be read, if it has to be and can be.

    Where somebody writes it now, or the journal is not ours (`standing`), the file is read as it is.

    Raises
    ------
    Conflict, Corrupt, StorageFull, StorageFailed
        As `recover`.
    """
    if standing(path) is Standing.DEAD:
        with contextlib.suppress(FileInUse):
            recover(path, patience=PATIENCE)


def _lock_journal(path: Path, disk: type[DiskFile], patience: float) -> DiskFile | None:
    name = journal_path(path)
    while True:
        try:
            journal = disk.open(name)
        except FileNotFoundError:
            return None
        if not journal.lock(shared=False, patience=patience):
            journal.close()
            raise FileInUse(f"{path.name} is being written by another process of ndstream")
        if journal.is_at(name):
            return journal
        journal.close()  # its owner removed it between our opening and our locking it


def _recover(path: Path, journal: DiskFile, disk: type[DiskFile], patience: float) -> Recovered | None:
    try:
        found = scan(journal)
    except Corrupt as error:
        raise Corrupt(f"{path.name}: {error}; move {journal_path(path).name} away {_ADVICE}") from None
    main = _open_main(path, disk)
    try:
        if found is None:
            recovered = None
        elif main is None or not _belongs(found.header, main):
            _put_aside(path, disk)
            return None
        elif not main.lock(shared=True):
            raise FileInUse(f"{path.name} is being written by another program, and has a journal to be replayed first")
        elif not main.claim(patience=patience):
            raise FileInUse(f"{path.name} is being written under another name, and has a journal to be replayed first")
        else:
            recovered = _restore(path, journal, found, main)
        disk.remove(journal_path(path))
        disk.sync_directory(path.parent)
        return recovered
    finally:
        if main is not None:
            main.close()


def _open_main(path: Path, disk: type[DiskFile], flags: int = os.O_RDWR) -> DiskFile | None:
    try:
        return disk.open(path, flags)
    except FileNotFoundError:
        return None


def _belongs(header: Header, main: DiskFile) -> bool:
    identity = main.identity()
    if header.boot != boot_id():
        # The numbers of devices are given out anew at each boot.
        identity = replace(identity, device=header.identity.device)
    return identity == header.identity


def _put_aside(path: Path, disk: type[DiskFile]) -> None:
    name = journal_path(path)
    aside = name.with_name(f"{name.name}.{time.time_ns():x}")
    disk.rename(name, aside)
    _log.warning("another file has been put in the place of %s: its journal is now %s", path.name, aside.name)


def _restore(path: Path, journal: DiskFile, found: Scan, main: DiskFile) -> Recovered:
    same_boot = found.header.boot == boot_id()
    # What a crash of the machine left of commits that were not synchronised, nobody knows.
    commits = [commit for commit in found.commits if not same_boot or commit.number > found.applied]
    untouched = _untouched(found, main, same_boot=same_boot)
    # A transaction that was never decided has written straight behind the end.
    straight = found.touch is not None and found.touch.dirty
    nbytes = 0
    if commits:
        if not untouched:
            raise Conflict(
                f"{path.name} was changed by another program after ndstream was interrupted, with commits that are "
                f"only in the journal: put back the file of before, or move {journal_path(path).name} away {_ADVICE}"
            )
        nbytes = replay(journal, found, commits, main)
        _log.warning("%s: commits carried out that were left in its journal: %d", path.name, len(commits))
    elif straight and untouched and main.status().st_size > found.end:
        main.resize(found.end)
    main.sync()
    notes = tuple((commit.number, commit.note) for commit in found.commits)
    return Recovered(commit=found.commit, replayed=len(commits), nbytes=nbytes, notes=notes)


def _untouched(found: Scan, main: DiskFile, *, same_boot: bool) -> bool:
    """Whether nobody but us has written to the main file, as far as that can be told."""
    status = main.status()
    if same_boot and found.touch is not None and not found.touch.dirty:
        return (status.st_size, status.st_mtime_ns) == found.touch[:2]
    return status.st_mtime_ns <= found.time + _GRACE
