"""A served tree with one small file, and commands run in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from ndstream.cli.main import app
from ndstream.testing.fixtures import ServerFactory


@dataclass(frozen=True)
class Tree:
    """Where the served files are, and under which address."""

    url: str
    path: Path

    @property
    def file(self) -> str:
        return f"{self.url}/runs/a.h5"


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    raw: bytes
    error: str

    @property
    def out(self) -> str:
        return self.raw.decode()


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def tree(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    path = tmp_path_factory.mktemp("served")
    (path / "runs").mkdir()
    (path / "README.md").write_text("What is here\n")
    with h5py.File(path / "runs/a.h5", "w") as file:
        group = file.create_group("g")
        group.attrs["title"] = "a group"
        table = group.create_dataset("table", data=np.arange(60.0).reshape(12, 5), chunks=(5, 2), compression="gzip")
        table.attrs["units"] = "m"
        group["big"] = np.arange(20000, dtype=">u4").reshape(100, 200)
        group["cube"] = np.arange(24, dtype="i2").reshape(2, 3, 4)
        group["names"] = np.array(["eins", "zwei"], dtype=object)
        group["pairs"] = np.array([(1, 0.5), (2, 1.5)], dtype=[("n", "i4"), ("x", "f4")])
        vectors = group.create_dataset("vectors", (4,), np.dtype(("i4", (3,))))
        vectors[...] = np.arange(12).reshape(4, 3)
        frames = np.repeat(np.arange(4, dtype="u2"), 64).reshape(4, 8, 8)
        group.create_dataset("frames", data=frames, chunks=(1, 8, 8), **hdf5plugin.Bitshuffle())
        file["scalar"] = 7
        file["nothing"] = h5py.Empty("f4")
        file["soft"] = h5py.SoftLink("/g/table")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("other.h5", "/x")
        file["kind"] = np.dtype("f8")
    return Tree(ndstream_module_server(path).url, path)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capfdbinary.readouterr()
        code = app([str(argument) for argument in arguments], prog_name="ndstream", standalone_mode=False)
        said = capfdbinary.readouterr()
        return Done(code or 0, said.out, said.err.decode())

    return run
