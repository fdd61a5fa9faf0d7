"""What the tests of the client share: scripted servers, documents, and connections that are closed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import msgpack
import numpy as np
import pytest
from numpy.typing import NDArray

import ndstream
from ndstream.client import connections
from ndstream.client.settings import Config
from ndstream.testing.fixtures import LocalServer, ServerFactory
from ndstream.testing.scripted import Answer, Asked, ScriptedServer
from ndstream.transports import http

Documents = Mapping[tuple[str, str | None], Any]


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of the user who runs the tests, short pauses, and no connection left open."""
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.001)
    ndstream.set_config(Config())
    yield
    connections.forget()
    ndstream.set_config(None)


def array(value: Any) -> dict[str, Any]:
    """An array as section 3.7 of the specification has it."""
    values: NDArray[Any] = np.asarray(value)
    body = values.tobytes()
    return {
        "nd": True,
        "type": values.dtype.newbyteorder("<").str.replace("|i", "<i").replace("|u", "<u").replace("|S", "S"),
        "kind": "",
        "shape": list(values.shape),
        "nbytes": len(body),
        "data": [body] if body else [],
    }


def strings(values: list[str], shape: list[int]) -> dict[str, Any]:
    """Strings of variable length, section 3.9."""
    return {"vlen": True, "shape": shape, "data": values}


def dataset(value: Any, attributes: Mapping[str, Any] | None = None, *, with_data: bool = True) -> dict[str, Any]:
    """A dataset as an original server describes it, section 3.4."""
    made = array(value)
    document = {
        "hdf5_object": "dataset",
        "attributes": dict(attributes or {}),
        "type": made["type"],
        "kind": "",
        "shape": made["shape"],
    }
    return document | {"data": made} if with_data else document


def group(members: Mapping[str, Any], attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A group, section 3.3."""
    return {"hdf5_object": "group", "attributes": dict(attributes or {}), "members": dict(members)}


def file_entry(size: int = 10, media_type: str = "application/x-hdf5") -> dict[str, Any]:
    """A file, section 3.2."""
    return {"type": media_type, "size": size, "last_modified": 1_700_000_000_123}


def directory(files: Mapping[str, Any], directories: Mapping[str, Any]) -> dict[str, Any]:
    """A directory, section 3.1."""
    return {
        "type": "directory",
        "size": 100,
        "description": None,
        "labels": None,
        "files": dict(files),
        "directories": dict(directories),
    }


class Field(ScriptedServer):
    """A server in the field: documents by path and object name; `slices` answers requests for data.

    `requests` lists what was asked after the first GET: (path, object, whether it was a slice).
    """

    def __init__(self, documents: Documents, slices: Callable[[str, Any], Any] | None = None, **options: Any) -> None:
        super().__init__(self._answer)
        self.documents = dict(documents)
        self.slices = slices
        self.options = options

    @property
    def requests(self) -> list[tuple[str, str | None, bool]]:
        return [_understood(asked)[:3] for asked in self.asked if asked.method == "POST"]

    def _answer(self, asked: Asked) -> Answer:
        if asked.path == "/v1":
            return Answer(b"", 404)  # it has never heard of the native protocol
        path, name, is_slice, parameters = _understood(asked)
        if asked.method == "GET":
            return Answer(msgpack.packb(self.documents.get(("", None), directory({}, {"Data": None}))), **self.options)
        if is_slice and self.slices is not None and name is not None:
            return Answer(msgpack.packb(self.slices(name, parameters["slice"])), **self.options)
        if (path, name) in self.documents:
            return Answer(msgpack.packb(self.documents[path, name]), **self.options)
        return Answer(msgpack.packb({"error": f"Invalid path specified: {path}"}), 404)


def _understood(asked: Asked) -> tuple[str, str | None, bool, dict[str, Any]]:
    prefix = "/hdfstream/msgpack/"
    assert asked.path.startswith(prefix)
    parameters = msgpack.unpackb(asked.body) if asked.body else {}
    return unquote(asked.path[len(prefix) :]), parameters.get("object"), "slice" in parameters, parameters


class StartField(Protocol):
    def __call__(
        self, documents: Documents, slices: Callable[[str, Any], Any] | None = None, **options: Any
    ) -> Field: ...


@pytest.fixture(scope="module")
def server(ndstream_module_server: ServerFactory, path: Path) -> LocalServer:
    """A server of the file or directory that a module makes in its fixture `path`."""
    return ndstream_module_server(path)


@pytest.fixture
def field() -> Iterator[StartField]:
    """Start servers with documents of an original one."""
    with ExitStack() as started:

        def start(documents: Documents, slices: Callable[[str, Any], Any] | None = None, **options: Any) -> Field:
            return started.enter_context(Field(documents, slices, **options))

        yield start
        connections.forget()
