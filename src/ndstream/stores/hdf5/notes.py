"""What people wrote about a directory, in files inside it: its description, and labels of its children."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ndstream.core.limits import KiB, MiB
from ndstream.stores.hdf5.cache import ByteCache
from ndstream.stores.hdf5.generation import generation_of

logger = logging.getLogger(__name__)

DESCRIPTION = "description.md"
LONGEST = 256 * KiB
_CACHE = 4 * MiB


def _markdown(content: bytes) -> str:
    return content.decode()


def _packed(content: bytes) -> dict[str, str]:
    return msgspec.msgpack.decode(content, type=dict[str, str])


def _toml(content: bytes) -> dict[str, str]:
    return msgspec.convert(tomllib.loads(content.decode()), dict[str, str])


#: File name to reader; of the ways to write labels the first that is there counts.
_LABELS: dict[str, Callable[[bytes], dict[str, str]]] = {"labels.msgpack": _packed, "labels.toml": _toml}

#: Names of the files that `Notes.of` looks at.
NOTES = frozenset({DESCRIPTION, *_LABELS})


class Notes:
    """Descriptions and labels of directories, kept until their files change.

    A note that is longer than `LONGEST` bytes or malformed is logged and left out: it never costs the listing.
    Safe to use from several threads at once. Source: hdfstream SPEC.md, viewer.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: ByteCache[tuple[str, str], Any] = ByteCache(_CACHE)

    def of(self, files: Mapping[str, tuple[str, os.stat_result]]) -> tuple[str | None, dict[str, str] | None]:
        """Description and labels of a directory, from those of its files named in `NOTES` (real path and status)."""
        description = self._read(files[DESCRIPTION], _markdown) if DESCRIPTION in files else None
        for name, reader in _LABELS.items():
            if name in files:
                return description, self._read(files[name], reader)
        return description, None

    def _read(self, file: tuple[str, os.stat_result], reader: Callable[[bytes], Any]) -> Any:
        real, status = file
        key = (real, generation_of(status))
        known = self._kept.get(key)
        if known is not None:
            return known[0]
        note = None
        try:
            note = reader(_content(real))
        except (OSError, ValueError) as error:  # ValueError: UTF-8, TOML, msgpack and the length
            logger.warning("note %s is left out: %s", real, error)
        self._kept.put(key, (note,), len(real) + status.st_size)
        return note


def _content(real: str) -> bytes:
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"longer than {LONGEST} bytes")
    return content
