"""What the rows share: a place for files, and servers on it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ndstream.testing.fixtures import LocalServer, local_servers

# Clients of a benchmark all have one address; what is measured is not how they queue.
_LIMITS = {"requests_per_user": 0}


class Site:
    """Files and servers of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file(self, name: str, write: Callable[[Path], None]) -> Path:
        """Path of a file, written when it is first asked for."""
        path = self.directory / name
        if not path.exists():
            write(path)
        return path

    @contextmanager
    def server(self) -> Iterator[LocalServer]:
        """Serve the directory, in a process of its own."""
        with local_servers() as start:
            yield start(self.directory, limits=_LIMITS)


@contextmanager
def temporary_site(parent: Path | None = None) -> Iterator[Site]:
    """Make a site that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ndstream-bench-", dir=parent) as directory:
        yield Site(Path(directory))
