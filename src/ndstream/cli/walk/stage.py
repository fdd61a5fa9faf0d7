"""The stage of the demo: what is shown is what runs, and what runs is checked."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import typer

from ndstream.errors import Corrupt, NDStreamError

_LINES = 12
_WIDTH = 110


class Stage:
    """Shows calls and commands with their results to whoever watches the demo.

    Parameters
    ----------
    url : str
        Root of the server, ``http://127.0.0.1:port``.
    data : Path
        Directory that it serves.
    scratch : Path
        Directory for what the steps download.
    """

    def __init__(self, url: str, data: Path, scratch: Path) -> None:
        self.url = url
        self.data = data
        self.scratch = scratch
        self._names: dict[str, Any] = {}

    def chapter(self, title: str) -> None:
        """Begin a new part."""
        typer.secho(f"\n== {title}", bold=True)

    def call(self, code: str) -> Any:
        """Show a line of Python, run it, show its value; names that it binds stay for later lines."""
        typer.secho(f">>> {code}", fg="cyan")
        is_value = isinstance(ast.parse(code).body[-1], ast.Expr)
        compiled = compile(code, "<demo>", "eval" if is_value else "exec")
        # A constant of the steps, run so that what is shown is what happened.
        value = eval(compiled, self._names)  # noqa: S307
        if value is not None:
            self._show(repr(value))
        return value

    def refused(self, code: str, error: type[NDStreamError]) -> None:
        """Show a line of Python that fails as it should, and the error.

        Raises
        ------
        Corrupt
            When it does not fail.
        """
        try:
            self.call(code)
        except error as reason:
            self._show(f"{type(reason).__name__}: {reason}")
        else:
            raise Corrupt(f"{code} was to be refused")

    def command(self, program: str, *arguments: str) -> str:
        """Show a command, run it, show what it prints; ``ndstream`` is the one of this installation.

        Raises
        ------
        Corrupt
            When the command fails.
        """
        typer.secho(f"$ {shlex.join((program, *arguments))}", fg="cyan")
        start = [sys.executable, "-m", "ndstream"] if program == "ndstream" else [program]
        done = subprocess.run([*start, *arguments], capture_output=True, text=True, check=False)
        self._show(done.stdout)
        if done.returncode:
            raise Corrupt(f"the command ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def check(self, got: Any, expected: Any) -> None:
        """Make sure that `got` is what h5py reads from the file itself: values, shape and element type.

        Raises
        ------
        Corrupt
            When it is not.
        """
        ours, theirs = np.asarray(got), np.asarray(expected)
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape or not np.array_equal(ours, theirs):
            raise Corrupt(
                f"the server gave {ours.dtype} {ours.shape}, unlike the {theirs.dtype} {theirs.shape} of the file"
            )

    def _show(self, text: str) -> None:
        lines = text.rstrip().splitlines()
        for line in lines[:_LINES]:
            typer.echo(line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…")
        if len(lines) > _LINES:
            typer.echo(f"… {len(lines) - _LINES} more lines")
