"""Links as values, as ``get(name, getlink=True)`` gives them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SoftLink:
    """Link to another place in the same file; `path` as stored, relative or absolute."""

    path: str


@dataclass(frozen=True, slots=True)
class HardLink:
    """The object itself, under one of its names."""


@dataclass(frozen=True, slots=True)
class ExternalLink:
    """Link to the object `path` of another file, both as stored."""

    filename: str
    path: str
