"""What users call servers and files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.client.address import normalise, parse_address
from ndstream.errors import InvalidRequest


@pytest.mark.parametrize(
    ("url", "name", "base", "path"),
    [
        ("http://host:8000", "/", "http://host:8000/hdfstream", ""),
        ("http://host:8000/", "a/b.h5", "http://host:8000/hdfstream", "a/b.h5"),
        ("http://host/hdfstream", "/", "http://host/hdfstream", ""),
        ("http://host/hdfstream/", "/a//b/", "http://host/hdfstream", "a/b"),
        ("http://host/hdfstream/EAGLE/x.h5", "/", "http://host/hdfstream", "EAGLE/x.h5"),
        ("http://host:1/EAGLE/x.h5", "/", "http://host:1/hdfstream", "EAGLE/x.h5"),
        ("http://host/archive/hdfstream/a", "b", "http://host/archive/hdfstream", "a/b"),
        ("http://host/with%20blank/%C3%BC.h5", "/", "http://host/hdfstream", "with blank/ü.h5"),
        ("http://[::1]:8000", "x", "http://[::1]:8000/hdfstream", "x"),
    ],
)
def test_an_address_is_taken_apart(url: str, name: str, base: str, path: str) -> None:
    found = parse_address(url, name)
    assert (found.base, found.path) == (base, path)


def test_the_native_protocol_is_for_addresses_that_name_no_other() -> None:
    assert parse_address("http://host:8000/a.h5").native == "http://host:8000/v1"
    assert parse_address("http://host:8000/hdfstream/a.h5").native is None
    named = parse_address("http://host:8000/v1/a.h5")
    assert (named.native, named.path) == ("http://host:8000/v1", "a.h5")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cosma",
        "ftp://host",
        "http://",
        "http://host:port",
        f"http://{'me:secret'}@host",
        "http://host/?a=1",
        "http://host/#x",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_address(url)
    assert "secret" not in str(error.value)


@given(st.lists(st.sampled_from(["a", "b", "..", ".", ""])))
def test_no_path_leads_above_the_root(parts: list[str]) -> None:
    path = normalise("/".join(parts))
    assert ".." not in path.split("/")
    assert normalise(path) == path
