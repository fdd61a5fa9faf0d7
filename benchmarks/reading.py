"""Tasks that read: through ndstream, through h5py, from a bare socket."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ceilings import ASKED


@dataclass
class RemoteRead:
    """Read a dataset, or rows of it, into an array that is warm."""

    url: str
    file: str
    name: str
    check: Path
    rows: tuple[int, int] | None = None
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Open, read once, and compare with the file."""
        import ndstream

        ndstream.disable_progress(True)
        dataset = ndstream.open(self.url, self.file)[self.name]
        wanted = local_rows(self.check, self.name, self.rows)
        out = np.ones_like(wanted)
        self._state = {"dataset": dataset, "out": out}
        self.run()
        if not np.array_equal(out, wanted, equal_nan=True):
            raise ValueError(f"{self.name} came with other values")

    def run(self) -> None:
        """Read."""
        selection = None if self.rows is None else np.s_[self.rows[0] : self.rows[1]]
        self._state["dataset"].read_direct(self._state["out"], selection)


@dataclass
class LocalRead:
    """Read a dataset with h5py into an array that is warm."""

    path: Path
    name: str
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Open, and read once."""
        import h5py
        import hdf5plugin

        assert hdf5plugin.version  # the filters are there
        dataset = h5py.File(self.path)[self.name]
        self._state = {"dataset": dataset, "out": np.ones(dataset.shape, dataset.dtype)}
        self.run()

    def run(self) -> None:
        """Read; nothing that the library decoded before is there any more."""
        self._state["dataset"].read_direct(self._state["out"])


@dataclass
class RawRead:
    """Receive bytes from a bare socket into an array that is warm."""

    port: int
    nbytes: int
    _state: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        """Connect, and receive once."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        self._state = {"connection": connection, "out": memoryview(bytearray(b"\1" * self.nbytes))}
        self.run()

    def run(self) -> None:
        """Ask and receive."""
        connection, out = self._state["connection"], self._state["out"]
        connection.sendall(self.nbytes.to_bytes(ASKED, "big"))
        done = 0
        while done < self.nbytes:
            done += connection.recv_into(out[done:])


def local_rows(path: Path, name: str, rows: tuple[int, int] | None) -> NDArray[Any]:
    """Rows of a dataset as h5py reads them."""
    import h5py
    import hdf5plugin

    assert hdf5plugin.version
    with h5py.File(path) as file:
        found: NDArray[Any] = file[name][...] if rows is None else file[name][rows[0] : rows[1]]
        return found
