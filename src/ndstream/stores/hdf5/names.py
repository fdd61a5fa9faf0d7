r"""Names in HDF5 files, which are bytes, as text.

Nearly all are UTF-8. A byte that is not becomes an escape (``\xe9``), so that every name can travel and be asked for.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\x([89a-f][0-9a-f])")


def text_of(name: bytes) -> str:
    """Spell a name of the file as text."""
    return name.decode("utf-8", "backslashreplace")


def spellings(text: str) -> tuple[bytes, ...]:
    """Names in the file that `text` may stand for, the plain one first."""
    plain = text.encode("utf-8", "surrogateescape")
    if not _ESCAPE.search(text):
        return (plain,)
    parts = _ESCAPE.split(text)
    pieces = [bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts)]
    return (plain, b"".join(pieces))
