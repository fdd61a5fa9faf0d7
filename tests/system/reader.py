"""Read rows of datasets in many threads at once, each checked: a program, run by the tests.

Usage: reader.py URL FIRST COUNT; a thread for each row. Prints how many rows were right.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

import ndstream


def main() -> None:
    url, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    barrier = Barrier(count)

    def read(row: int) -> bool:
        barrier.wait()
        file = ndstream.open(url, "data.h5", data_size_limit=0)
        wanted = np.arange(row * 50_000, (row + 1) * 50_000, dtype="<i4")
        return file["text"].asstr()[row] == f"row {row}" and all(
            np.array_equal(file[name][row], wanted) and np.array_equal(file[name][row, ::-100], wanted[::-100])
            for name in ("contiguous", "chunked", "by the library")
        )

    with ThreadPoolExecutor(count) as threads:
        right = sum(threads.map(read, range(first, first + count)))
    sys.stdout.write(f"{right}\n")


if __name__ == "__main__":
    main()
