"""Run rows of the table: all, or those that are named."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from benchmarks.served import Site, temporary_site
from benchmarks.table import Row, heading, line

# Group of rows to the function that makes it, `benchmarks.<module>.<function>`.
ROWS = {
    "start": "start.start",
    "bulk": "bulk.bulk",
    "chunked": "chunked.chunked",
    "small": "small.small",
    "rpc": "rpc.rpc",
    "metadata": "metadata.metadata",
    "slices": "slices.multi_slice",
    "inside": "inside.inside",
    "peers": "peers.peers",
    "live": "live.live",
    "bounded": "proofs.bounded",
    "corruption": "proofs.corruption",
    "write": "writing.writing",
    "record": "record.record",
    "kills": "kills.kills",
    "million": "endurance.million",
    "soak": "endurance.soak",
}


def main() -> None:
    """Print the table, row by row as they are measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"groups of rows: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--directory", type=Path, help="where to make the files (default: that for temporary ones)")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; all figures of a row are of this run\n")
    print(heading(), flush=True)
    missed = 0
    with temporary_site(arguments.directory) as site:
        for name in arguments.rows or ROWS:
            for row in _group(name)(site):
                missed += not row.met
                print(line(row.cells()), flush=True)
    print(f"\n{missed} rows miss their budget" if missed else "\nall rows keep to their budgets")


def _group(name: str) -> Callable[[Site], Iterator[Row]]:
    module, _, function = ROWS[name].partition(".")
    found: Callable[[Site], Iterator[Row]] = getattr(import_module(f"benchmarks.{module}"), function)
    return found


if __name__ == "__main__":
    main()
