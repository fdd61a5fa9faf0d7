"""The OpenAPI document against a served application: schemathesis makes requests of it, and judges the answers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ndstream.protocols.native.openapi import description
from ndstream.testing.fixtures import LocalServer, ServerFactory

OBJECTS = ["/", "/numbers", "/texts", "/rows", "/group", "/group/more", "/group/none"]
HOUSE = settings(
    max_examples=15,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def write_file(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(12.0).reshape(3, 4)
        file["texts"] = ["one", "zwei"]
        file.create_dataset("rows", (5,), "<i4", maxshape=(None,), chunks=(2,), compression="gzip")
        file["group/more"] = np.zeros(3, [("a", "<i4"), ("b", "S3")])
    return path


def aimed(document: dict[str, Any]) -> dict[str, Any]:
    """Say besides what is there, so that requests reach it."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == "name":
                    parameter["schema"] = {"anyOf": [{"enum": OBJECTS}, {"type": "string"}]}
                if parameter["name"] == "path":
                    there = [] if "events" in path else ["w/f.h5"] if "write" in path else ["r.h5", "w", "w/f.h5"]
                    parameter["schema"] = {"anyOf": [{"enum": [*there, "none.h5"]}, {"type": "string"}]}
    return document


schema = schemathesis.openapi.from_dict(aimed(description()), config=schemathesis.Config.from_dict({"seed": 1}))
OPERATIONS: Any = [schema[path][method] for path, methods in schema.raw_schema["paths"].items() for method in methods]


@schemathesis.serializer("application/x-msgpack", "application/x-ndstream")
def packed(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else msgpack.packb(value, default=str)


@schemathesis.deserializer("application/x-msgpack")
def unpacked(_: Any, response: Any) -> Any:
    """As the document has it: bytes are base64 text."""
    return _as_json(msgpack.unpackb(response.content, strict_map_key=False))


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def server(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> LocalServer:
    served = tmp_path_factory.mktemp("served")
    write_file(served / "r.h5")
    (served / "w").mkdir()
    write_file(served / "w" / "f.h5")
    return ndstream_module_server(served, writable={"/w": []})


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_requests_that_are_right_are_answered_as_described(operation: Any, server: LocalServer) -> None:
    # Text that is no selection, and operations that do not fit to what is there, are refused though they are right.
    refused: Any = [positive_data_acceptance] if "/data/" in operation.path or operation.body else []

    @HOUSE
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=server.url, excluded_checks=refused, timeout=60)

    ask()


@pytest.mark.parametrize(
    "operation", [found for found in OPERATIONS if not found.body], ids=lambda operation: operation.label
)
def test_requests_that_are_wrong_are_refused(operation: Any, server: LocalServer) -> None:
    @HOUSE
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=server.url, timeout=60)

    ask()
