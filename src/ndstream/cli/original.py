"""The tools of mflow under their own names, with their own options: ``m_stats`` and so on.

They do what the commands of ndstream do, and end as these do.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ndstream.cli.endpoints import ANYWHERE
from ndstream.errors import NDStreamError


def m_stats() -> None:
    """Entry point: show how messages come."""
    parser = _parser("m_stats", "Show how messages come: rates, gaps, errors.")
    parser.add_argument("source", help="address to connect to")
    _receives(parser)
    parser.add_argument("-i", "--interval", type=_not_negative, default=0.5, help="seconds; 0: every message")
    options = parser.parse_args()

    def run() -> None:
        from ndstream.cli.stats import stats

        stats(options.source, mode=_receiving(options), interval=options.interval)

    _run(parser, run)


def m_generate() -> None:
    """Entry point: send messages made up."""
    parser = _parser("m_generate", "Send random messages.")
    _sends(parser)
    parser.add_argument(
        "-s", "--size", type=_not_negative, default=1.0, help="of a message in MB, of 1024 * 1024 bytes"
    )
    parser.add_argument("-n", "--count", type=_positive, help="end after so many messages")
    parser.add_argument("--rate", type=_not_negative, help="messages per second")
    options = parser.parse_args()

    def run() -> None:
        from ndstream.cli.generate import generate

        generate(
            options.address,
            htype="raw-1.0",
            shape=f"1,{max(1, int(options.size * 1024 * 1024) // 4)}",
            dtype="int32",
            count=options.count,
            rate=options.rate or None,
            mode=options.mode,
        )

    _run(parser, run)


def m_dump() -> None:
    """Entry point: write messages into a folder."""
    parser = _parser("m_dump", "Write messages into a folder, or print them.")
    parser.add_argument("source", help="address to connect to")
    parser.add_argument("folder", nargs="?", type=Path, help="where to; else messages are printed")
    _receives(parser)
    parser.add_argument("-s", "--skip", type=_number, default=0, help="leave out parts from this one on, from 1")
    options = parser.parse_args()

    def run() -> None:
        from ndstream.cli.dump import dump

        dump(options.source, options.folder, mode=_receiving(options), skip=options.skip)

    _run(parser, run)


def m_replay() -> None:
    """Entry point: send the messages of a folder."""
    parser = _parser("m_replay", "Send the messages of a folder.")
    parser.add_argument("folder", type=Path, help="as m_dump wrote it")
    _sends(parser)
    options = parser.parse_args()

    def run() -> None:
        from ndstream.cli.replay import replay

        replay(options.folder, options.address, mode=options.mode)

    _run(parser, run)


def m_split() -> None:
    """Entry point: pass messages on to several outputs."""
    parser = _parser("m_split", "Pass messages on to several outputs.")
    parser.add_argument("source", nargs="?", help="address to connect to")
    parser.add_argument("streams", nargs="*", help="addresses to bind")
    parser.add_argument("-c", "--config", type=Path, help="JSON file, in place of addresses")
    options = parser.parse_args()
    if (options.config is None) == (options.source is None) or (options.source and not options.streams):
        parser.error("name a source and streams, or a configuration")

    def run() -> None:
        from ndstream.cli.split import split

        split([options.source, *options.streams] if options.source else None, options.config)

    _run(parser, run)


# -- what they share --


def _parser(name: str, summary: str) -> ArgumentParser:
    return ArgumentParser(prog=name, description=f"{summary} The tool of mflow, by ndstream.")


def _receives(parser: ArgumentParser) -> None:
    parser.add_argument("-m", "--mode", default="pull", help="pull or sub; default: pull")


def _receiving(options: Namespace) -> Literal["pull", "sub"]:
    return "sub" if options.mode.lower() == "sub" else "pull"


def _sends(parser: ArgumentParser) -> None:
    parser.add_argument("-a", "--address", default=ANYWHERE, help=f"address to bind; default: {ANYWHERE}")
    parser.add_argument("-m", "--mode", type=str.lower, choices=["push", "pub"], default="push")


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _positive(text: str) -> int:
    value = _number(text)
    if value == 0:
        raise ValueError(text)
    return value


def _run(parser: ArgumentParser, run: Callable[[], None]) -> None:
    """Run a command; a failure is one line on standard error and exit code 1."""
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:
        raise SystemExit(1) from None  # whoever read our output has seen enough
    except (NDStreamError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {' '.join(str(error).split())}\n")
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # a second Ctrl-C
