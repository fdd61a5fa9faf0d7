"""Protocols, stores and codecs by name, loaded when first asked for.

What is installed says so with entry points in the groups below; the built-in ones use the same way as outsiders, so
adding one edits no module here. An entry point that needs an extra of its distribution names it in brackets::

    [project.entry-points."ndstream.stores"]
    hdf5 = "ndstream.stores.hdf5.store:STORE [server]"

Finding names loads nothing; only `load` imports, and only the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ndstream.errors import InvalidRequest, MissingExtra

PROTOCOLS = "ndstream.protocols"
STORES = "ndstream.stores"
CODECS = "ndstream.codecs"
STREAMS = "ndstream.streams"

_registered: dict[tuple[str, str], Any] = {}


def names(group: str) -> tuple[str, ...]:
    """Names known in `group`, sorted; whether their extras are installed shows only when they are loaded."""
    installed = entry_points(group=group).names
    return tuple(sorted(installed | {name for of, name in _registered if of == group}))


def load(group: str, name: str) -> Any:
    """Load what goes by `name` in `group`.

    Returns
    -------
    object
        What the entry point leads to: a `ndstream.core.ports.ProtocolPlugin`, a
        `ndstream.core.ports.StoreFactory`. What it must be is for the caller to know.

    Raises
    ------
    InvalidRequest
        There is no such name; the message lists the known ones.
    MissingExtra
        It is there, but a module that it needs is not; the message says what to install.
    """
    if (group, name) in _registered:
        return _registered[group, name]
    found = entry_points(group=group, name=name)
    if not found:
        known = ", ".join(names(group)) or "none is installed"
        raise InvalidRequest(f"no {_noun(group)} is called {name!r}; known: {known}")
    entry_point = next(iter(found))
    try:
        return entry_point.load()
    except ModuleNotFoundError as error:
        if _is_own(entry_point, error.name):
            raise
        raise MissingExtra(_sentence(group, entry_point, error.name)) from error


def register(group: str, name: str, target: Any) -> Callable[[], None]:
    """Make `target` known as `name` in this process, before any installed one of that name.

    Returns
    -------
    callable
        Undoes it: called once, what was known by that name before is known again.
    """
    absent = object()
    before = _registered.get((group, name), absent)
    _registered[group, name] = target

    def undo() -> None:
        if before is absent:
            _registered.pop((group, name), None)
        else:
            _registered[group, name] = before

    return undo


def _noun(group: str) -> str:
    """Singular of what is in the group: ``store`` for ``ndstream.stores``."""
    return group.rpartition(".")[2].removesuffix("s")


def _is_own(entry_point: EntryPoint, module: str | None) -> bool:
    """Whether the missing module belongs to the plugin itself: that is a fault of the plugin, no extra mends it."""
    return module is None or module.partition(".")[0] == entry_point.module.partition(".")[0]


def _sentence(group: str, entry_point: EntryPoint, module: str | None) -> str:
    subject = f"the {_noun(group)} {entry_point.name!r}"
    if not entry_point.extras:
        return f"{subject} needs the module {module!r}, which is not installed"
    extras = ",".join(entry_point.extras)
    distribution = entry_point.dist.name if entry_point.dist is not None else entry_point.module.partition(".")[0]
    return f"{subject} needs the {extras!r} extra: pip install '{distribution}[{extras}]'"
