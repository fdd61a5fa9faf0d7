"""Downloads: the bytes of a file, with ranges and an entity tag, or a directory as a tar of known length.

Source: SPEC.md, "Downloads". Errors are pages for people.
"""

from __future__ import annotations

import asyncio
import html
import os
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import FileResponse, HTMLResponse, Response

from ndstream.core.limits import MiB
from ndstream.core.model import Directory, File
from ndstream.core.ports import ANYBODY, Access, ASGIApp, Message, Opened, Receive, Scope, Send, Service, Store
from ndstream.errors import InvalidRequest, NDStreamError, NotFound, Replaced
from ndstream.protocols.hdfstream.documents import reveal
from ndstream.wire.paths import virtual_path
from ndstream.wire.status import ERROR_HEADER, status_of

_PIECE = 1 * MiB
_RECORD = 20 * tarfile.BLOCKSIZE  # a tar is padded to whole records
_LEVELS = 256  # of directories that go into a tar


class Downloads:
    """Answers below ``/download``."""

    def __init__(self, service: Service) -> None:
        self._store = service.store
        self._limits = service.limits

    async def serve(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; `path` is what follows ``/download``."""
        if scope["method"] not in ("GET", "HEAD"):
            error = InvalidRequest(f"method {scope['method']} is not allowed here")
            await _page(error, 405, {"allow": "GET, HEAD"})(scope, receive, send)
            return
        access: Access = scope.get("ndstream.access", ANYBODY)
        answer: ASGIApp
        try:
            vpath = virtual_path(path, self._limits)
            if not vpath:
                raise InvalidRequest("a download needs the path of a file or a directory")
            answer = await self._prepare(vpath, access)
        except NDStreamError as error:
            answer = _page(error, 400 if error.code == "too-large" else status_of(error.code))
        await answer(scope, receive, send)

    async def _prepare(self, path: str, access: Access) -> ASGIApp:
        try:
            return await self._find(path, access)
        except NotFound:
            if reveal(path) == path:
                raise
        return await self._find(reveal(path), access)

    async def _find(self, path: str, access: Access) -> ASGIApp:
        try:
            opened = await self._store.open(path, access)
        except NotFound:
            entry = await self._store.lookup(path, access, depth=_LEVELS)
            if not isinstance(entry, Directory):
                raise
            return await asyncio.to_thread(TarResponse, self._store, entry, access)
        return OpenFileResponse(opened)


def _page(error: NDStreamError, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Make the page that says what went wrong."""
    title = f"{status} {HTTPStatus(status).phrase}"
    text = f"<!doctype html><title>{title}</title><h1>{title}</h1><p>{html.escape(str(error))}</p>\n"
    return HTMLResponse(text, status, {ERROR_HEADER: error.code, **(headers or {})})


class OpenFileResponse(FileResponse):
    """Sends the file behind a descriptor, and closes this.

    The file was checked when it was opened. It is read by way of the descriptor and never found by its path again,
    so that nobody can put another one in its place.
    """

    chunk_size = _PIECE

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        file, descriptor = opened.file, opened.descriptor
        super().__init__(
            f"/proc/self/fd/{descriptor}",
            media_type=file.media_type,
            filename=file.path.rpartition("/")[2],
            stat_result=os.fstat(descriptor),
            headers={"etag": f'"{file.generation}"'},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, the ranges that are asked for, or that the client has it already.

        Raises
        ------
        Replaced
            The file changed while it was sent.
        """

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.body":
                await self._opened.check()
            await send(message)

        try:
            if _has_it(Headers(scope=scope).get("if-none-match"), self.headers["etag"]):
                await Response(status_code=304, headers={"etag": self.headers["etag"]})(scope, receive, send)
            else:
                await super().__call__(scope, receive, send if scope["method"] == "HEAD" else watched)
        finally:
            os.close(self._opened.descriptor)


def _has_it(if_none_match: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags


class TarResponse:
    """Sends a directory as a pax archive; its length is that of the files as they are now.

    Members have their full virtual path and modification time; there are no entries for directories. A file that
    changes before it is sent ends the connection.
    """

    def __init__(self, store: Store, directory: Directory, access: Access) -> None:
        self._store = store
        self._access = access
        self._name = quote(directory.path.replace("/", "_"), safe="") + ".tar"
        self._files = list(_files(directory))
        content = sum(len(_header(file)) + file.size + _padding(file.size, tarfile.BLOCKSIZE) for file in self._files)
        self._content = content
        self._end = 2 * tarfile.BLOCKSIZE + _padding(content + 2 * tarfile.BLOCKSIZE, _RECORD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or for HEAD only say what it would be."""
        headers = {
            "content-type": "application/x-tar",
            "content-length": str(self._content + self._end),
            "content-disposition": f'attachment; filename="{self._name}"',
            "accept-ranges": "none",
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        if scope["method"] != "HEAD":
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _pieces(self) -> AsyncGenerator[bytes]:
        for listed in self._files:
            opened = await self._store.open(listed.path, self._access)
            try:
                if opened.file.generation != listed.generation:
                    raise Replaced(f"{listed.path} changed while its directory was downloaded")
                yield _header(listed)
                async for piece in _content(opened):
                    yield piece
            finally:
                os.close(opened.descriptor)
            yield bytes(_padding(listed.size, tarfile.BLOCKSIZE))
        yield bytes(self._end)


def _files(directory: Directory) -> Iterator[File]:
    yield from directory.files.values()
    for below in directory.directories.values():
        if below is not None:
            yield from _files(below)


def _header(file: File) -> bytes:
    """Header blocks of a member, with pax records for what the old form cannot hold."""
    member = tarfile.TarInfo(file.path)
    member.size = file.size
    member.mtime = file.modified // 1_000_000_000
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int, block: int) -> int:
    return -size % block


async def _content(opened: Opened) -> AsyncIterator[bytes]:
    file = opened.file
    at = 0
    while at < file.size:
        piece = await asyncio.to_thread(os.pread, opened.descriptor, min(_PIECE, file.size - at), at)
        if not piece:
            raise Replaced(f"{file.path} became shorter while it was downloaded")
        await opened.check()
        at += len(piece)
        yield piece
