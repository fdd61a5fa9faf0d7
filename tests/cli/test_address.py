from __future__ import annotations

import pytest

from ndstream.cli.address import Address, parse_address
from ndstream.errors import InvalidRequest

HOST = "http://host:8000"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (HOST, Address(f"{HOST}/hdfstream", "")),
        (f"{HOST}/", Address(f"{HOST}/hdfstream", "")),
        (f"{HOST}/a/b.h5", Address(f"{HOST}/hdfstream", "a/b.h5")),
        (f"{HOST}/a//b.h5/", Address(f"{HOST}/hdfstream", "a/b.h5")),
        (f"{HOST}/hdfstream/a/b.h5", Address(f"{HOST}/hdfstream", "a/b.h5")),
        (f"{HOST}/site/hdfstream/a", Address(f"{HOST}/site/hdfstream", "a")),
        (f"{HOST}/a%20b/c%2Fd", Address(f"{HOST}/hdfstream", "a b/c/d")),
        (f"{HOST}/a.h5::/g/d", Address(f"{HOST}/hdfstream", "a.h5", "/g/d")),
        (f"{HOST}/a.h5::g/d/", Address(f"{HOST}/hdfstream", "a.h5", "/g/d")),
        (f"{HOST}/a.h5::", Address(f"{HOST}/hdfstream", "a.h5", "/")),
        (f"{HOST}/a.h5::/d[1:5, ::2]", Address(f"{HOST}/hdfstream", "a.h5", "/d", "1:5, ::2")),
        (f"{HOST}/a.h5::/d[[0, 3], ...]", Address(f"{HOST}/hdfstream", "a.h5", "/d", "[0, 3], ...")),
        (f"{HOST}/a.h5::/d[1][...]", Address(f"{HOST}/hdfstream", "a.h5", "/d[1]", "...")),
        ("http://[::1]:8000/a.h5::/d", Address("http://[::1]:8000/hdfstream", "a.h5", "/d")),
        ("HTTPS://host/a", Address("HTTPS://host/hdfstream", "a")),
        ("a.h5", Address(None, "a.h5")),
        ("../data/a[1].h5::/d[0]", Address(None, "../data/a[1].h5", "/d", "0")),
    ],
)
def test_an_argument_is_taken_apart(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["ftp://host/a", f"{HOST}/a.h5::/d]"])
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_address(text)


def test_an_address_reads_as_it_was_written() -> None:
    text = f"{HOST}/hdfstream/a.h5::/d[1:5]"
    assert str(parse_address(text)) == text
