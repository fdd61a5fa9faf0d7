"""Every ``python`` and ``console`` block of the README and of docs/ is run, in order, page by page.

A page finds the sample data of the demo in ``data``, served at its root. Where it says ``http://127.0.0.1:8000`` the
server's real address is put, and its real port after ``port=8888``. ``ndstream serve`` in a console block starts a
server of the page's own, in place of the one before. Other blocks (``text``, ``bash``, ``toml``) are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ndstream.cli.walk.data import make_samples
from ndstream.testing.server import LocalServer

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
RPC = "8888"
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts and _BLOCK.search(path.read_text())
}

pytestmark = pytest.mark.keeps_open("the client keeps connections for the next request")


class Page:
    """Runs the blocks of one page in one directory."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._url = ""
        self._rpc = RPC
        self._names: dict[str, Any] = {}

    def python(self, code: str, where: str) -> None:
        exec(compile(self._here(code), where, "exec"), self._names)

    def console(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("$ "):
                self._command(line[2:])

    def serve(self, *arguments: str) -> None:
        self._stack.close()
        free = [
            each if before != "--rpc-port" else "0"
            for before, each in zip(("", *arguments[:-1]), arguments, strict=True)
        ]
        running = LocalServer(*free, "--port", "0", "--log-level", "warning", directory=self._directory)
        self._url = self._stack.enter_context(running).url
        self._rpc = str(running.streams.get("rpc", RPC))

    def _command(self, line: str) -> None:
        words = shlex.split(line)
        if words[:2] == ["ndstream", "serve"]:
            self.serve(*words[2:])
            return
        if words[0] == "curl" and shutil.which("curl") is None:
            return
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {self._here(line)}"],
            cwd=self._directory,
            env=os.environ | {"PATH": path},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout.decode()}{done.stderr.decode()}"

    def _here(self, text: str) -> str:
        return text.replace(ADDRESS, self._url).replace(f"port={RPC}", f"port={self._rpc}")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("samples")
    make_samples(directory)
    return directory


@pytest.fixture
def page(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(samples)
    with ExitStack() as stack:
        yield Page(tmp_path, stack)


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_of_a_page_work(name: str, page: Page) -> None:
    blocks = _BLOCK.findall(PAGES[name].read_text())
    if not any("ndstream serve" in code for kind, code in blocks if kind == "console"):
        page.serve("data")
    for number, (kind, code) in enumerate(blocks, 1):
        if kind == "python":
            page.python(code, f"{name}, block {number}")
        else:
            page.console(code)


def test_the_pages_that_teach_are_run() -> None:
    assert {"README.md", "docs/tutorials/first-steps.md", "docs/how-to/read.md", "docs/how-to/command-line.md"} <= set(
        PAGES
    )
