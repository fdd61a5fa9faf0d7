"""Settings: the only place that reads configuration files and the environment.

Later sources win: what `Config` says here, the file, the environment, the command line. Everything below this module
gets values. A file is TOML; what is wrong in it is a `ConfigError` that names file, line and what would be right.
The environment spells a setting ``NDSTREAM_<SECTION>_<NAME>``; lists are separated by commas.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec
import platformdirs

from ndstream.client.credentials import PASSWORD_VARIABLE, PasswordSources
from ndstream.client.settings import Alias
from ndstream.client.settings import Config as ClientConfig
from ndstream.core import registry
from ndstream.core.limits import DEFAULT_LIMITS, Bytes, GiB, KiB, Limits, MiB, Seconds
from ndstream.errors import ConfigError

FILE_VARIABLE = "NDSTREAM_CONFIG"
_LARGEST_FILE = 1 * MiB
_LARGEST_NUMBER = 1 << 62


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[server]``; the comment of each field is its documentation, as in `Limits`."""

    host: str = "127.0.0.1"  #: name or address to listen on; other than loopback, other machines reach it
    port: int = 8000  #: TCP port; 0 picks a free one
    certificate: Path | None = None  #: PEM file with the certificate chain; with it the server speaks HTTPS only
    key: Path | None = None  #: PEM file with the private key; not needed when the certificate file holds it
    trusted_proxies: tuple[str, ...] = ()  #: addresses or networks whose X-Forwarded-For and -Proto are believed
    operators: tuple[str, ...] = ("127.0.0.0/8", "::1")  #: addresses or networks that see /status and /metrics
    store: str = "hdf5"  #: kind of store that holds the arrays
    protocols: tuple[str, ...] = ()  #: names of the protocols to serve; empty = all that are installed
    log_level: Literal["debug", "info", "warning", "error"] = "info"  #: least weight of a message that is logged
    access_log: bool = False  #: log a line for every request
    drain: Seconds = 10.0  #: seconds that running requests get to end when the server stops
    backlog: int = 2048  #: connections that the system holds before they are accepted


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section of a protocol over its own TCP port, such as ``[rpc]``; it listens on the host of the server.

    A certificate of the server is used here as well.
    """

    port: int | None = None  #: TCP port to serve it on; 0 picks a free one; without a port it is not served
    file: str = ""  #: virtual path of the HDF5 file that it serves; not needed when one file is all there is
    token_file: Path | None = None  #: file of the token that clients must give, plain or as Argon2 hash
    public: bool = False  #: serve it to other machines without a token and without a certificate


class UserSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[users]``."""

    file: Path | None = None  #: file of user names, password hashes and roles; default: ``users`` beside user settings


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a server is told.

    `roots` maps names to directories or files ("" to the directory whose content is the root), `access` virtual
    directories to the roles that a user must have, all of them, to see what is in it, `writable` those to the roles
    that a user must have to write there; `media_types` patterns of file names to media types. `streams` holds the
    sections of protocols over TCP ports of their own, by name. `file` is where it came from.
    """

    server: ServerSettings = ServerSettings()
    limits: Limits = DEFAULT_LIMITS
    users: UserSettings = UserSettings()
    streams: dict[str, StreamSettings] = {}
    roots: dict[str, Path] = {}
    access: dict[str, frozenset[str]] = {}
    writable: dict[str, frozenset[str]] = {}
    media_types: dict[str, str] = {}
    file: Path | None = None
    overrides: Mapping[str, Mapping[str, Any]] = {}

    @property
    def users_file(self) -> Path:
        """Where users are kept; the file need not exist."""
        return self.users.file or config_directory() / "users"


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[client]`` of the file of the clients."""

    verify: bool = True  #: check the certificates of servers
    certificates: Path | None = None  #: PEM file of the certificates to trust; default: those of the system
    token_file: Path | None = None  #: file that holds the password, readable for its owner only
    keyring: bool = False  #: look for passwords in the keyring of the desktop, and keep them there


_Section = TypeVar("_Section", ServerSettings, UserSettings, StreamSettings, ClientSettings, Limits)

_SECTIONS: dict[str, type[ServerSettings | UserSettings | Limits]] = {
    "server": ServerSettings,
    "limits": Limits,
    "users": UserSettings,
}
_TABLES = {
    "roots": "name = directory or file to serve under it, or / = directory whose content is the root",
    "access": "virtual directory = list of roles, all of which a user needs",
    "writable": "virtual directory = list of roles, all of which a user needs to write there",
    "media_types": "pattern of file names, or with a slash of virtual paths = media type",
}
_ZERO_ALLOWED = frozenset(
    {
        "port",
        "requests_per_user",
        "chunk_cache",
        "layout_cache",
        "inline_data",
        "workers",
        "retries",
        "drain",
        "block_cache",
    }
)


def load(
    file: Path | None = None,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Put the settings of a server together.

    Parameters
    ----------
    file : Path, optional
        TOML file; without it the one that ``NDSTREAM_CONFIG`` names, or none. Relative paths in it start from its
        directory.
    overrides : mapping of section to mapping of name to value, optional
        Settings of the command line, such as ``{"server": {"port": 0}}``; None means not given. Given `roots`
        replace those of the file altogether.
    environ : mapping, optional
        In place of `os.environ`.

    Raises
    ------
    ConfigError
        A file cannot be read, a setting is unknown or has a wrong value.
    """
    environ = os.environ if environ is None else environ
    if file is None and environ.get(FILE_VARIABLE):
        file = Path(environ[FILE_VARIABLE])
    document = Document(path=None) if file is None else read_document(file)
    streams = registry.names(registry.STREAMS)
    known = (*_SECTIONS, *streams, *_TABLES)
    unknown = [name for name in document.table if name not in known]
    if unknown:
        raise document.error([unknown[0]], f"unknown section{_suggestion(unknown[0], known)}")
    flags = overrides or {}
    tables = {name: flags.get(name) or _free_table(name, document) for name in _TABLES}
    config = Config(
        server=_section(ServerSettings, "server", document, environ, flags.get("server", {})),
        limits=_section(Limits, "limits", document, environ, flags.get("limits", {})),
        users=_section(UserSettings, "users", document, environ, flags.get("users", {})),
        streams={name: _section(StreamSettings, name, document, environ, flags.get(name, {})) for name in streams},
        roots={_virtual(key): _path(value, Path.cwd()) for key, value in tables["roots"].items()},
        access={_virtual(key): frozenset(value) for key, value in tables["access"].items()},
        writable={_virtual(key): frozenset(value) for key, value in tables["writable"].items()},
        media_types=dict(tables["media_types"]),
        file=file,
        overrides=flags,
    )
    _check_together(config, document)
    return config


def reload(config: Config) -> Config:
    """Put the same settings together again, from what file and environment say now.

    Raises
    ------
    ConfigError
        As from `load`.
    """
    return load(config.file, overrides=config.overrides)


def roots_of(paths: Sequence[str]) -> dict[str, Path]:
    """Names under which ``ndstream serve PATH…`` serves: its one directory at the root, else each by its name.

    ``NAME=PATH`` gives another name, unless a file or directory of that whole spelling exists.

    Raises
    ------
    ConfigError
        A path does not exist, a name cannot be one, or two are the same.
    """
    roots: dict[str, Path] = {}
    for text in paths:
        name, path = _named(text)
        if not path.exists():
            raise ConfigError(f"{path}: no such file or directory")
        if not name and (len(paths) > 1 or not path.is_dir()):
            name = path.resolve().name
        if "/" in name or name.startswith("."):
            raise ConfigError(f"{text}: {name!r} cannot be the name of a root; write NAME={path}")
        if name in roots:
            raise ConfigError(f"{text}: another root is called {name!r}; write NAME={path}")
        roots[name] = path
    return roots


def config_directory() -> Path:
    """Directory of the settings of this user; it need not exist."""
    return Path(platformdirs.user_config_dir("ndstream", appauthor=False))


CLIENT_FILE_VARIABLE = "NDSTREAM_CLIENT_CONFIG"


def client_settings(environ: Mapping[str, str] | None = None) -> ClientConfig:
    """Put the settings of the clients of this user together.

    They come from the file ``client.toml`` in `config_directory`, or the one that ``NDSTREAM_CLIENT_CONFIG`` names: the
    sections ``[client]`` and ``[limits]``, and a table ``[aliases.NAME]`` of `url`, `user` and `use_keyring` for each
    server with a short name. The environment wins; the password may be in ``NDSTREAM_PASSWORD``, and nowhere else.

    Raises
    ------
    ConfigError
        The file cannot be read, a setting is unknown or has a wrong value.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(CLIENT_FILE_VARIABLE)
    path = Path(named) if named else config_directory() / "client.toml"
    document = read_document(path) if named or path.exists() else Document(path=None)
    known = ("client", "limits", "aliases")
    for name in document.table:
        if name not in known:
            raise document.error([name], f"unknown section{_suggestion(name, known)}")
    settings = _section(ClientSettings, "client", document, _without(environ, CLIENT_FILE_VARIABLE), {})
    config = ClientConfig(
        passwords=PasswordSources(
            known=environ.get(PASSWORD_VARIABLE), token_file=settings.token_file, keyring=settings.keyring
        ),
        verify=str(settings.certificates) if settings.verify and settings.certificates else settings.verify,
        limits=_section(Limits, "limits", document, environ, {}),
    )
    aliases = document.table.get("aliases", {})
    if not isinstance(aliases, dict):
        raise document.error(["aliases"], "expected tables: write [aliases.NAME] and its settings below")
    for name, table in aliases.items():
        alias = _alias(name, table, document)
        try:
            config.add_alias(name, alias.url, alias.user, alias.use_keyring)
        except ConfigError as error:
            raise document.error(["aliases", name], str(error)) from error
    return config


def _alias(name: str, table: Any, document: Document) -> Alias:
    declared = [one.name for one in fields(Alias)]
    for key in table if isinstance(table, dict) else ():
        if key not in declared:
            raise document.error(["aliases", name, key], f"unknown setting{_suggestion(key, declared)}")
    try:
        return msgspec.convert(table, Alias)
    except msgspec.ValidationError as error:
        raise document.error(["aliases", name], str(error)) from error


def _without(environ: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in environ.items() if key != name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A TOML file that was read: its values, and its text to find lines in."""

    path: Path | None
    text: str = ""
    table: dict[str, Any] = field(default_factory=dict)

    def line(self, keys: Sequence[str]) -> int:
        """Line in which the value at `keys` is defined, counted from 1; of its nearest ancestor when it is not there.

        The shortest beginning of the text that is TOML and holds the value ends with the statement that defines it.
        """
        lines = self.text.split("\n")
        known = next((keys[:depth] for depth in range(len(keys), 0, -1) if _holds(self.table, keys[:depth])), None)
        if known is None:
            return 1
        low, high, end = 0, len(lines), len(lines)
        while low <= high:
            middle = (low + high) // 2
            number, table = next(
                (number, table) for number in range(middle, len(lines) + 1) if (table := _beginning(lines, number))
            )
            if _holds(table[0], known):
                end, high = number, middle - 1
            else:
                low = number + 1
        return next(number for number in range(end - 1, -1, -1) if _beginning(lines, number)) + 1

    def error(self, keys: Sequence[str], message: str) -> ConfigError:
        """Error that names this file, the line of `keys` and the keys."""
        name = ".".join(keys)
        return ConfigError(f"{self.path}:{self.line(keys)}: {name}: {message}" if self.path else f"{name}: {message}")


def read_document(path: Path) -> Document:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        It cannot be read, is longer than a MiB, or is not TOML; the message names file and line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"{path}: longer than {_LARGEST_FILE} bytes, this is no configuration file")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from error
    # tomllib takes CRLF as it is; a lone CR would shift the lines that are counted below.
    text = text.replace("\r\n", "\n")
    try:
        return Document(path=path, text=text, table=tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}:{_syntax_message(str(error), text)}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Documentation of one setting; `section` is empty for a table of free names."""

    section: str
    name: str
    type: str
    default: str
    meaning: str

    @property
    def variable(self) -> str:
        """Environment variable that sets it; empty for tables, which only a file can hold."""
        return f"NDSTREAM_{self.section}_{self.name}".upper() if self.section else ""


_TYPE_NAMES: dict[str, str] = {
    "str": "text",
    "int": "whole number",
    "int | None": "whole number",
    "bool": "true or false",
    "Bytes": "size",
    "Seconds": "seconds",
    "Path | None": "path",
    "tuple[str, ...]": "list of text",
}


def reference() -> Iterator[Setting]:
    """Document every setting of the server, in the order of the reference page."""
    for section, cls in _SECTIONS.items():
        yield from _documented(section, cls)
    for name in registry.names(registry.STREAMS):
        yield from _documented(name, StreamSettings)
    for name, meaning in _TABLES.items():
        yield Setting(section="", name=name, type="table", default="", meaning=meaning)


def client_reference() -> Iterator[Setting]:
    """Document the settings that only clients have, in the order of the reference page."""
    yield from _documented("client", ClientSettings)


def _documented(section: str, cls: type) -> Iterator[Setting]:
    meanings = _meanings(cls)
    for name, (annotation, default) in _declared(cls).items():
        yield Setting(
            section=section,
            name=name,
            type=_TYPE_NAMES.get(annotation) or "one of " + ", ".join(re.findall(r"\w+", annotation)[1:]),
            default=_spelling(default, annotation),
            meaning=meanings[name],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """Value of one setting as somebody gave it; `where` begins the message when it is wrong."""

    raw: Any
    base: Path
    error: Callable[[str], ConfigError]
    is_text: bool = False


def _section(
    cls: type[_Section], section: str, document: Document, environ: Mapping[str, str], flags: Mapping[str, Any]
) -> _Section:
    """Build one section from the file, the environment and the command line, the last one winning."""
    given = _from_file(cls, section, document)
    given |= _from_environment(cls, section, environ)
    for name, raw in flags.items():
        if raw is not None:
            given[name] = _Given(raw=raw, base=Path.cwd(), error=_prefixed(f"{section}.{name}"))
    hints = get_type_hints(cls)
    return cls(**{name: _value(cls, name, hints[name], one) for name, one in given.items()})


def _from_file(cls: type, section: str, document: Document) -> dict[str, _Given]:
    table = document.table.get(section, {})
    if not isinstance(table, dict):
        raise document.error([section], f"expected a table: write [{section}] and its settings below")
    declared = _declared(cls)
    base = document.path.parent if document.path else Path.cwd()
    found = {}
    for name, raw in table.items():
        if name not in declared:
            raise document.error([section, name], f"unknown setting{_suggestion(name, declared)}")
        found[name] = _Given(raw=raw, base=base, error=partial(document.error, [section, name]))
    return found


def _from_environment(cls: type, section: str, environ: Mapping[str, str]) -> dict[str, _Given]:
    prefix = f"NDSTREAM_{section}_".upper()
    declared = _declared(cls)
    found = {}
    for variable, text in environ.items():
        if not variable.startswith(prefix):
            continue
        name = variable[len(prefix) :].lower()
        if name not in declared:
            raise ConfigError(f"{variable}: unknown setting{_suggestion(name, declared)}")
        is_list = declared[name][0].startswith("tuple")
        raw = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
        found[name] = _Given(raw=raw, base=Path.cwd(), error=_prefixed(variable), is_text=True)
    return found


def _value(cls: type, name: str, hint: Any, given: _Given) -> Any:
    """Convert and check the value of one setting."""
    meaning = _meanings(cls)[name]
    raw = given.raw
    if _declared(cls)[name][0] == "Bytes" and isinstance(raw, str):
        raw = parse_size(raw)
        if raw is None:
            raise given.error(f'expected a size such as 65536 or "64 KiB", got {given.raw!r}; {meaning}')
    try:
        value = msgspec.convert(raw, hint, strict=not given.is_text, dec_hook=lambda _, text: _path(text, given.base))
    except msgspec.ValidationError as error:
        message = str(error).partition(" - at `$")[0]
        raise given.error(f"{message[:1].lower()}{message[1:]}; {meaning}") from error
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least = 0 if name in _ZERO_ALLOWED else sys.float_info.min
        most = 65535 if name == "port" else _LARGEST_NUMBER
        # NaN is in no range, so it is refused too.
        if not least <= value <= most:
            raise given.error(f"{value} is too {'large' if value > most else 'small'}; {meaning}")
    return value


def _prefixed(subject: str) -> Callable[[str], ConfigError]:
    return lambda message: ConfigError(f"{subject}: {message}")


def _free_table(name: str, document: Document) -> dict[str, Any]:
    """Read a table whose keys the user chooses."""
    table = document.table.get(name, {})
    if not isinstance(table, dict):
        raise document.error([name], f"expected a table: write [{name}] and below it {_TABLES[name]}")
    kind: Any = list[str] if name in ("access", "writable") else str
    for key, value in table.items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise document.error([name, key], f"{_TABLES[name]}, got {value!r}") from error
    if name == "media_types" or document.path is None:
        return table
    _check_paths(name, table, document)
    if name in ("access", "writable"):
        return table
    return {key: _root(key, value, document) for key, value in table.items()}


def _root(key: str, value: str, document: Document) -> Path:
    assert document.path is not None
    path = _path(value, document.path.parent)
    if "/" in _virtual(key):
        raise document.error(["roots", key], "the name of a root has no slash inside")
    if not path.exists():
        raise document.error(["roots", key], f"{path}: no such file or directory")
    return path


def _check_paths(name: str, table: Mapping[str, Any], document: Document) -> None:
    """Refuse virtual paths that could never be met, so that what they should protect is not left open."""
    seen: set[str] = set()
    for key in table:
        path = _virtual(key)
        if path and any(part.startswith(".") or not part for part in path.split("/")):
            raise document.error([name, key], "a virtual path has no empty names and none that begin with a dot")
        if path in seen:
            raise document.error([name, key], f"{path or '/'} is there twice")
        seen.add(path)


def _check_together(config: Config, document: Document) -> None:
    """Refuse settings that are right alone and wrong together."""
    if config.server.key is not None and config.server.certificate is None:
        raise document.error(["server", "key"], "a key needs a certificate: set server.certificate too")
    for name in ("trusted_proxies", "operators"):
        for text in getattr(config.server, name):
            try:
                ip_network(text, strict=False)
            except ValueError as error:
                message = f"expected addresses or networks such as 10.1.2.3 or 10.0.0.0/8, got {text!r}"
                raise document.error(["server", name], message) from error
    if config.limits.piece > config.limits.request_memory:
        raise document.error(["limits", "request_memory"], "must be at least limits.piece")
    if config.limits.request_memory > config.limits.buffers:
        raise document.error(["limits", "buffers"], "must be at least limits.request_memory")


_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    "KIB": KiB,
    "MIB": MiB,
    "GIB": GiB,
    "TIB": GiB << 10,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
}


def parse_size(text: str) -> Bytes | None:
    """Bytes that a size such as ``64 MiB``, ``1.5 GB`` or ``4096`` means; None when it is no size."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        return None
    number, unit = match[1], _UNITS[match[2].upper()]
    return int(float(number) * unit) if "." in number else int(number) * unit


def _declared(cls: Any) -> dict[str, tuple[str, Any]]:
    """Name to annotation, as written, and default, of the settings of a section."""
    annotations = cls.__annotations__
    infos: Sequence[Any] = msgspec.structs.fields(cls) if issubclass(cls, msgspec.Struct) else fields(cls)
    return {info.name: (annotations[info.name], info.default) for info in infos}


def _meanings(cls: type) -> dict[str, str]:
    """Name to documentation: the comment behind ``#:`` of each field."""
    found = re.findall(r"^    (\w+): .*?  #: (.*)$", inspect.getsource(cls), re.MULTILINE)
    return {name: meaning.replace("``", "`") for name, meaning in found}


def _spelling(default: Any, annotation: str) -> str:
    """Spell a default as the file would."""
    if default is None:
        return ""
    if annotation == "Bytes":
        unit, size = next((u, s) for u, s in (("GiB", GiB), ("MiB", MiB), ("KiB", KiB), ("B", 1)) if default % s == 0)
        return f'"{default // size} {unit}"'
    if isinstance(default, tuple):
        return "[" + ", ".join(f'"{item}"' for item in default) + "]"
    return msgspec.json.encode(default).decode()


def _suggestion(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _beginning(lines: Sequence[str], number: int) -> tuple[dict[str, Any]] | None:
    """Values that the first lines define; None when they end within a statement."""
    try:
        return (tomllib.loads("\n".join(lines[:number])),)
    except tomllib.TOMLDecodeError:
        return None


def _holds(table: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            return False
        table = table[key]
    return True


def _syntax_message(message: str, text: str) -> str:
    """Put the line, which tomllib tells at the end of its message, in front."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message)
    if match is not None:
        return f"{match[2]}: {match[1]}"
    return f"{text.count(chr(10)) + 1}: {message.removesuffix(' (at end of document)')}: the file ends too early"


def _virtual(key: str) -> str:
    return key.strip("/")


def _path(text: str | Path, base: Path) -> Path:
    return base / Path(text).expanduser()


def _named(text: str) -> tuple[str, Path]:
    """Split ``NAME=PATH``; a path that exists as it is spelled has no name in it."""
    name, equals, path = text.partition("=")
    if not equals or not name or "/" in name or Path(text).exists():
        return "", Path(text).expanduser()
    return name, Path(path).expanduser()
