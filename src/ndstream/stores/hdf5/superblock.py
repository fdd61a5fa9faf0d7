"""What the first bytes of an HDF5 file say of whoever writes it.

Source: HDF5 File Format Specification 3.0, II.A "Disk Format: Level 0A - Format Signature and Superblock".
"""

from __future__ import annotations

from ndstream.stores.hdf5.disk import DiskFile

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FIRST = 512
#: Version, and "File Consistency Flags" of version 3, behind the signature; of older ones the library does not look.
_VERSION, _FLAGS = 8, 11
_WRITING, _SWMR = 1 << 0, 1 << 2


def says_written(file: DiskFile) -> bool:
    """Whether a file says that a program writes to it, in SWMR mode perhaps, or did when it died.

    A writer in SWMR mode holds no lock. False for a file that is none of HDF5. Raises plain `OSError`.
    """
    head = bytearray(_FLAGS + 1)
    end, offset = file.status().st_size, 0
    while offset < end:
        file.read(offset, memoryview(head))
        if head.startswith(_SIGNATURE):
            return head[_VERSION] >= 3 and bool(head[_FLAGS] & (_WRITING | _SWMR))
        offset = offset * 2 or _FIRST
    return False
