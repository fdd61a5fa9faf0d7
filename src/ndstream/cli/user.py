"""``ndstream user``: who may read what on a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ndstream.cli.extra import needs
from ndstream.errors import InvalidRequest

user = typer.Typer(name="user", help="Keep the users of a server.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
Roles = Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help="A role; may be given several times.")]
FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
UsersFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="File of users; default: that of the configuration.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration file that names the file of users.")
]


@user.command()
def add(
    name: Name, role: Roles = None, password_stdin: FromInput = False, file: UsersFile = None, config: ConfigFile = None
) -> None:
    """Add a user; the password is asked for."""
    with needs("server", "ndstream user"):
        from ndstream.server.users import add_user

    add_user(_users_file(file, config), name, _password(password_stdin), role or ())


@user.command()
def passwd(name: Name, password_stdin: FromInput = False, file: UsersFile = None, config: ConfigFile = None) -> None:
    """Give a user another password."""
    with needs("server", "ndstream user"):
        from ndstream.server.users import set_password

    set_password(_users_file(file, config), name, _password(password_stdin))


@user.command()
def roles(name: Name, role: Roles = None, file: UsersFile = None, config: ConfigFile = None) -> None:
    """Give a user these roles in place of the present ones; none without --role."""
    with needs("server", "ndstream user"):
        from ndstream.server.users import set_roles

    set_roles(_users_file(file, config), name, role or ())


@user.command()
def remove(name: Name, file: UsersFile = None, config: ConfigFile = None) -> None:
    """Remove a user."""
    with needs("server", "ndstream user"):
        from ndstream.server.users import remove_user

    remove_user(_users_file(file, config), name)


@user.command("list")
def list_users(file: UsersFile = None, config: ConfigFile = None) -> None:
    """List users and their roles."""
    with needs("server", "ndstream user"):
        from ndstream.server.users import read_users

    for known in sorted(read_users(_users_file(file, config)).values(), key=lambda known: known.name):
        typer.echo(f"{known.name}\t{','.join(sorted(known.roles))}")


def _users_file(file: Path | None, config: Path | None) -> Path:
    if file is not None:
        return file
    from ndstream.config import load

    return load(config).users_file


def _password(from_input: bool) -> str:
    if from_input:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise InvalidRequest("there is no terminal to ask for the password; give it with --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
