"""Names for one state of a file on disk."""

from __future__ import annotations

import os


def generation_of(status: os.stat_result) -> str:
    """Name the content that a file had when `status` was taken.

    Two states of a file have different names when the file was replaced (device, inode) or written to (size,
    modification time in nanoseconds). Short, ASCII, fit for an ETag.
    """
    return f"{status.st_dev:x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


def is_at(path: str, generation: str) -> bool:
    """Whether a file is at a real path, in that state; a symbolic link that is there by now is not followed."""
    try:
        return generation_of(os.lstat(path)) == generation
    except OSError:
        return False


def is_unwritten(then: os.stat_result, now: os.stat_result) -> bool:
    """Whether one and the same file was not written to between two looks: the same state, without making its names."""
    return now.st_mtime_ns == then.st_mtime_ns and now.st_size == then.st_size


def identity_of(generation: str) -> str:
    """Take from the name of a state which file it is a state of."""
    return "-".join(generation.split("-")[:2])
