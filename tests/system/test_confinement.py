"""Requests as an attacker would send them: nothing outside of the served tree, in whatever spelling."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from ndstream.testing.fixtures import LocalServer, ServerFactory

from .conftest import get

SECRET = b"what nobody may see"


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outside")
    (root / "secret.txt").write_bytes(SECRET)
    with h5py.File(root / "secret.h5", "w") as file:
        file["data"] = SECRET
    return root


@pytest.fixture(scope="module")
def server(outside: Path, ndstream_module_server: ServerFactory) -> LocalServer:
    served = outside / "served"
    (served / "below").mkdir(parents=True)
    (served / "link.txt").symlink_to(outside / "secret.txt")
    (served / "link.h5").symlink_to(outside / "secret.h5")
    (served / "link").symlink_to(outside)
    with h5py.File(served / "leads out.h5", "w") as file:
        file["external"] = h5py.ExternalLink("../secret.h5", "/data")
        file["absolute"] = h5py.ExternalLink(str(outside / "secret.h5"), "/data")
        raw = [(str(outside / "secret.txt"), 0, len(SECRET))]
        file.create_dataset("raw", (len(SECRET),), "u1", external=raw)
        layout = h5py.VirtualLayout((1,), h5py.string_dtype())
        layout[0] = h5py.VirtualSource("../secret.h5", "data", ())[...]
        file.create_virtual_dataset("virtual", layout)
    return ndstream_module_server(served)


PATHS = (
    "../secret",
    "../../secret",
    "below/../../secret",
    "%2e%2e/secret",
    "%2E%2E%2Fsecret",
    "below/%2e%2e/%2e%2e/secret",
    "..%2fsecret",
    "%252e%252e/secret",
    "..%5csecret",
    "....//secret",
    "./../secret",
    "%00/../../secret",
    "{outside}/secret",
    "/{outside}/secret",
    "%2f{outside}/secret",
    "file:{outside}/secret",
    "link/secret",
    "link",
    "%c0%ae%c0%ae/secret",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "form",
    [
        "/hdfstream/msgpack/{}.h5?object=data&slice=",
        "/hdfstream/msgpack/{}.h5?object=/",
        "/hdfstream/download/{}.txt",
        "/hdfstream/download/{}.h5",
    ],
)
def test_no_spelling_of_a_path_leads_out(server: LocalServer, outside: Path, path: str, form: str) -> None:
    status, body = get(server, form.format(path.format(outside=outside)))
    assert status in (400, 404)
    assert SECRET not in body


@pytest.mark.parametrize("name", ["external", "absolute", "raw", "virtual"])
def test_nothing_in_a_file_leads_out(server: LocalServer, name: str) -> None:
    for query in (f"object={name}", f"object={name}&slice=0:1", f"object={name}&slice=", "object=/&max_depth=5"):
        status, body = get(server, f"/hdfstream/msgpack/leads%20out.h5?{query}")
        assert status in (200, 400, 404)
        assert SECRET not in body


def test_listings_and_archives_hold_nothing_from_outside(server: LocalServer) -> None:
    status, listing = get(server, "/hdfstream/msgpack/?max_depth=9")
    assert status == 200
    assert b"secret" not in listing
    status, archive = get(server, "/hdfstream/download/below")
    assert status == 200
    assert SECRET not in archive
