"""Folders of messages: one file for each part, named as mflow names them, and a manifest of what came when.

``000012_001.raw`` holds part 1 of message 12, as it was sent. The manifest is a text file of JSON lines: first an
object that says what it is, then ``[message, time, files, parts]`` for each message that was written whole: its number,
when it came (nanoseconds since 1970), how many of its parts are here, and how many it had. Folders of mflow have none.
"""

from __future__ import annotations

import re
import stat
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self, TypeAlias

import msgspec
import numpy as np

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.packets import Buffer
from ndstream.errors import Corrupt, Exists, InvalidRequest, NotFound, TooLarge

MANIFEST: Final = "manifest.jsonl"

_FORMAT = {"format": "ndstream-dump", "version": 1}
_NAME = re.compile(r"(\d{6,12})_(\d{3,6})\.raw")
_PART_BITS = 20  # six digits fit
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


def name_of(message: int, part: int) -> str:
    """Name of the file of a part."""
    return f"{message:06d}_{part:03d}.raw"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in a folder.

    Attributes
    ----------
    number : int
        From 0.
    time : int, ns since 1970
        When it came; of a folder without manifest, when its first file was written.
    files : int
        Parts that are here: the first ones.
    parts : int
        Parts that it had.
    """

    number: int
    time: int
    files: int
    parts: int


class FolderWriter:
    """Writes messages into a folder, which is made if it is not there.

    Parameters
    ----------
    path : Path
    keep : int, optional
        Write only so many parts of each message: 1 for the headers.
    replace : bool
        Remove the messages that are there, and nothing else.

    Raises
    ------
    Exists
        There are messages in the folder, and they are not to be replaced.
    InvalidRequest
        The path is no folder.

    Notes
    -----
    Whatever ends the program, the manifest lists only messages that were written whole.
    """

    def __init__(self, path: Path, *, keep: int | None = None, replace: bool = False) -> None:
        if path.exists() and not path.is_dir():
            raise InvalidRequest(f"{path} is no folder")
        path.mkdir(parents=True, exist_ok=True)
        present = [entry for entry in path.iterdir() if entry.name == MANIFEST or _parse(entry.name) is not None]
        if present and not replace:
            raise Exists(f"there are messages in {path} already")
        for entry in present:
            entry.unlink()
        self.path = path
        self.messages = self.nbytes = 0
        self._keep = keep
        self._manifest = (path / MANIFEST).open("x", buffering=1, encoding="utf-8")
        self._line({**_FORMAT, "keep": keep})

    def write(self, frames: Sequence[Buffer], time: int) -> None:
        """Write a message.

        Parameters
        ----------
        frames : sequence of buffers
        time : int, ns since 1970
            When it came.

        Raises
        ------
        OSError
            It cannot be written; the manifest does not list it.
        """
        kept = frames[: self._keep]
        for number, part in enumerate(kept):
            (self.path / name_of(self.messages, number)).write_bytes(part)
            self.nbytes += len(part)
        self._line([self.messages, time, len(kept), len(frames)])
        self.messages += 1

    def _line(self, value: object) -> None:
        self._manifest.write(f"{msgspec.json.encode(value).decode()}\n")

    def close(self) -> None:
        """Close the manifest."""
        self._manifest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Folder:
    """Messages of a folder, of ours or of mflow, in the order of their numbers.

    Parameters
    ----------
    path : Path
    limits : Limits
        ``message_part`` and ``message_parts`` hold.

    Raises
    ------
    NotFound
        There is no such folder.

    Notes
    -----
    Only what the manifest lists is a message; without one, all files that are named like parts. Other files are left
    alone. Messages of which nothing was kept are left out.
    """

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        if not path.is_dir():
            raise NotFound(f"{path}: there is no such folder")
        self.path = path
        self._limits = limits

    @property
    def has_manifest(self) -> bool:
        """Whether it is known when the messages came."""
        return (self.path / MANIFEST).is_file()

    def __iter__(self) -> Iterator[Stored]:
        """Yield messages.

        Raises
        ------
        Corrupt
            The manifest makes no sense, or a part is missing between others.
        TooLarge
            A message has more parts than the limit.
        """
        for stored in self._listed() if self.has_manifest else self._found():
            if stored.files > self._limits.message_parts:
                raise TooLarge(
                    f"message {stored.number} has {stored.files} parts; message_parts is {self._limits.message_parts}"
                )
            if stored.files:
                yield stored

    def read(self, stored: Stored) -> list[bytes]:
        """Read the parts of a message.

        Raises
        ------
        Corrupt
            A file is missing, or is no file.
        TooLarge
            A part is longer than the limit.
        """
        return [self._part(self.path / name_of(stored.number, part)) for part in range(stored.files)]

    def _part(self, path: Path) -> bytes:
        try:
            found = path.stat()
        except FileNotFoundError as error:
            raise Corrupt(f"{path} is missing") from error
        if not stat.S_ISREG(found.st_mode):
            raise Corrupt(f"{path} is no file")
        if found.st_size > self._limits.message_part:
            raise TooLarge(f"{path} has {found.st_size} bytes; message_part is {self._limits.message_part}")
        return path.read_bytes()

    def _listed(self) -> Iterator[Stored]:
        path = self.path / MANIFEST
        with path.open("rb") as lines:
            for number, line in enumerate(lines):
                if not line.endswith(b"\n"):
                    return  # whoever wrote it was stopped here, before the message was complete
                try:
                    if number == 0:
                        _check_format(msgspec.json.decode(line, type=dict[str, object]))
                    else:
                        yield Stored(*msgspec.json.decode(line, type=tuple[_Count, _Count, _Count, _Count]))
                except (msgspec.DecodeError, ValueError) as error:
                    raise Corrupt(f"{path}, line {number + 1}: {error}") from error

    def _found(self) -> Iterator[Stored]:
        # In eight bytes each, as there may be millions.
        packed = array("Q")
        for entry in self.path.iterdir():
            if (found := _parse(entry.name)) is not None:
                packed.append(found[0] << _PART_BITS | found[1])
        keys = np.frombuffer(packed, np.uint64)
        keys = np.sort(keys)
        for message, parts in groupby(map(int, keys), key=lambda key: key >> _PART_BITS):
            count = 0
            for key in parts:
                if key & ((1 << _PART_BITS) - 1) != count:
                    raise Corrupt(f"{self.path / name_of(message, count)} is missing")
                count += 1
            yield Stored(message, (self.path / name_of(message, 0)).stat().st_mtime_ns, count, count)


def _check_format(said: dict[str, object]) -> None:
    if {key: said.get(key) for key in _FORMAT} != _FORMAT:
        raise ValueError("this is no manifest that can be read")


def _parse(name: str) -> tuple[int, int] | None:
    """Numbers of message and part that a name has; None if it is no part."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    message, part = int(found[1]), int(found[2])
    return (message, part) if name_of(message, part) == name else None
