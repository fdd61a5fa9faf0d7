"""Open local or remote files by the same call."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ndstream.client.directories import RemoteDirectory
from ndstream.errors import MissingExtra


def open_local(path: str | Path, mode: str = "r") -> Any:
    """Open a local HDF5 file with h5py.

    Raises
    ------
    MissingExtra
        h5py is not installed.
    NotFound, Corrupt
    """
    try:
        from ndstream.stores.hdf5 import local
    except ImportError as error:
        raise MissingExtra("local files need h5py: pip install ndstream[server]") from error
    return local.open_local(path, mode)


class LocalOrRemoteFile:
    """Mix-in for classes whose files are local, or in a remote directory once there is one."""

    _remote_directory: RemoteDirectory | None = None

    def set_directory(self, remote_dir: RemoteDirectory | None = None) -> None:
        """Look for files in `remote_dir` from now on; None is this machine."""
        self._remote_directory = remote_dir

    def open_file(self, filename: str) -> AbstractContextManager[Any]:
        """Open an HDF5 file to read, for a ``with`` statement.

        Raises
        ------
        NotFound, Corrupt, NDStreamError
        """
        opened: AbstractContextManager[Any] = self.open_direct(filename)
        return opened

    def open_direct(self, filename: str) -> Any:
        """Open an HDF5 file to read; the caller closes it."""
        if self._remote_directory is None:
            return open_local(filename)
        return self._remote_directory.File(filename)
