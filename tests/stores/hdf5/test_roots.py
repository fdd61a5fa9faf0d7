"""What is served is decided by real paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from ndstream.stores.hdf5.roots import Roots

ROOTS = Roots({"data": "/srv/data", "one.h5": "/home/user/.cache/one.h5"})


@pytest.mark.parametrize("real", ["/srv/data", "/srv/data/a", "/srv/data/a/b.h5", "/home/user/.cache/one.h5"])
def test_what_lies_in_a_root_is_served(real: str) -> None:
    assert ROOTS.admits(real)


@pytest.mark.parametrize(
    "real",
    ["/", "/srv", "/srv/database", "/srv/data/.a", "/srv/data/a/.b/c", "/home/user/.cache/two.h5", "/one.h5", "data/a"],
)
def test_all_else_is_not(real: str) -> None:
    assert not ROOTS.admits(real)


def test_the_whole_disk_can_be_a_root() -> None:
    assert Roots({"": "/"}).admits("/etc/hostname")
    assert not Roots({"": "/"}).admits("/root/.ssh/id")
    assert not Roots({"": "/"}).admits("/etc/hostname", ["/"])


def test_hidden_places_cover_what_is_below_them_and_nothing_beside() -> None:
    assert not ROOTS.admits("/srv/data/a", ["/srv/data/a"])
    assert not ROOTS.admits("/srv/data/a/b", ["/srv/data/a"])
    assert ROOTS.admits("/srv/data/ab", ["/srv/data/a"])


def test_places_of_virtual_directories_follow_links_and_overlapping_roots(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    roots = Roots({"all": str(tmp_path), "part": str(tmp_path / "real")})
    real = str(tmp_path / "real")
    assert set(roots.places(["all/link"])) == {real}
    assert set(roots.places(["all/link/deep", "part/deep"])) == {f"{real}/deep"}
    assert set(roots.places([""])) == {str(tmp_path), real}
    assert set(roots.places(["part"])) == {real}
    assert roots.places(["nowhere"]) == ()
    assert not roots.admits(f"{real}/deep/x.h5", roots.places(["all/link"]))
