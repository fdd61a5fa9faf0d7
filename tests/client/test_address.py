"""What users call servers and files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.client.address import Address, normalise, parse_address
from ndstream.errors import InvalidRequest


@pytest.mark.parametrize(
    ("url", "name", "base", "path"),
    [
        ("http://h:8000", "/", "http://h:8000/hdfstream", ""),
        ("http://h:8000/", "a/b.h5", "http://h:8000/hdfstream", "a/b.h5"),
        ("https://h/hdfstream", "/", "https://h/hdfstream", ""),
        ("https://h/hdfstream/", "/a//b/", "https://h/hdfstream", "a/b"),
        ("https://h/hdfstream/EAGLE/x.h5", "/", "https://h/hdfstream", "EAGLE/x.h5"),
        ("http://h:1/EAGLE/x.h5", "/", "http://h:1/hdfstream", "EAGLE/x.h5"),
        ("https://h/archive/hdfstream/a", "b", "https://h/archive/hdfstream", "a/b"),
        ("http://h/with%20blank/%C3%BC.h5", "/", "http://h/hdfstream", "with blank/ü.h5"),
        ("http://[::1]:8000", "x", "http://[::1]:8000/hdfstream", "x"),
    ],
)
def test_an_address_is_taken_apart(url: str, name: str, base: str, path: str) -> None:
    assert parse_address(url, name) == Address(base, path)


@pytest.mark.parametrize(
    "url", ["", "cosma", "ftp://h", "http://", "http://h:port", "http://me:secret@h", "http://h/?a=1", "http://h/#x"]
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
