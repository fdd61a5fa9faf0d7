"""C functions of the filter libraries that the package hdf5plugin ships, called without the HDF5 library.

The package itself is not imported: that would load h5py into the process that serves.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path


@cache
def library(name: str) -> ctypes.CDLL | None:
    """Load a filter library of hdf5plugin.

    Parameters
    ----------
    name : str
        Without prefix and suffix: ``"h5bshuf"``.

    Returns
    -------
    CDLL or None
        None when the package is not installed or does not have it. Calls through it release the GIL.
    """
    spec = importlib.util.find_spec("hdf5plugin")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "plugins", f"lib{name}.so")
        if path.is_file():
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # built for another machine: as good as absent
                return None
    return None
