"""What kind of file it is: by its name, and where the name does not settle it, by its first bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import translate

from ndstream.core.limits import MiB
from ndstream.core.model import HDF5_MEDIA_TYPE
from ndstream.stores.hdf5.cache import ByteCache

BYTES = "application/octet-stream"
TEXT = "text/plain;charset=UTF-8"

_BY_SUFFIX = {
    ".h5": HDF5_MEDIA_TYPE,
    ".hdf5": HDF5_MEDIA_TYPE,
    ".md": TEXT,
    ".txt": TEXT,
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
#: Suffixes that HDF5 shares with older formats: only the content tells.
_PERHAPS_HDF5 = frozenset({".hdf", ".he5", ".nc", ".nc4", ".nxs"})
_TEXT_NAMES = frozenset(
    {"AUTHORS", "CHANGELOG", "CHANGES", "CITATION", "COPYING", "LICENCE", "LICENSE", "NEWS", "NOTICE", "README"}
)
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CACHE = 4 * MiB
_CACHE_ENTRY = 256  # bytes of one key with its numbers, roughly


class MediaTypes:
    """Media types of served files.

    Parameters
    ----------
    overrides : mapping of str to str
        Pattern (as in `fnmatch`) to media type, before all other rules, the first that fits. A pattern with a slash
        is compared with the whole virtual path, one without with the name of the file.

    Notes
    -----
    Safe to use from several threads at once. Source: hdfstream SPEC.md, server input.
    """

    __slots__ = ("_overrides", "_signed")

    def __init__(self, overrides: Mapping[str, str] | None = None) -> None:
        self._overrides = [
            ("/" in pattern, re.compile(translate(pattern)), media_type)
            for pattern, media_type in (overrides or {}).items()
        ]
        self._signed: ByteCache[tuple[int, int, int, int], bool] = ByteCache(_CACHE)

    def of(self, virtual: str, real: str, status: os.stat_result) -> str:
        """Media type of the file at the virtual path; it is opened at `real` only when its name is ambiguous."""
        name = virtual.rpartition("/")[2]
        for whole, pattern, media_type in self._overrides:
            if pattern.match(virtual if whole else name):
                return media_type
        suffix = name[name.rfind(".") :].lower() if "." in name else ""
        if suffix in _PERHAPS_HDF5:
            return HDF5_MEDIA_TYPE if self._is_signed(real, status) else BYTES
        if name in _TEXT_NAMES:
            return TEXT
        return _BY_SUFFIX.get(suffix, BYTES)

    def _is_signed(self, real: str, status: os.stat_result) -> bool:
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._signed.get(key)
        if known is None:
            known = _has_signature(real, status.st_size)
            self._signed.put(key, known, _CACHE_ENTRY)
        return known


def _has_signature(real: str, size: int) -> bool:
    """Whether the file begins as HDF5 does: with the signature at 0, or after a user block of 512, 1024, … bytes."""
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        offset = 0
        while offset + len(_SIGNATURE) <= size:
            if os.pread(descriptor, len(_SIGNATURE), offset) == _SIGNATURE:
                return True
            offset = offset * 2 or 512
        return False
    except OSError:
        return False
    finally:
        os.close(descriptor)
