"""Temporary files that data waits in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ndstream.core.limits import KiB, MiB
from ndstream.stores.spools import mapped, nameless

NBYTES = 16 * MiB


def test_what_is_mapped_needs_no_page_fault() -> None:
    descriptor = nameless()
    try:
        os.pwrite(descriptor, b"\1" * NBYTES, 64 * KiB)
        before = resident()
        data = mapped(descriptor, NBYTES, 64 * KiB)
    finally:
        os.close(descriptor)
    assert resident() - before >= 0.9 * NBYTES
    assert data == b"\1" * NBYTES
    assert data.readonly


def resident() -> int:
    """Bytes of memory that this process has mapped."""
    found = re.search(r"^Rss: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * KiB
