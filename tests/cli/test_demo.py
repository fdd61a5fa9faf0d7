"""The demo, in a process of its own, as users run it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ndstream.cli.walk.stage import Stage
from ndstream.cli.walk.steps import STEPS
from ndstream.errors import Corrupt

# The first steps alone: how the demo ends does not depend on the others.
_SHORT = """
from ndstream.cli import main
from ndstream.cli.walk import steps

del steps.STEPS[1:]
main.run()
"""


# Asked to end where Python cannot pass on what the handler raises.
_DROPPED = """
import signal
from ndstream.cli import main
from ndstream.cli.walk import steps

class Ended:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

steps.STEPS[:] = [("The interrupted step", lambda stage: Ended() and None)]
main.run()
"""


@contextmanager
def _demo(temporary: Path, *arguments: str, program: str | None = None) -> Iterator[subprocess.Popen[str]]:
    start = ["-m", "ndstream"] if program is None else ["-c", program]
    with subprocess.Popen(
        [sys.executable, "-u", *start, "demo", *arguments],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "HOME": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_walk_goes_through_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with _demo(tmp_path, "--once") as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert [title for title, _ in STEPS if f"== {title}\n" not in said] == []
    assert list(tmp_path.iterdir()) == []


def test_the_server_runs_until_it_is_told_to_end(tmp_path: Path) -> None:
    with _demo(tmp_path, program=_SHORT) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "still running" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, said
    assert list(tmp_path.iterdir()) == []


def test_the_walk_can_be_left_at_any_time(tmp_path: Path) -> None:
    with _demo(tmp_path) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith(">>> "))
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        # A shell says 130 in both cases: Python ends itself by the signal when it came while a text was evaluated.
        assert process.wait() in (130, -signal.SIGINT), said
    assert list(tmp_path.iterdir()) == []


def test_being_asked_to_end_is_not_forgotten(tmp_path: Path) -> None:
    with _demo(tmp_path, program=_DROPPED) as process:
        said, _ = process.communicate()
    assert "Exception ignored" in said
    assert process.returncode in (130, -signal.SIGINT), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values + 1,
        lambda values: values[:-1],
        lambda values: values.astype("f8"),
    ],
)
def test_a_wrong_result_fails_the_demo(spoil: Callable[..., object], tmp_path: Path) -> None:
    values = np.arange(5)
    stage = Stage("http://127.0.0.1:1", tmp_path, tmp_path)
    stage.check(values, values)
    with pytest.raises(Corrupt):
        stage.check(spoil(values), values)


def test_a_failing_command_fails_the_demo(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="ended with 2"):
        Stage("http://127.0.0.1:1", tmp_path, tmp_path).command("ndstream", "bogus")


def test_what_is_shown_is_what_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage("http://127.0.0.1:1", tmp_path, tmp_path)
    stage.call("answer = 6 * 7")
    assert stage.call("answer") == 42
    assert capsys.readouterr().out == ">>> answer = 6 * 7\n>>> answer\n42\n"
