"""The tools of message streams, as commands; where it is about ending them, in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import Run

import ndstream
from ndstream import BIND, CONNECT, PULL, PUSH, Stream
from ndstream.streams.folder import MANIFEST

LONG = 60_000
BIN = Path(sys.executable).parent
MESSAGES = [[b'{"htype": "raw-1.0", "frame": 0}', b"", b"\x00\xff" * 500], [b"no json"], [b"\xff\x1b[1m", b"x"]]

Open = Callable[..., Stream]


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def open_stream(address: str, conn_type: str, mode: int) -> Stream:
            stream = ndstream.connect(address, conn_type, mode, receive_timeout=LONG, linger=LONG, queue_size=0)
            return stack.enter_context(stream)

        yield open_stream


class Tool:
    """A command in a process."""

    def __init__(self, *arguments: object) -> None:
        name, *rest = map(str, arguments)
        self._process = subprocess.Popen(
            [BIN / name, *rest], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )

    def until(self, beginning: str) -> str:
        """Wait for a line that begins so; what follows in it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
        raise AssertionError(f"{beginning!r} was not written; ended with {self._process.wait(60)}")

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Send a signal, if one is given, and wait; exit code, and what was written until then."""
        if number is not None:
            self._process.send_signal(number)
        told, _ = self._process.communicate(timeout=120)
        return self._process.returncode, told

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def tool() -> Iterator[Callable[..., Tool]]:
    with ExitStack() as stack:

        def start(*arguments: object) -> Tool:
            started = Tool(*arguments)
            stack.callback(started.close)
            return started

        yield start


def write_as_mflow(path: Path, messages: list[list[bytes]]) -> None:
    path.mkdir()
    for number, frames in enumerate(messages):
        for part, frame in enumerate(frames):
            (path / f"{number:06d}_{part:03d}.raw").write_bytes(frame)


def parts_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != MANIFEST}


def feed(opened: Open, address: str, messages: list[list[bytes]]) -> None:
    sender = opened(address, CONNECT, PUSH)
    for frames in messages:
        sender.send_parts(frames)


def array(frame: int) -> list[bytes]:
    return [json.dumps({"htype": "array-1.0", "shape": [2], "type": "int8", "frame": frame}).encode(), b"ab"]


# -- in processes --


def test_what_was_dumped_is_replayed_byte_for_byte(tool: Callable[..., Tool], tmp_path: Path) -> None:
    """Acceptance 21: from a folder of the original with stray files, to all subscribers that are waited for."""
    write_as_mflow(tmp_path / "theirs", MESSAGES)
    (tmp_path / "theirs/999999_notes.txt").write_text("stray")
    replay = tool("ndstream", "replay", tmp_path / "theirs", "tcp://127.0.0.1:*", "--mode", "pub", "--wait", 2)
    address = replay.until("ndstream: sending at ")
    dumps = [tool("ndstream", "dump", address, tmp_path / name, "-m", "sub", "-n", len(MESSAGES)) for name in "ab"]
    assert [dump.end()[0] for dump in dumps] == [0, 0]
    code, told = replay.end()
    assert (code, told.splitlines()[0][:16]) == (0, "sent 3 messages,")
    (tmp_path / "theirs/999999_notes.txt").unlink()
    assert parts_of(tmp_path / "a") == parts_of(tmp_path / "b") == parts_of(tmp_path / "theirs")


def test_the_tools_of_mflow_work_together_and_end_with_a_summary(
    tool: Callable[..., Tool], opened: Open, tmp_path: Path
) -> None:
    """Acceptance 23, fault 13: Ctrl-C and SIGTERM."""
    write_as_mflow(tmp_path / "old", MESSAGES)
    replay = tool("m_replay", tmp_path / "old", "-a", "tcp://127.0.0.1:*", "-m", "PUSH")
    generate = tool("m_generate", "-a", "tcp://127.0.0.1:*", "-s", "0.001", "--rate", "200")
    address = generate.until("ndstream: sending at ")
    dump = tool("m_dump", address, tmp_path / "new", "-s", "2")
    stats = tool("m_stats", address, "-i", "0.1", "-m", "pull")
    split = tool("m_split", address, "tcp://127.0.0.1:*")

    message = opened(split.until("ndstream: sending at "), CONNECT, PULL).receive()
    assert message is not None
    assert message.header["shape"] == [1, 262]
    assert message.header["type"] == "int32"
    stats.until("Data rate:")
    dump.until("ndstream: receiving from ")
    while not (tmp_path / "new/000001_000.raw").exists():
        stats.until("Data rate:")  # each takes a while, and the others get messages meanwhile
    replay.until("ndstream: sending at ")

    endings = [
        (dump, signal.SIGINT, "received"),
        (stats, signal.SIGTERM, "Gaps:"),
        (split, signal.SIGINT, "received"),
        (generate, signal.SIGTERM, "sent"),
        (replay, signal.SIGINT, "sent 0 messages"),
    ]
    for ended, number, summary in endings:
        code, told = ended.end(number)
        assert code == 0, told
        assert summary in told
    assert {name[-8:] for name in parts_of(tmp_path / "new")} == {"_000.raw"}


@pytest.mark.parametrize("arguments", [["m_split"], ["m_split", "tcp://127.0.0.1:1"], ["m_dump"], ["m_stats"]])
def test_a_wrong_command_line_of_mflow_ends_with_2(tool: Callable[..., Tool], arguments: list[str]) -> None:
    code, told = tool(*arguments).end()
    assert code == 2
    assert told.startswith(f"usage: {arguments[0]}")


def test_a_failure_of_a_tool_of_mflow_is_one_line(tool: Callable[..., Tool], tmp_path: Path) -> None:
    code, told = tool("m_replay", tmp_path / "nowhere").end()
    assert code == 1
    assert told == f"m_replay: {tmp_path}/nowhere: there is no such folder\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sender_that_nobody_takes_from_can_be_ended(tool: Callable[..., Tool], number: int) -> None:
    generate = tool("ndstream", "generate", "tcp://127.0.0.1:*", "--size", "100B")
    generate.until("ndstream: sending at ")
    code, told = generate.end(number)
    assert code == 0
    assert "sent 0 messages" in told


# -- in this process --


def test_stats_count_gaps_and_errors(run: Run, opened: Open, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    feed(opened, address, [array(0), [b"no json"], array(1), array(5), array(5), [b'{"htype": "raw-1.0"}'], array(6)])
    done = run("stats", address, "--bind", "-n", 6, "--json", "--interval", 0)
    summary = json.loads(done.out.splitlines()[-1])["summary"]
    assert done.code == 0
    assert summary["htypes"] == {"array-1.0": 5, "raw-1.0": 1}
    assert (summary["gaps"], summary["missing"], summary["repeats"], summary["reversals"]) == (1, 3, 1, 0)
    assert summary["messages_failed"] == {"header": 1}
    assert summary["messages_received"] == 6
    assert summary["bytes_failed"] == {"header": 7}


def test_stats_are_lines_in_a_pipe(run: Run, opened: Open, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    feed(opened, address, [array(0), [b"no json"], array(3)])
    lines = run("stats", address, "--bind", "-n", 2, "-i", 0).out.splitlines()
    assert any(line.startswith("Data rate:") and "Missing: 2" in line for line in lines)
    assert lines[-4:] == [
        "Gaps:                 1, of 2 messages that are missing now",
        "Repeats:              0",
        "Reversals:            0",
        "Not decoded:          1 (1 header)",
    ]


def test_stats_are_a_table_in_a_terminal() -> None:
    from rich.console import Console

    from ndstream.cli.watching import Watching, table
    from ndstream.streams.messages import Totals

    totals = Totals()
    totals.messages_received, totals.total_bytes_received = 7, 2_000_000
    totals.failed("header", 3)
    watching = Watching(totals, 0.5)
    watching.htypes["[bold]-1.0"] = 7
    console = Console(width=60)
    with console.capture() as shown:
        console.print(table(watching))
    for text in ("Message rate", "2.000 MB", "[bold]-1.0", "1 (1 header)"):
        assert text in shown.get()


def test_messages_are_printed_without_what_terminals_obey(run: Run, opened: Open, tmp_path: Path) -> None:
    feed(opened, f"ipc://{tmp_path}/s", [*MESSAGES, [b"{\x1b]0;x\x07"]])
    lines = run("dump", f"ipc://{tmp_path}/s", "--bind", "-n", 4).out.splitlines()
    assert lines[:2] == ['000000_000 {"htype": "raw-1.0", "frame": 0}', "000000_001 empty"]
    assert lines[2].startswith("000000_002 1000 bytes: 00ff00ff 00ff")
    assert lines[6] == r"000003_000 {\x1b]0;x\x07"
    assert lines[-1].startswith("received 4 messages")


def test_a_folder_that_has_messages_is_not_written_to(run: Run, tmp_path: Path) -> None:
    write_as_mflow(tmp_path / "old", MESSAGES)
    with pytest.raises(ndstream.NDStreamError, match="there are messages"):
        run("--debug", "dump", f"ipc://{tmp_path}/s", tmp_path / "old", "--bind")
    assert len(parts_of(tmp_path / "old")) == 6


def test_messages_are_replayed_over_and_over(run: Run, opened: Open, tmp_path: Path) -> None:
    write_as_mflow(tmp_path / "old", MESSAGES)
    receiver = opened(f"ipc://{tmp_path}/s", BIND, PULL)
    for options in (["--loop", 0, "-n", 7, "--rate", 1000], ["--loop", 2, "--timing"]):
        done = run("replay", tmp_path / "old", f"ipc://{tmp_path}/s", "--connect", *options)
        count = 7 if "-n" in options else 6
        assert f"sent {count} messages" in done.out
        for number in range(count):
            message = receiver.receive_raw()
            assert message is not None
            assert [bytes(frame) for frame in message.frames] == MESSAGES[number % 3]


def test_a_stream_is_split_by_its_configuration(run: Run, opened: Open, tmp_path: Path) -> None:
    feed(opened, f"ipc://{tmp_path}/s", [array(frame) for frame in range(9)])
    receivers = [opened(f"ipc://{tmp_path}/{name}", CONNECT, PULL) for name in "ab"]
    outputs = [f"ipc://{tmp_path}/a,policy=block", f"ipc://{tmp_path}/b,policy=block,modulo=4"]
    done = run("split", f"ipc://{tmp_path}/s", *outputs, "--bind", "-n", 9)
    assert f"ipc://{tmp_path}/b: sent 3 messages" in done.out
    for receiver, expected in zip(receivers, (range(9), range(0, 9, 4)), strict=True):
        frames: list[Any] = []
        for _ in expected:
            message = receiver.receive()
            assert message is not None
            frames.append(message.data["header"]["frame"])
        assert frames == list(expected)


def test_a_split_without_an_output_is_told(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ndstream.NDStreamError, match="no output"):
        run("--debug", "split", f"ipc://{tmp_path}/s")
    with pytest.raises(typer.BadParameter):
        run("split", "-n", 1)


def test_streams_are_merged_by_their_numbers(run: Run, opened: Open, tmp_path: Path) -> None:
    """What cannot be decoded has no number, and is passed on at once."""
    sink = opened(f"ipc://{tmp_path}/o", BIND, PULL)
    feed(opened, f"ipc://{tmp_path}/a", [[b"no json"], array(0), array(3), array(5)])
    feed(opened, f"ipc://{tmp_path}/b", [array(1), array(2), array(4)])
    sources = [f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b"]
    options = ["--bind", "-o", f"ipc://{tmp_path}/o", "--connect", "--order", "number", "-n", 6, "--patience", 5]
    done = run("merge", *sources, *options)
    found = []
    for _ in range(7):
        message = sink.receive_raw()
        assert message is not None
        found.append(message.data["header"])
    assert found[0] == b"no json"
    assert [header["frame"] for header in found[1:]] == [0, 1, 2, 3, 4, 5]
    assert "sent 7 messages" in done.out


def test_generated_messages_are_those_that_were_asked_for(run: Run, opened: Open, tmp_path: Path) -> None:
    sink = opened(f"ipc://{tmp_path}/o", BIND, PULL)
    options = ["--connect", "--htype", "stream2", "--compression", "bslz4", "--dtype", "u4", "--size", "4kB", "-n", 2]
    done = run("generate", f"ipc://{tmp_path}/o", *options, "--contents", "pattern")
    assert "sent 4 messages" in done.out
    kinds = []
    for _ in range(4):
        message = sink.receive()
        assert message is not None
        kinds.append(message.data["header"]["type"])
        if kinds[-1] == "image":
            assert message.data["data"]["threshold_1"].shape == (31, 32)
            assert message.data["data"]["threshold_1"].dtype == "u4"
    assert kinds == ["start", "image", "image", "end"]


@pytest.mark.parametrize(
    "options",
    [["--shape", "2,x"], ["--shape", "0"], ["--size", "much"], ["--shape", "2", "--size", "2"], ["--dtype", "nothing"]],
)
def test_what_cannot_be_generated_is_told(run: Run, options: list[str]) -> None:
    with pytest.raises(ndstream.errors.InvalidRequest):
        run("--debug", "generate", "tcp://127.0.0.1:*", *options)
