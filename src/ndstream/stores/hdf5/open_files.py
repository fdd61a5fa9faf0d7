"""The HDF5 files that one worker holds open, each as the very content that was asked for."""

from __future__ import annotations

import os
import stat
import zlib
from collections import OrderedDict
from pathlib import Path

from h5py import h5d, h5f, h5i, h5p

from ndstream.errors import Busy, Corrupt, DataError, NotFound, Replaced
from ndstream.stores.hdf5.faults import reason_of
from ndstream.stores.hdf5.generation import generation_of, identity_of
from ndstream.stores.hdf5.recovery import LeftBehind, Standing, standing

#: Datasets kept open in each file. The library holds up to 8 MiB of decoded chunks for each.
_DATASETS = 8
#: What the library says of a file whose writer marked it as being written.
_OPEN_FOR_WRITING = "already open for write"


class OpenFile:
    """An HDF5 file, open for reading.

    Attributes
    ----------
    path : str
        Real path that it was opened by.
    id : h5py.h5f.FileID
    descriptor : int
        File descriptor that the library reads from; it belongs to the library.
    number : int
        Tells addresses in this file from those in others: bits above the ones that most addresses need.
    paths : dict of int to str, or None
        Path of every object by its address, once somebody has needed it (`ndstream.stores.hdf5.references`).
    live : bool
        Whether another program writes it in SWMR mode: then it may be read while it grows, by the library alone.
    reaches : bool
        Whether the library opens the sources of its virtual datasets in other files as what they are.
    """

    reaches = True

    __slots__ = ("_datasets", "descriptor", "generation", "id", "live", "number", "path", "paths", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.number = number_of(path)
        self.paths: dict[int, str] | None = None
        self._datasets: OrderedDict[str, tuple[h5d.DatasetID, int]] = OrderedDict()
        try:
            self.id, self.live = _open(os.fsencode(path))
        except FileNotFoundError:
            raise NotFound("the file is not there any more") from None
        except PermissionError:
            raise DataError("the server is not allowed to read the file") from None
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = reason_of(error)
            if _OPEN_FOR_WRITING in reason:
                raise Busy(
                    "another program has the file open for writing, or did not close it: it cannot be read until it is"
                ) from None
            raise Corrupt(f"not a readable HDF5 file: {reason}") from None
        self.descriptor: int = self.id.get_vfd_handle(h5p.create(h5p.FILE_ACCESS))
        status = os.fstat(self.descriptor)
        self.size = status.st_size
        self.generation = generation_of(status)

    def check(self, generation: str) -> None:
        """Make sure that the file holds that content, still.

        Raises
        ------
        Replaced
            It was written to, or another one had been put in its place.
        """
        now = generation_of(os.fstat(self.descriptor))
        if now != generation and not (self.live and identity_of(now) == identity_of(generation)):
            raise Replaced("the file has changed while it was read")

    def keep(self, name: str, dataset: h5d.DatasetID, address: int) -> None:
        """Keep a dataset open under its name, with the chunks of it that the library has decoded."""
        self._datasets[name] = dataset, address
        if len(self._datasets) > _DATASETS:
            self._datasets.popitem(last=False)

    def kept(self, name: str) -> tuple[h5d.DatasetID, int] | None:
        """Dataset that was kept under `name`, and its address."""
        found = self._datasets.get(name)
        if found is not None:
            self._datasets.move_to_end(name)
        return found

    def close(self) -> None:
        """Let go of the file and of every object in it, whoever still refers to one (the trace of an error may).

        With an object open the library would not let go: of a file that was written to in place it would go on giving
        what it remembers.
        """
        self._datasets.clear()
        if self.id.valid:
            for each in h5f.get_obj_ids(self.id, h5f.OBJ_LOCAL | (h5f.OBJ_ALL & ~h5f.OBJ_FILE)):
                while each.valid:
                    h5i.dec_ref(each)
            self.id.close()


def number_of(path: str) -> int:
    """Bits that tell addresses in the file at a real path from those in others (`OpenFile.number`)."""
    return zlib.crc32(os.fsencode(path)) << 31


def _open(path: bytes) -> tuple[h5f.FileID, bool]:
    """Open a file for reading, and as one that is being written in SWMR mode if it can be read in no other way."""
    try:
        return h5f.open(path, h5f.ACC_RDONLY, _access()), False
    except OSError as error:
        try:
            return h5f.open(path, h5f.ACC_RDONLY | h5f.ACC_SWMR_READ, _access()), True
        except (OSError, ValueError, RuntimeError, KeyError):
            raise error from None


def _access() -> h5p.PropFAID:
    access = h5p.create(h5p.FILE_ACCESS)
    # Others may hold the file open for writing; whether it changed is seen by its generation.
    access.set_file_locking(False, True)
    return access


class OpenFiles:
    """The most recently used files, kept open.

    Parameters
    ----------
    most : int
        How many to keep.
    """

    __slots__ = ("_files", "_first", "_held", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._first: OpenFile | None = None
        self._held: OpenFile | None = None
        self._files: OrderedDict[str, OpenFile] = OrderedDict()

    def begin(self) -> None:
        """Begin a request: the file that it opens first stays open to its end, however many are opened on the way."""
        self._first = self._held = None

    def hold(self, file: OpenFile) -> None:
        """Keep `file` open too, in place of the one that was held before."""
        self._held = file

    def open(self, path: str, generation: str | None = None) -> OpenFile:
        """Open the file at a real path, or take it from those that are.

        Parameters
        ----------
        path : str
            Real path of a regular file that the caller has found to be served.
        generation : str, optional
            The content meant; that of now when not given.

        Raises
        ------
        NotFound, DataError, Corrupt
            The file vanished, or cannot be opened.
        Replaced
            The content is not the one meant, or has changed since this request began.
        LeftBehind
            Whoever wrote it died.
        Busy
            Another process writes it, and it cannot be opened at this moment.
        """
        if generation is None:
            generation = _generation_at(path)
        file = self._files.get(path)
        # Written to in place, it is the same file still, but the library remembers what was in it.
        if file is not None and not file.generation == generation == generation_of(os.fstat(file.descriptor)):
            if file in (self._first, self._held):
                if file.live and identity_of(file.generation) == identity_of(generation):
                    return file
                # Objects in use keep it open in the library: opened again, it would be the old content still.
                raise Replaced("the file has changed while it was read")
            self.forget(path)
            file = None
        if file is None:
            file = _opened(path)
            if file.generation != generation and not (
                file.live and identity_of(file.generation) == identity_of(generation)
            ):
                file.close()
                raise Replaced("the file has changed since it was looked up")
            self._files[path] = file
            self._make_room(file)
        self._files.move_to_end(path)
        self._first = self._first or file
        return file

    def _make_room(self, newest: OpenFile) -> None:
        needed = (newest, self._first, self._held)
        for path in [path for path, file in self._files.items() if file not in needed]:
            if len(self._files) <= self._most:
                return
            self.forget(path)

    def forget(self, path: str) -> None:
        """Close the file at `path`, if it is open."""
        file = self._files.pop(path, None)
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close all."""
        for path in list(self._files):
            self.forget(path)


def _opened(path: str) -> OpenFile:
    writer = standing(path)
    if writer is Standing.DEAD:
        raise LeftBehind(path)
    try:
        return OpenFile(path)
    except Corrupt:
        if writer is Standing.ALIVE:
            raise Busy("the file is being written by another process, and cannot be read at this moment") from None
        raise


def _generation_at(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError:
        raise NotFound("no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise NotFound("no such file")
    return generation_of(status)
