"""Have the stock hdfstream client browse a server, select from a dataset, and be refused: a program, run by the tests.

Usage: stock_directories.py URL DIRECTORY DATASET_FILE DATASET; a pickle goes to the standard output.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import hdfstream
import numpy as np


def walk(directory: Any, path: str, seen: dict[str, Any]) -> None:
    seen[path] = {"size": directory.size, "entries": sorted(directory)}
    for name in directory:
        entry = directory[name]
        if isinstance(entry, hdfstream.RemoteDirectory):
            walk(entry, f"{path}/{name}", seen)
        else:
            seen[f"{path}/{name}"] = {
                "media_type": entry.media_type,
                "size": entry.size,
                "last_modified": entry.last_modified,
                "hdf5": entry.is_hdf5(),
            }


def selections(dataset: Any) -> dict[str, Any]:
    mask = np.zeros(dataset.shape[0], bool)
    mask[[2, 5]] = True
    direct = np.zeros((2, *dataset.shape[1:]), dataset.dtype)
    dataset.read_direct(direct, np.s_[3:5])
    return {
        "list": dataset[[5, 0, 5, -1]],
        "mask": dataset[mask],
        "ellipsis": dataset[..., 1],
        "several": dataset.request_slices([np.s_[0:2], np.s_[4:6]]),
        "direct": direct,
    }


def refusal(function: Any) -> str:
    try:
        function()
    except Exception as error:  # noqa: BLE001 - the test looks at what it was
        return f"{type(error).__name__}: {error}"
    return "none"


def main() -> None:
    url, directory, file, dataset = sys.argv[1:]
    hdfstream.disable_progress(True)
    root = hdfstream.open(url, "/")
    seen: dict[str, Any] = {}
    walk(root[directory], directory, seen)
    result = {
        "tree": seen,
        "text": root[f"{directory}/README"].open("r").read(),
        "selections": selections(root[file][dataset]),
        "missing": refusal(lambda: root[f"{directory}/nothing"]),
        "wrong password": refusal(lambda: hdfstream.open(url, "/", user="nobody", password="wrong")),
    }
    sys.stdout.buffer.write(pickle.dumps(result))


main()
