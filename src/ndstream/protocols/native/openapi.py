"""The OpenAPI 3.1 document of the native protocol, made from the messages themselves."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from ndstream.core.operations import Committed, Event
from ndstream.protocols.native.codec import encode_json
from ndstream.protocols.native.messages import (
    BLOCKS,
    CHUNKS,
    EVENTS,
    JSON,
    KEY_HEADER,
    LARGEST,
    MSGPACK,
    NPY,
    PROBLEM,
    RAW,
    Batch,
    Capabilities,
    Described,
    Entry,
    Problem,
    Reads,
    Values,
)

_MESSAGES = (Capabilities, Entry, Described, Reads, Values, Batch, Committed, Event, Problem)
_SOCKET = (
    "Opened as a WebSocket, with the same parameters, each event is one message of text: the schema Event in JSON. "
    "OpenAPI has no place for this; SPEC.md does."
)
_BINARY = {"type": "string", "format": "binary"}
_NUMBER = {"type": "integer", "minimum": 0, "maximum": LARGEST}
_SINCE = {"type": "string", "pattern": r"^([0-9]{1,18}|[A-Za-z0-9_-]{1,200}\.[0-9]{1,20})$"}


@cache
def document() -> bytes:
    """Encode the document, in JSON."""
    return encode_json(description())


def description() -> dict[str, Any]:
    """Describe all endpoints."""
    schemas, components = msgspec.json.schema_components(_MESSAGES, ref_template="#/components/schemas/{name}")
    reference: dict[Any, dict[str, Any]] = dict(zip(_MESSAGES, schemas, strict=True))

    def documents(kind: type[msgspec.Struct]) -> dict[str, Any]:
        return {JSON: {"schema": reference[kind]}, MSGPACK: {"schema": reference[kind]}}

    data = {kind: {"schema": _BINARY} for kind in (BLOCKS, CHUNKS, NPY, RAW)} | documents(Values)
    problems = {"default": {"description": "Why not", "content": {PROBLEM: {"schema": reference[Problem]}}}}

    unchanged = _header("If-None-Match", "Entity tag that the client has: answered with 304 when it still holds")

    def operation(summary: str, content: dict[str, Any], *parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
        answered: dict[str, Any] = {"200": {"description": summary, "content": content}}
        if unchanged in parameters:
            answered["304"] = {"description": "The client has it"}
        return {"summary": summary, "parameters": list(parameters), "responses": answered | problems} | more

    match = _header("If-Match", "Entity tag, or number of a commit, of the state that is expected: else 412")
    path = _path()
    name = _query("name", "Absolute path of the object in the file", {"type": "string", "default": "/"})
    form = _form("ndstream", "chunks", "npy", "raw", "msgpack", "json")
    document = _form("msgpack", "json")
    return {
        "openapi": "3.1.0",
        "info": {"title": "ndstream", "version": version("ndstream"), "license": {"name": "BSD-3-Clause"}},
        "paths": {
            "/v1": {"get": operation("What the server is and can", documents(Capabilities), document)},
            "/v1/tree/{path}": {
                "get": operation(
                    "Describe a directory or file", documents(Entry), path, _count("depth"), document, unchanged
                )
            },
            "/v1/node/{path}": {
                "get": operation(
                    "Describe an object of a file",
                    documents(Described),
                    path,
                    name,
                    _count("depth"),
                    _count("data"),
                    _count("limit"),
                    _query("after", "Member behind which the page begins", {"type": "string"}),
                    document,
                    unchanged,
                )
            },
            "/v1/data/{path}": {
                "get": operation(
                    "Read a selection",
                    data,
                    path,
                    name,
                    _query("select", "As between numpy's brackets: 1:5, ::2, [0,3]", {"type": "string"}),
                    form,
                    unchanged,
                    match,
                ),
                "post": operation(
                    "Read many selections",
                    data,
                    path,
                    form,
                    match,
                    requestBody={"required": True, "content": documents(Reads)},
                ),
            },
            "/v1/write/{path}": {
                "post": operation(
                    "Carry out operations together",
                    documents(Committed),
                    path,
                    document,
                    match,
                    _header(KEY_HEADER, "Name of this batch: sent again, it is not carried out again"),
                    requestBody={"required": True, "content": documents(Batch) | {BLOCKS: {"schema": _BINARY}}},
                )
            },
            "/v1/events/{path}": {
                "get": operation(
                    "Follow the commits of a file",
                    {EVENTS: {"schema": {"type": "string"}}},
                    path,
                    _query("since", "Number of the last commit that is known, or its tag", _SINCE),
                    _header("Last-Event-ID", "As since, and goes before it", _SINCE),
                    description=_SOCKET,
                )
            },
        },
        "components": {"schemas": components, "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
        "security": [{}, {"basic": []}],
    }


def _path() -> dict[str, Any]:
    described = "Virtual path; its slashes are not escaped"
    return {"name": "path", "in": "path", "required": True, "description": described, "schema": {"type": "string"}}


def _query(name: str, described: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": described, "schema": schema}


def _count(name: str) -> dict[str, Any]:
    described = {
        "depth": "Levels below that are described too, as far as the server goes",
        "data": "Bytes up to which data of a dataset comes with its description",
        "limit": "Members of a group in one answer",
    }
    return _query(name, described[name], _NUMBER)


def _form(*names: str) -> dict[str, Any]:
    return _query("format", "In place of Accept", {"type": "string", "enum": list(names)})


def _header(name: str, described: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": described, "schema": schema or {"type": "string"}}
