"""HDF5 files with nothing in them."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import h5py

from ndstream.errors import ConfigError


def make_blank(path: Path) -> None:
    """Make an empty HDF5 file, unless something is there already.

    Raises
    ------
    ConfigError
        The directory is not there, or the file cannot be made.
    """
    image = BytesIO()
    with h5py.File(image, "w", libver=("v110", "latest")):
        pass  # the root group is there from the start
    try:
        with path.open("xb") as file:
            file.write(image.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror or error}") from error
