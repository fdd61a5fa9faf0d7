"""Which real paths are served, and which virtual directories they lie in.

The catalog asks this about paths of requests, the workers about paths that they meet inside files: both by the real
path, in which no symbolic link is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping


class Roots:
    """Served directories and files, by virtual name.

    Parameters
    ----------
    paths : mapping of str to str
        Virtual name ("" is the root of the tree) to the real, absolute path of a directory or file.
    """

    __slots__ = ("paths",)

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.paths: dict[str, str] = dict(paths)

    def places(self, virtual: Iterable[str]) -> tuple[str, ...]:
        """Real paths that virtual directories stand for now, symbolic links followed.

        One directory may stand for several when roots overlap, and one that is not there for where it would be.
        """
        return tuple({os.path.realpath(place) for path in virtual for place in self._candidates(path)})

    def admits(self, real: str, hidden: Iterable[str] = ()) -> bool:
        """Whether the file or directory at the real path `real` is served.

        It must lie in one of the roots, with no name below the root that begins with a dot, and not in one of the
        `hidden` places (of `places`): what is hidden stays hidden by whatever route it was reached.
        """
        return any(_visible(real, root) for root in self.paths.values()) and not any(
            _inside(real, place) for place in hidden
        )

    def within(self, real: str, virtual: Iterable[str]) -> bool:
        """Whether the real path lies in one of the virtual directories, wherever links on the way lead."""
        return any(_inside(real, place) for place in self.places(virtual))

    def locate(self, virtual: str) -> str | None:
        """Path on disk of a virtual path, links not followed; None when it lies in no root."""
        return next(iter(self._candidates(virtual)), None)

    def _candidates(self, virtual: str) -> list[str]:
        if not virtual:
            return list(self.paths.values())
        name, _, rest = virtual.partition("/")
        found = []
        if name in self.paths:
            found.append(_join(self.paths[name], rest))
        if "" in self.paths:
            found.append(_join(self.paths[""], virtual))
        return found


def _join(root: str, rest: str) -> str:
    return f"{root.rstrip('/')}/{rest}" if rest else root


def _inside(real: str, place: str) -> bool:
    return real == place or real.startswith(place.rstrip("/") + "/")


def _visible(real: str, root: str) -> bool:
    return _inside(real, root) and "/." not in real[len(root.rstrip("/")) :]
