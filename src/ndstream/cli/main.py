"""The command ``ndstream``: its commands, what all of them share, and how failures become exit codes."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ndstream.errors import NDStreamError

#: Every command with the first line of its help: what is listed needs not be loaded. The module of the same name in
#: this package holds it, as a function or, with commands of its own, as a `typer.Typer`.
COMMANDS = {
    "serve": "Serve HDF5 files, read-only unless told otherwise, until Ctrl-C.",
    "ls": "List directories, HDF5 files and groups.",
    "info": "Show shape, type, storage and attributes.",
    "get": "Copy to this machine.",
    "put": "Copy to a server.",
    "cat": "Print values; of more than 1000, the corners.",
    "stats": "Show how messages come: rates, gaps, errors.",
    "generate": "Send messages made up, until Ctrl-C.",
    "dump": "Write messages into a folder, or print them, until Ctrl-C.",
    "replay": "Send the messages of a folder.",
    "split": "Pass messages on to several outputs, until Ctrl-C.",
    "merge": "Make one stream of several, until Ctrl-C.",
    "record": "Record a message stream into HDF5 files, until Ctrl-C.",
    "play": "Send recorded messages again, every part as it came.",
    "keygen": "Make the keys of one end of an encrypted message stream.",
    "user": "Keep the users of a server.",
    "demo": "Serve sample data and walk through what users do.",
}


class Commands(TyperGroup):
    """The commands, loaded when named; an error of ndstream or of the system is one line on stderr and exit code 1."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: dict[str, Any] = dict.fromkeys(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load a command; None when there is none of that name."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever read our output has seen enough: typer ends quietly
        except (NDStreamError, OSError) as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"ndstream: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    name="ndstream",
    no_args_is_help=True,
    # Rich help costs 200 ms, which is more than most commands take.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ndstream {version('ndstream')}")
        raise typer.Exit


@app.callback()
def ndstream(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Move n-dimensional arrays between machines.

    URL is http://host:8000/path/to/file.h5::/group/dataset[1:5, ::2] or a path of this machine, in the same form.
    """


def _load(name: str) -> Any:
    found = getattr(import_module(f"ndstream.cli.{name}"), name)
    parent = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        parent.add_typer(found)
    else:
        parent.command(name)(found)
    command = typer.main.get_group(parent).commands[name]
    command.no_args_is_help |= any(
        parameter.param_type_name == "argument" and parameter.required for parameter in command.params
    )
    return command


def run() -> None:
    """Entry point: run the command line of this process."""
    app(prog_name="ndstream")
