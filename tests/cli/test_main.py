"""What holds for every command: help, speed, exit codes. The command runs in a process of its own, as users run it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ndstream.cli.main import COMMANDS
from ndstream.testing.server import LocalServer


def ndstream(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ndstream", *arguments], input=stdin, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_loads_nothing_that_does_the_work(command: list[str]) -> None:
    probe = (
        "import sys\n"
        "from ndstream.cli.main import app\n"
        f"app({[*command, '--help']!r}, standalone_mode=False)\n"
        "print([name for name in ('numpy', 'h5py', 'urllib3', 'uvicorn', 'rich', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_explains_itself_as_the_list_has_it() -> None:
    shown = ndstream("--help").stdout
    for command, summary in COMMANDS.items():
        assert f"  {command} " in shown
        usage, line = [line.strip() for line in ndstream(command, "--help").stdout.splitlines() if line.strip()][:2]
        assert usage.startswith(f"Usage: ndstream {command}")
        assert line == summary


def test_listing_the_commands_loads_none() -> None:
    probe = (
        "import sys\n"
        "from ndstream.cli.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith('ndstream.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['ndstream.cli.main']"


def test_the_version_is_told() -> None:
    assert ndstream("--version").stdout.startswith("ndstream 0.")


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["ls", "--bogus"], ["cat", "--csv", "--raw", "a"], ["demo", "--port", "x"]]
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    done = ndstream(*arguments)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert done.stdout == ""


def test_a_failure_is_one_line_and_ends_with_1() -> None:
    done = ndstream("ls", "ftp://host/a")
    assert done.returncode == 1
    assert done.stderr.startswith("ndstream: 'ftp://host/a' is neither")
    assert done.stderr.count("\n") == 1


def test_only_arguments_that_are_needed_are_asked_for_by_the_help(tmp_path: Path) -> None:
    (tmp_path / "here.toml").write_text('[roots]\ndata = "."\n')
    environment = os.environ | {"NDSTREAM_CONFIG": str(tmp_path / "here.toml")}
    with LocalServer("--port", "0", environment=environment) as server:
        assert ndstream("ls", server.url).stdout == "data/\n"
    assert ndstream("serve").stderr.startswith("ndstream: nothing to serve")
    assert ndstream("ls").stderr.startswith("Usage: ndstream ls")


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here, and nobody else can
        done = ndstream("ls", f"http://127.0.0.1:{taken.getsockname()[1]}/x")
    assert done.returncode == 1
    assert "refused" in done.stderr


def test_debug_shows_where_an_error_comes_from() -> None:
    done = ndstream("--debug", "ls", "ftp://host/a")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_the_user_file_is_kept(tmp_path: Path) -> None:
    file = str(tmp_path / "users")
    assert (
        ndstream("user", "add", "ada", "--role", "x", "--password-stdin", "--file", file, stdin="pw\n").returncode == 0
    )
    assert ndstream("user", "roles", "ada", "--role", "y", "--role", "z", "--file", file).returncode == 0
    assert ndstream("user", "passwd", "ada", "--password-stdin", "--file", file, stdin="other\n").returncode == 0
    assert ndstream("user", "list", "--file", file).stdout == "ada\ty,z\n"
    assert ndstream("user", "remove", "ada", "--file", file).returncode == 0
    assert ndstream("user", "list", "--file", file).stdout == ""
    missing = ndstream("user", "remove", "ada", "--file", file)
    assert (missing.returncode, missing.stderr) == (1, "ndstream: ada: no user of that name\n")


def test_a_password_is_not_asked_for_without_a_terminal(tmp_path: Path) -> None:
    done = ndstream("user", "add", "ada", "--file", str(tmp_path / "users"))
    assert done.returncode == 1
    assert "--password-stdin" in done.stderr


def test_the_file_of_users_is_found_through_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "ndstream.toml").write_text('[users]\nfile = "who"\n')
    config = str(tmp_path / "ndstream.toml")
    assert ndstream("user", "add", "ada", "--password-stdin", "--config", config, stdin="pw\n").returncode == 0
    assert (tmp_path / "who").stat().st_mode & 0o777 == 0o600
