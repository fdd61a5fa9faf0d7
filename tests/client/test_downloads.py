"""Whole files: as streams, as local files, as archives."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndstream
from ndstream.errors import ConnectionLost, InvalidRequest, ProtocolError, UnsupportedMediaType
from ndstream.testing.fixtures import ServerFactory
from ndstream.testing.scripted import Answer, Asked
from ndstream.transports import http

from .conftest import StartField, file_entry

CONTENT = np.random.default_rng(3).bytes(50_000)


@pytest.fixture
def archive(ndstream_server: ServerFactory, tmp_path: Path) -> Any:
    folder = tmp_path / "served"
    (folder / "sub").mkdir(parents=True)
    (folder / "raw.bin").write_bytes(CONTENT)
    (folder / "sub" / "notes.txt").write_text("erste Zeile\nzweite: Größe\n", encoding="utf-8")
    return ndstream.open(ndstream_server(folder).url)


def test_a_file_is_read_as_bytes_and_as_text(archive: Any) -> None:
    with archive["raw.bin"].open("rb") as stream:
        assert stream.read(10) == CONTENT[:10]
        assert stream.read() == CONTENT[10:]
    with archive["sub/notes.txt"].open() as stream:
        assert list(stream) == ["erste Zeile\n", "zweite: Größe\n"]
    with pytest.raises(InvalidRequest):
        archive["raw.bin"].open("w")


def test_a_stream_may_be_closed_half_way(archive: Any) -> None:
    with archive["raw.bin"].open("rb") as stream:
        stream.read(1)
    with archive["raw.bin"].open("rb") as stream:
        assert len(stream.read()) == len(CONTENT)


def test_what_is_not_hdf5_has_no_groups(archive: Any) -> None:
    assert not archive.is_hdf5("raw.bin")
    assert not archive.is_hdf5("sub")
    assert not archive.is_hdf5("no")
    with pytest.raises(UnsupportedMediaType):
        archive["raw.bin"]["x"]
    for name in ("raw.bin", "sub", "no"):
        with pytest.raises(OSError, match=name):
            archive.File(name)


def test_a_file_is_downloaded_completely(archive: Any, tmp_path: Path) -> None:
    target = archive["raw.bin"].download(tmp_path)
    assert target == tmp_path / "raw.bin"
    assert target.read_bytes() == CONTENT
    with pytest.raises(InvalidRequest):
        archive["raw.bin"].download(target)
    assert archive["raw.bin"].download(target, overwrite=True) == target


def test_a_directory_is_downloaded_as_an_archive(archive: Any, tmp_path: Path) -> None:
    target = archive["sub"].download(tmp_path / "sub.tar")
    with tarfile.open(target) as tar:
        assert tar.getnames() == ["sub/notes.txt"]
    with pytest.raises(InvalidRequest):
        archive.download(tmp_path / "all.tar")


def downloads(*answers: Answer) -> Any:
    """Answer descriptions as a field server does, downloads in turn."""
    left = iter(answers)

    def script(before: Any) -> Any:
        return lambda asked: next(left) if "/download/" in asked.path else before(asked)

    return script


def test_a_lost_download_goes_on_where_it_was(
    field: StartField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PIECE", 1000)
    monkeypatch.setattr("ndstream.client.downloads.PIECE", 1000)
    server = field({("f", None): file_entry(len(CONTENT))})
    before = server.script
    ranges: list[str | None] = []

    def script(asked: Asked) -> Answer:
        if "/download/" not in asked.path:
            return before(asked)
        wanted = asked.headers.get("range")
        ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"ETag": '"one"'} | ({"Content-Range": f"bytes {start}-49999/50000"} if start else {})
        cut = None if len(ranges) == 3 else 20_000
        return Answer(CONTENT[start:], 206 if start else 200, "application/octet-stream", headers, cut=cut)

    server.script = script
    target = ndstream.open(server.url, "f").download(tmp_path)
    assert target.read_bytes() == CONTENT
    assert ranges == [None, "bytes=20000-", "bytes=40000-"]
    assert [asked.headers.get("if-range") for asked in server.asked][-2:] == ['"one"', '"one"']


def test_a_server_that_cannot_begin_in_the_middle_begins_again(
    field: StartField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PIECE", 1000)
    monkeypatch.setattr("ndstream.client.downloads.PIECE", 1000)
    server = field({("f", None): file_entry(len(CONTENT))})
    server.script = downloads(Answer(CONTENT, cut=20_000), Answer(CONTENT))(server.script)
    assert ndstream.open(server.url, "f").download(tmp_path).read_bytes() == CONTENT


def test_a_download_that_fails_leaves_nothing_behind(field: StartField, tmp_path: Path) -> None:
    server = field({("f", None): file_entry(len(CONTENT))})
    server.script = downloads(*[Answer(CONTENT, cut=2000)] * 9)(server.script)
    with pytest.raises(ConnectionLost):
        ndstream.open(server.url, "f").download(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_refused(field: StartField, tmp_path: Path) -> None:
    server = field({("f", None): file_entry(len(CONTENT))})
    server.script = downloads(Answer(CONTENT[:-1]))(server.script)
    with pytest.raises(ProtocolError, match="49999"):
        ndstream.open(server.url, "f").download(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_is_cut_short_is_an_error(field: StartField) -> None:
    server = field({("f", None): file_entry(len(CONTENT))})
    server.script = downloads(Answer(CONTENT, cut=2000))(server.script)
    with ndstream.open(server.url, "f").open("rb") as stream, pytest.raises(ConnectionLost):
        stream.read()


def test_text_is_read_in_the_character_set_of_the_answer(field: StartField) -> None:
    server = field({("README", None): file_entry(5, "text/plain")})
    server.script = downloads(Answer("Größe".encode("latin-1"), content_type="text/plain; charset=ISO-8859-1"))(
        server.script
    )
    with ndstream.open(server.url, "README").open() as stream:
        assert stream.read() == "Größe"
