"""``import ndstream`` is light: proved in processes of their own."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("h5py", "zmq", "xarray", "urllib3", "numpy", "rich", "typer", "starlette", "uvicorn", "aiohttp", "keyring")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = run(f"import sys, ndstream; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_importing_the_package_takes_no_time() -> None:
    program = "import time; start = time.perf_counter(); import ndstream; print(time.perf_counter() - start)"
    assert min(float(run(program)) for _ in range(3)) < 0.1


def test_remote_files_need_neither_h5py_nor_a_server() -> None:
    loaded = run(
        "import sys, ndstream; ndstream.RemoteFile, ndstream.open; "
        "print([name for name in ('h5py', 'starlette', 'uvicorn', 'rich', 'typer') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"
