"""Run the stock hdfstream client over a whole file, and write down all it saw: a program, run by the tests.

Usage: stock_client.py URL PATH; a pickle goes to the standard output.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import hdfstream
import numpy as np


def walk(group: Any, name: str, seen: dict[str, Any], depth: int) -> None:
    seen[name] = {"kind": "group", "attributes": dict(group.attrs), "members": list(group.keys())}
    for key in group:
        path = f"{name.rstrip('/')}/{key}"
        try:
            link = group.get(key, getlink=True)
            if isinstance(link, hdfstream.SoftLink):
                seen[path] = {"kind": "soft", "target": link.path}
                continue
            child = group[key]
            if isinstance(child, hdfstream.RemoteDataset):
                seen[path] = dataset(child)
            elif depth:
                walk(child, path, seen, depth - 1)
        # What goes wrong here is a result like any other: the test compares it.
        except Exception as error:  # noqa: BLE001
            seen[path] = {"kind": "error", "error": f"{type(error).__name__}: {error}"}


def dataset(remote: Any) -> dict[str, Any]:
    seen = {
        "kind": "dataset",
        "attributes": dict(remote.attrs),
        "shape": remote.shape,
        "dtype": remote.dtype.str if remote.dtype.names is None else repr(remote.dtype),
    }
    try:
        seen["value"] = np.asarray(remote[...] if remote.shape else remote[()])
        if len(remote.shape) and remote.shape[0] > 2:
            seen["part"] = np.asarray(remote[1:3])
    except Exception as error:  # noqa: BLE001 - as above
        seen["error"] = f"{type(error).__name__}: {error}"
    return seen


def main() -> None:
    url, path, limit, depth = sys.argv[1:]
    hdfstream.disable_progress(True)
    file = hdfstream.open(url, path, data_size_limit=int(limit), max_depth=int(depth))
    seen: dict[str, Any] = {}
    walk(file["/"], "/", seen, 3)
    sys.stdout.buffer.write(pickle.dumps(seen))


main()
