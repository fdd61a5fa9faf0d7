"""Temporary files that data waits in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ndstream.core.limits import KiB, MiB
from ndstream.stores.spools import SpoolFiles, mapped, nameless, place_of

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


def test_a_map_begins_anywhere() -> None:
    descriptor = nameless()
    try:
        os.pwrite(descriptor, bytes(range(200)), 5000)
        assert bytes(mapped(descriptor, 100, 5050)) == bytes(range(50, 150))
    finally:
        os.close(descriptor)


def test_the_place_of_what_is_mapped_is_known() -> None:
    file = SpoolFiles().take()
    file.write(0, bytes(range(100)))
    view = file.mapped(100)[10:][20:40]
    place = place_of(view)
    assert place == (file.descriptor, 30)
    assert os.pread(place[0], view.nbytes, place[1]) == view
    assert place_of(memoryview(bytes(10))) is None


def resident() -> int:
    """Bytes of memory that this process has mapped."""
    found = re.search(r"^Rss: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * KiB
