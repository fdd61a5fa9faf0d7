"""What must hold for the tree as a whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Hosts that documentation, specifications and examples may name. Everything else that looks like an address is taken
# for a leak, above all of the package index that somebody's machine uses.
_HARMLESS = re.compile(
    r"(127\.\d+\.\d+\.\d+|0\.0\.0\.0|\[::1?\]|localhost|host|server|archive|dataweb\.cosma\.dur\.ac\.uk"
    r"|([\w-]+\.)*example(\.(org|com|net))?|([\w-]+\.)*(test|invalid)|docs\.hdfgroup\.org|www\.rfc-editor\.org"
    r"|[{%<$].*|\W*)(:.*)?",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"https?://([^\s\"'`<>)/?#\\]*)", re.IGNORECASE)
_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bpypi-[A-Za-z0-9_-]{40,}"
)


def _committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def _texts() -> list[tuple[Path, str]]:
    found = []
    for path in _committed():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path, content.decode(errors="replace")))
    return found


def _hits(pattern: re.Pattern[str]) -> list[tuple[str, re.Match[str]]]:
    return [
        (str(path.relative_to(ROOT)), match)
        for path, text in _texts()
        if path != Path(__file__)
        for match in pattern.finditer(text)
    ]


def test_no_addresses_of_registries_or_machines_are_committed() -> None:
    assert [(path, hit[0]) for path, hit in _hits(_ADDRESS) if not _HARMLESS.fullmatch(hit[1])] == []


def test_nothing_of_this_machine_is_committed() -> None:
    """Neither where the tree lies, nor where pip and uv look for packages."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = [
        line for line in listed.stdout.splitlines() if re.search(r"index|find-links|proxy", line.partition("=")[0])
    ]
    settings += [value for name, value in os.environ.items() if re.match(r"(PIP|UV)_.*(INDEX|LINKS|PROXY)", name)]
    places = {
        place
        for setting in settings
        for place in re.findall(r"(?:https?://|/)[^\s'\",]+", setting.replace("file://", ""))
    }
    places.add(str(ROOT))
    found = _hits(re.compile("|".join(rf"{re.escape(place)}\b" for place in sorted(places))))
    assert [(path, hit[0]) for path, hit in found] == []


def test_no_secrets_are_committed() -> None:
    assert _hits(_SECRETS) == []


def test_nothing_large_is_committed() -> None:
    assert [path for path in _committed() if path.stat().st_size > 512 << 10] == []


def test_the_lock_pins_and_hashes_everything_and_names_no_index() -> None:
    lock = (ROOT / "requirements/dev.txt").read_text()
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert all(re.match(r"[\w.\[\],-]+==[\w.!+]+ ", entry) for entry in entries)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock


def test_the_lock_covers_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *project["dependency-groups"]["dev"],
    ]
    names = {_normal(re.match(r"[\w.-]+", name)) for name in wanted} - {"ndstream"}
    locked = {
        _normal(match) for match in re.finditer(r"^[\w.-]+(?===)", (ROOT / "requirements/dev.txt").read_text(), re.M)
    }
    assert names <= locked


def _normal(name: re.Match[str] | None) -> str:
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_the_demo_and_the_tests_are_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_changelog_fragments_are_of_a_known_kind() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    kinds = {kind["directory"] for kind in project["tool"]["towncrier"]["type"]}
    fragments = [path for path in (ROOT / "changes").iterdir() if path.name != "README.md"]
    assert fragments
    assert [
        path.name for path in fragments if not re.fullmatch(rf"(\d+|\+[\w-]+)\.({'|'.join(kinds)})\.md", path.name)
    ] == []


def test_the_ci_runs_what_the_readme_names() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    text = script.read_text()
    assert "make demo ARGS=--once" in text
    assert "make check" in text
    assert re.search(r"^check:.*\btest\b", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "design/index.md").read_text()
    pages = sorted(path.name for path in (ROOT / "design").glob("*.md") if path.name != "index.md")
    assert [page for page in pages if f"({page})" not in index] == []
