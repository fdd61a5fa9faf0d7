"""Start rows: how long it takes until something happens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.rounds import medians, timed
from benchmarks.served import Site
from benchmarks.table import Row, at_most

ROUNDS = 5


def start(site: Site) -> Iterator[Row]:
    """Ask for help, import, and serve."""
    nothing = timed(lambda: _python("-c", ""))
    turns = {
        "help": timed(lambda: _python("-m", "ndstream", "--help")),
        "import": timed(lambda: _python("-c", "import ndstream")),
        "python": nothing,
    }
    seconds = medians(turns, ROUNDS)
    yield Row("start: ndstream --help", seconds["help"], "s", seconds["python"], at_most(0.2))
    yield Row(
        "start: import ndstream, over Python alone", seconds["import"] - seconds["python"], "s", None, at_most(0.1)
    )

    def served() -> float:
        begin = time.perf_counter()
        with site.server():
            return time.perf_counter() - begin

    seconds = medians({"ready": served}, ROUNDS)
    yield Row("start: server ready", seconds["ready"], "s", None, at_most(1.0))


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
