"""Do with the stock hdfstream client what its users do: a program, run by the tests; a pickle goes to the output.

Usage: stock.py URL. The client is only run, as a peer: it is under another licence.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import hdfstream
import numpy as np

INDEX = [7, 3, 3, -1, 0]


def directories(root: Any) -> dict[str, Any]:
    below = root["below"]
    with root["below/notes.txt"].open("r") as text, root["below/notes.txt"].open("rb") as raw:
        contents = text.read(), raw.read()
    return {
        "names": list(root),
        "directories": list(root.directories),
        "files": {name: (file.size, file.media_type, file.last_modified) for name, file in root.files.items()},
        "below": list(below),
        "same": root["below/deep/data.h5"] is root["below"]["deep"]["data.h5"],
        "text": contents,
        "is_hdf5": [root.is_hdf5("below/deep/data.h5"), root.is_hdf5("below/notes.txt")],
        "missing": "nothing" in root,
    }


def slices(file: Any) -> dict[str, Any]:
    data = file["data"]
    mask = np.zeros(data.shape[0], bool)
    mask[2:5] = True
    direct = np.zeros((10, 3), data.dtype)
    data.read_direct(direct[2:5], np.s_[4:7, :], None)
    visited: list[str] = []
    file.visit(visited.append)
    return {
        "whole": data[...],
        "row": data[3],
        "element": data[3, 1],
        "part": data[2:9, 1:],
        "index": data[INDEX, :],
        "mask": data[mask],
        "many": data.request_slices([np.s_[0:2], np.s_[5:6], np.s_[50:60]]),
        "direct": direct,
        "chunked": file["group/chunked"][1:4],
        "soft": file["soft"][0],
        "visited": visited,
    }


def main() -> None:
    hdfstream.disable_progress(True)
    root = hdfstream.open(sys.argv[1], "/", data_size_limit=0)
    found = {"directories": directories(root), "slices": slices(root["below/deep/data.h5"])}
    sys.stdout.buffer.write(pickle.dumps(found))


if __name__ == "__main__":
    main()
