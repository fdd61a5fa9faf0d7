from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ndstream.errors import ServiceError
from ndstream.testing import fixtures, processes, server
from ndstream.testing.fixtures import LocalServer, local_servers


def test_the_plugin_is_light() -> None:
    heavy = "numpy", "h5py", "uvicorn", "msgspec", "asyncio"
    script = f"import sys, ndstream.testing.fixtures\nassert not {set(heavy)!r} & set(sys.modules), sys.modules.keys()"
    # pytest itself is there already when it loads a plugin.
    subprocess.run([sys.executable, "-c", f"import pytest, _pytest.unittest\n{script}"], check=True)


def test_a_test_that_leaves_something_open_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixtures, "LEFTOVER_TIMEOUT", 0.1)
    pytester.makepyfile(
        """
        import os, socket, subprocess, sys
        import pytest
        kept = []
        pytestmark = pytest.mark.usefixtures("no_leaks")

        def test_socket():
            kept.append(socket.socket())

        def test_file(tmp_path):
            kept.append(open(tmp_path / "x", "w"))

        def test_process():
            kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))

        def test_tidy(tmp_path):
            socket.socket().close()
            subprocess.run(["true"])
            (tmp_path / "x").write_text("x")

        def test_end():
            kept[2].kill()
            kept[2].wait()
            kept[1].close()
            kept[0].close()
        """
    )
    ran = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    ran.assert_outcomes(passed=5, errors=3)
    ran.stdout.fnmatch_lines(["*left open: ['socket:*", "*left open: ['*/x (*", "*left running: *"])


def test_a_server_serves_its_own_settings_and_not_those_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDSTREAM_SERVER_PROT", "nonsense")
    monkeypatch.setenv("NDSTREAM_CONFIG", "/nowhere")
    with local_servers() as start:
        running = start(tmp_path, limits={"workers": 1})
        assert running.url == f"http://127.0.0.1:{running.port}"


def test_a_server_that_does_not_start_tells_why(tmp_path: Path) -> None:
    with local_servers() as start, pytest.raises(ServiceError, match=r"limits\.workers: expected `int`"):
        start(tmp_path, limits={"workers": "many"})


def test_without_the_server_extra_it_is_said_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['h5py'] = sys.modules['starlette'] = None\n")
    with pytest.raises(ServiceError, match=r"ndstream\[server\]"):
        LocalServer(tmp_path, log=tmp_path / "log", environment={"PYTHONPATH": str(tmp_path)})


def test_what_a_server_leaves_behind_is_told_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        "import subprocess\n"
        "print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid)\n"
        "print('http://127.0.0.1:1', flush=True)\n",
        encoding="utf-8",
    )
    wrapper = tmp_path / "python"
    wrapper.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n", encoding="utf-8")
    wrapper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(wrapper))
    monkeypatch.setattr(server, "LEFTOVER_TIMEOUT", 0.1)
    with pytest.raises(ServiceError, match=r"left processes behind: \{\d+\}"), local_servers() as start:
        leader = start(tmp_path).process.pid
    assert not processes.session(leader)
