"""Folders of messages: what is written is read, whoever wrote it, and whatever lies beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndstream.core.limits import Limits
from ndstream.errors import Corrupt, Exists, InvalidRequest, NotFound, TooLarge
from ndstream.streams.folder import MANIFEST, Folder, FolderWriter, Stored, name_of

MESSAGES = [[b'{"htype": "raw-1.0"}', b"", b"\x00\xff"], [b"no json"], [b"{}", b"x" * 1000]]


def write(path: Path, messages: list[list[bytes]], *, keep: int | None = None) -> None:
    with FolderWriter(path, keep=keep) as folder:
        for number, frames in enumerate(messages):
            folder.write(frames, 1000 + number)


def write_as_mflow(path: Path, messages: dict[int, list[bytes]]) -> None:
    path.mkdir(exist_ok=True)
    for number, frames in messages.items():
        for part, frame in enumerate(frames):
            (path / f"{number:06d}_{part:03d}.raw").write_bytes(frame)


def read(path: Path) -> list[list[bytes]]:
    folder = Folder(path)
    return [folder.read(stored) for stored in folder]


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=4), max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, messages: list[list[bytes]]) -> None:
    path = tmp_path_factory.mktemp("dump")
    write(path, messages)
    assert read(path) == messages
    (path / MANIFEST).unlink()
    assert read(path) == messages


def test_the_manifest_tells_when_messages_came(tmp_path: Path) -> None:
    write(tmp_path / "a", MESSAGES, keep=1)
    assert list(Folder(tmp_path / "a")) == [Stored(0, 1000, 1, 3), Stored(1, 1001, 1, 1), Stored(2, 1002, 1, 2)]
    assert read(tmp_path / "a") == [frames[:1] for frames in MESSAGES]


def test_a_folder_of_mflow_is_read_in_the_order_of_numbers(tmp_path: Path) -> None:
    """Acceptance 21: beyond 999,999 too, where the order of names is another."""
    numbers = [999_998, 999_999, 1_000_000, 2_000_000, 0, 10]
    write_as_mflow(tmp_path, {number: [b"%d" % number, b""] for number in numbers})
    os.utime(tmp_path / name_of(10, 0), ns=(5, 7))
    assert [frames[0] for frames in read(tmp_path)] == [b"%d" % number for number in sorted(numbers)]
    assert {stored.number: stored.time for stored in Folder(tmp_path)}[10] == 7


def test_stray_files_are_left_alone(tmp_path: Path) -> None:
    """Acceptance 21; in the original `999999_notes.txt` left the last message open."""
    write_as_mflow(tmp_path, dict(enumerate(MESSAGES)))
    for name in ("999999_notes.txt", "notes.raw", "1_000.raw", "0000001_000.raw", "000001_000.raw~", "000001_0x0.raw"):
        (tmp_path / name).write_text("stray")
    assert read(tmp_path) == MESSAGES


def test_a_message_with_a_hole_is_not_sent_as_another(tmp_path: Path) -> None:
    write_as_mflow(tmp_path / "theirs", dict(enumerate(MESSAGES)))
    write(tmp_path / "ours", MESSAGES)
    for path in (tmp_path / "theirs", tmp_path / "ours"):
        (path / name_of(0, 1)).unlink()
        with pytest.raises(Corrupt, match=r"000000_001\.raw is missing"):
            read(path)


def test_a_message_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, MESSAGES)
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-1])
    assert read(tmp_path) == MESSAGES[:-1]


@pytest.mark.parametrize("line", ["{}", "[1, 2, 3]", "[0, 0, -1, 0]", '["a", 0, 1, 1]', "nonsense"])
def test_a_manifest_without_sense_is_told(tmp_path: Path, line: str) -> None:
    write(tmp_path, MESSAGES)
    with (tmp_path / MANIFEST).open("a") as manifest:
        manifest.write(f"{line}\n")
    with pytest.raises(Corrupt, match="line 5"):
        read(tmp_path)


def test_a_manifest_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"format": "ndstream-dump", "version": 2}) + "\n")
    with pytest.raises(Corrupt, match="line 1"):
        read(tmp_path)


def test_messages_are_replaced_on_request_only_and_nothing_else_is(tmp_path: Path) -> None:
    write(tmp_path, MESSAGES)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Exists):
        FolderWriter(tmp_path)
    FolderWriter(tmp_path, replace=True).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, "notes.txt"]
    assert read(tmp_path) == []


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest):
        FolderWriter(tmp_path / "file")
    for name in ("file", "nowhere"):
        with pytest.raises(NotFound):
            Folder(tmp_path / name)


def test_sizes_are_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    write(tmp_path, MESSAGES)
    for limits in (Limits(message_part=999), Limits(message_parts=2)):
        folder = Folder(tmp_path, limits)
        with pytest.raises(TooLarge):
            [folder.read(stored) for stored in folder]
    os.truncate(tmp_path / name_of(1, 0), 1 << 40)
    with pytest.raises(TooLarge):
        read(tmp_path)
    (tmp_path / name_of(1, 0)).unlink()
    os.mkfifo(tmp_path / name_of(1, 0))
    with pytest.raises(Corrupt, match="no file"):
        read(tmp_path)
