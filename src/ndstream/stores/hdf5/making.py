"""New HDF5 files, which are there whole or not at all: whoever looks meanwhile finds no file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from io import BytesIO
from pathlib import Path

import h5py

from ndstream.errors import Exists, NotFound
from ndstream.stores.hdf5.disk import DiskFile, failure_of


def make_file(path: Path, *, disk: type[DiskFile] = DiskFile) -> None:
    """Make a file with nothing in it but the root group.

    Parameters
    ----------
    path : Path
    disk : type of DiskFile
        How files are opened.

    Raises
    ------
    Exists
        Something has that name already; it is left as it is.
    NotFound, StorageFull, StorageFailed
        The directory is not there, or the disk does not let us.
    """
    content = BytesIO()
    with h5py.File(content, "w"):
        pass
    try:
        with contextlib.ExitStack() as stack:
            # Hidden, until it is complete: a link, unlike a new name, never takes the place of another file.
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".ndstream-new", dir=path.parent)
            made = disk(descriptor)
            stack.callback(made.close)
            stack.callback(disk.remove, Path(name))
            os.fchmod(descriptor, 0o666 & ~_umask())
            made.write(0, content.getbuffer())
            made.sync()
            os.link(name, path)
        disk.sync_directory(path.parent)
    except FileExistsError:
        raise Exists(f"there is a file {path.name} already") from None
    except FileNotFoundError:
        raise NotFound(f"{path.parent}: there is no such directory") from None
    except OSError as error:
        raise failure_of(error, path) from error


def _umask() -> int:
    """Permissions that this process takes from new files."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
