from __future__ import annotations

import pytest

from ndstream.cli.address import Address, parse_address
from ndstream.errors import InvalidRequest

HOST = "http://host:8000"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (HOST, Address(HOST, "/")),
        (f"{HOST}/a/b.h5", Address(f"{HOST}/a/b.h5", "/")),
        (f"{HOST}/a.h5::/g/d", Address(f"{HOST}/a.h5", "/", "/g/d")),
        (f"{HOST}/a.h5::g/d/", Address(f"{HOST}/a.h5", "/", "/g/d")),
        (f"{HOST}/a.h5::", Address(f"{HOST}/a.h5", "/", "/")),
        (f"{HOST}/a.h5::/d[1:5, ::2]", Address(f"{HOST}/a.h5", "/", "/d", "1:5, ::2")),
        (f"{HOST}/a.h5::/d[[0, 3], ...]", Address(f"{HOST}/a.h5", "/", "/d", "[0, 3], ...")),
        (f"{HOST}/a.h5::/d[1][...]", Address(f"{HOST}/a.h5", "/", "/d[1]", "...")),
        ("http://[::1]:8000/a.h5::/d", Address("http://[::1]:8000/a.h5", "/", "/d")),
        ("cosma:runs/a.h5::/d", Address("cosma", "runs/a.h5", "/d")),
        ("cosma:", Address("cosma", "")),
        ("a.h5", Address(None, "a.h5")),
        ("a.h5::d", Address(None, "a.h5", "/d")),
        ("../data/a[1].h5::/d[0]", Address(None, "../data/a[1].h5", "/d", "0")),
        ("./a:b", Address(None, "./a:b")),
    ],
)
def test_an_argument_is_taken_apart(text: str, address: Address) -> None:
    assert parse_address(text) == address


def test_brackets_that_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        parse_address(f"{HOST}/a.h5::/d]")
