"""The command ``ndstream``: its commands, what all of them share, and how failures become exit codes."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ndstream.cli import cat, demo, get, info, ls, serve, user
from ndstream.errors import NDStreamError


class Commands(TyperGroup):
    """The commands; an error of ndstream or of the system is one line on stderr and exit code 1."""

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


app.command(no_args_is_help=True)(serve.serve)
app.command(no_args_is_help=True)(ls.ls)
app.command(no_args_is_help=True)(info.info)
app.command(no_args_is_help=True)(get.get)
app.command(no_args_is_help=True)(cat.cat)
app.add_typer(user.app)
app.command()(demo.demo)


def run() -> None:
    """Entry point: run the command line of this process."""
    app(prog_name="ndstream")
