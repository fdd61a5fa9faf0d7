"""Files that appear under their name when they are complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ndstream.errors import InvalidRequest


@contextmanager
def complete(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary name beside `path`; what is written there gets its name when the block ends well.

    Raises
    ------
    InvalidRequest
        Something of that name is there, and `force` is not given; nothing is written then.
    """
    refuse(path, force=force)
    # In a directory of its own, so that the writer may make, replace and resume files as it likes.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        temporary = Path(directory, path.name)
        yield temporary
        if force:
            temporary.replace(path)
        else:
            _claim(temporary, path)


def refuse(path: Path, *, force: bool) -> None:
    """Raise `InvalidRequest` when `path` is taken and must not be replaced, or can never be a file."""
    if not path.parent.is_dir():
        raise InvalidRequest(f"{path.parent} is no directory")
    if path.is_dir() or (not force and os.path.lexists(path)):
        raise InvalidRequest(f"{path} exists" + ("" if path.is_dir() else "; --force replaces it"))


def _claim(temporary: Path, path: Path) -> None:
    """Give the file its name unless somebody has taken it meanwhile."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        refuse(path, force=False)
    except OSError:
        # A file system without hard links: here the last look and the renaming are two steps.
        refuse(path, force=False)
        temporary.rename(path)
