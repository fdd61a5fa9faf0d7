"""The protocol under the server: what users, roles and limits mean for its clients."""

from __future__ import annotations

import http.client
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ndstream.server.users import remove_user
from ndstream.testing.fixtures import LocalServer, ServerFactory

from .conftest import write_users

ALICE = {"Authorization": "Basic " + b64encode(b"alice:secret").decode()}
MALLORY = {"Authorization": "Basic " + b64encode(b"alice:guessed").decode()}


def prepare(directory: Path) -> dict[str, Any]:
    """Make something to serve and a user; gives the sections of the configuration."""
    for name, text in (("open", "for all"), ("closed/deep", "for staff")):
        (directory / "data" / name).mkdir(parents=True)
        (directory / "data" / name / "note.txt").write_text(text, encoding="utf-8")
    users = write_users(directory / "users", alice=("secret", "staff"))
    return {"access": {"closed": ["staff"]}, "users": {"file": users}, "limits": {"workers": 1}}


@pytest.fixture(scope="module")
def served(ndstream_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> LocalServer:
    directory = tmp_path_factory.mktemp("served")
    sections = prepare(directory)
    return ndstream_module_server(directory / "data", **sections)


def get(server: LocalServer, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_what_is_not_for_everybody_does_not_exist_for_everybody(served: LocalServer) -> None:
    status, body = get(served, "/hdfstream/msgpack/")
    listing = msgspec.msgpack.decode(body)
    assert (status, list(listing["directories"]), listing["size"]) == (200, ["open"], len("for all"))
    hidden = get(served, "/hdfstream/msgpack/closed/deep")
    absent = get(served, "/hdfstream/msgpack/absent/deep")
    assert hidden[0] == absent[0] == 404
    assert hidden[1] == absent[1].replace(b"absent", b"closed")
    assert get(served, "/hdfstream/download/closed/deep/note.txt")[0] == 404


def test_a_user_with_the_role_sees_it(served: LocalServer) -> None:
    listing = msgspec.msgpack.decode(get(served, "/hdfstream/msgpack/", ALICE)[1])
    assert list(listing["directories"]) == ["closed", "open"]
    assert get(served, "/hdfstream/download/closed/deep/note.txt", ALICE) == (200, b"for staff")


def test_wrong_credentials_are_refused_for_public_data_too(served: LocalServer) -> None:
    assert get(served, "/hdfstream/download/open/note.txt", MALLORY)[0] == 401
    assert get(served, "/hdfstream/download/open/note.txt") == (200, b"for all")


def test_users_and_rules_change_without_a_restart(ndstream_server: ServerFactory, tmp_path: Path) -> None:
    sections = prepare(tmp_path)
    server = ndstream_server(tmp_path / "data", **sections)
    assert get(server, "/hdfstream/download/closed/deep/note.txt", ALICE)[0] == 200
    remove_user(tmp_path / "users", "alice")
    assert get(server, "/hdfstream/download/closed/deep/note.txt", ALICE)[0] == 401

    config = server.log.with_name("server.toml")
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"closed" = ["staff"]', '"open" = ["staff"]'), encoding="utf-8")
    status = json.loads(get(server, "/status?reload=1")[1])
    assert status["server"]["notice"] == "configuration read again"
    assert get(server, "/hdfstream/download/closed/deep/note.txt") == (200, b"for staff")
    assert get(server, "/hdfstream/download/open/note.txt")[0] == 404


def test_the_server_is_well_and_counts(served: LocalServer) -> None:
    assert get(served, "/healthz") == (200, b"ok\n")
    get(served, "/hdfstream/msgpack/open")
    metrics = get(served, "/metrics")[1].decode()
    assert re.search(r'^ndstream_http_requests_total{protocol="hdfstream",status="200"} [1-9]', metrics, re.MULTILINE)
