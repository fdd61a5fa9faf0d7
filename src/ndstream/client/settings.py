"""What a client is told besides the address: aliases, passwords, certificates, limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from ndstream.client.credentials import PasswordSources
from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Short name of a server; `user` and `use_keyring` hold unless `ndstream.open` is told otherwise."""

    url: str
    user: str | None = None
    use_keyring: bool = False


KNOWN_SERVERS = {"cosma": Alias(url="https://dataweb.cosma.dur.ac.uk:8443/hdfstream")}
"""Aliases that need no configuration."""


@dataclass(slots=True, kw_only=True)
class Config:
    """Settings of the clients of a process; change them before opening anything.

    Attributes
    ----------
    aliases : dict of name to Alias
    passwords : PasswordSources
    verify : bool or str
        Whether the certificates of servers are checked; a path names a file of those to trust.
    limits : Limits
        Times and sizes.
    """

    aliases: dict[str, Alias] = field(default_factory=lambda: dict(KNOWN_SERVERS))
    passwords: PasswordSources = field(default_factory=PasswordSources)
    verify: bool | str = True
    limits: Limits = DEFAULT_LIMITS

    def add_alias(self, name: str, url: str, user: str | None = None, use_keyring: bool = False) -> None:
        """Give a server a short name.

        Raises
        ------
        ConfigError
            The name could be taken for an address.
        """
        if not name or "/" in name or ":" in name:
            raise ConfigError(f"{name!r} cannot be an alias: it would look like an address")
        self.aliases[name] = Alias(url=url, user=user, use_keyring=use_keyring)

    def resolve_alias(self, name: str, user: str | None = None) -> Alias:
        """What a name stands for: the server of that alias, else an address; `user` wins over that of the alias."""
        found = self.aliases.get(name, Alias(url=name))
        return found if user is None else Alias(url=found.url, user=user, use_keyring=found.use_keyring)
