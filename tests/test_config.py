from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndstream.client.credentials import PASSWORD_VARIABLE
from ndstream.client.settings import Alias
from ndstream.config import (
    CLIENT_FILE_VARIABLE,
    Config,
    Document,
    Setting,
    StreamSettings,
    client_reference,
    client_settings,
    load,
    parse_size,
    reference,
    reload,
    roots_of,
)
from ndstream.core.limits import DEFAULT_LIMITS, Limits, MiB
from ndstream.errors import ConfigError

REFERENCE = Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"
CLIENT_REFERENCE = REFERENCE.with_name("client.md")


def written(directory: Path, text: str) -> Path:
    path = directory / "ndstream.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ)
    return str(caught.value).replace(str(path), "FILE")


def test_without_anything_the_server_is_on_loopback_and_has_the_default_limits() -> None:
    config = load(environ={})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.limits == DEFAULT_LIMITS
    assert config.roots == {}


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nport = 1\nhost = 'a'\nlog_level = 'error'\n")
    environ = {"NDSTREAM_SERVER_PORT": "2", "NDSTREAM_SERVER_HOST": "b"}
    server = load(path, overrides={"server": {"port": 3, "host": None}}, environ=environ).server
    assert (server.port, server.host, server.log_level) == (3, "b", "error")


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nport = 1\n")
    assert load(environ={"NDSTREAM_CONFIG": str(path)}).server.port == 1


def test_sizes_have_units_in_the_file_and_in_the_environment(tmp_path: Path) -> None:
    path = written(tmp_path, '[limits]\nrequest_body = "64 MiB"\nchunk = 1024\n')
    limits = load(path, environ={"NDSTREAM_LIMITS_DOCUMENT": "1.5MiB"}).limits
    assert (limits.request_body, limits.chunk, limits.document) == (64 * MiB, 1024, 3 * MiB // 2)


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    assert load(environ={"NDSTREAM_SERVER_OPERATORS": "10.0.0.0/8, ::1"}).server.operators == ("10.0.0.0/8", "::1")


def test_paths_in_a_file_start_from_its_directory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    config = load(written(tmp_path, "[roots]\n'/' = 'data'\n[users]\nfile = 'users'\n"), environ={})
    assert config.roots == {"": tmp_path / "data"}
    assert config.users_file == tmp_path / "users"


def test_virtual_directories_are_spelled_with_or_without_slashes(tmp_path: Path) -> None:
    config = load(written(tmp_path, "[access]\n'/eagle/private/' = ['staff', 'eagle']\n'/' = []\n"), environ={})
    assert config.access == {"eagle/private": frozenset({"staff", "eagle"}), "": frozenset()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\n\nprot = 1", "FILE:3: server.prot: unknown setting; did you mean port?"),
        ("# a comment\n[sever]\nport = 1", "FILE:2: sever: unknown section; did you mean server?"),
        ("server = 1", "FILE:1: server: expected a table"),
        ("[server]\nport = '80'", "FILE:2: server.port: expected `int`, got `str`; TCP port"),
        ("[server]\nport = 65536", "FILE:2: server.port: 65536 is too large; TCP port"),
        ("server.port = -1", "FILE:1: server.port: -1 is too small"),
        ("[server]\nlog_level = 'loud'", "FILE:2: server.log_level: invalid enum value 'loud'"),
        ("[server]\noperators = [\n '::1',\n 'x']", "FILE:2: server.operators: expected addresses or networks"),
        ("[server]\nkey = 'k'", "FILE:2: server.key: a key needs a certificate"),
        ("[limits]\n\n\nchunk = '3 parsecs'", 'FILE:4: limits.chunk: expected a size such as 65536 or "64 KiB"'),
        ("[limits]\nworkers = '1 KiB'", "FILE:2: limits.workers: expected `int`"),
        ("[limits]\nsend_timeout = nan", "FILE:2: limits.send_timeout: nan is too"),
        ("[limits]\nidle_timeout = 0", "FILE:2: limits.idle_timeout: 0"),
        ("[limits]\npiece = true", "FILE:2: limits.piece: expected `int`, got `bool`"),
        ("[limits]\npiece = '1 GiB'", "FILE:1: limits.request_memory: must be at least limits.piece"),
        ("[roots]\na = 'nowhere'", "FILE:2: roots.a: "),
        ("[roots]\n'a/b' = '.'", "FILE:2: roots.a/b: the name of a root has no slash inside"),
        ("[roots]\na = 1", "FILE:2: roots.a: name = directory or file"),
        ("[access]\na = 'role'", "FILE:2: access.a: virtual directory = list of roles"),
        ("[access]\n'a//b' = []", "FILE:2: access.a//b: a virtual path has no empty names"),
        ("[access]\na = []\n'/a' = ['x']", "FILE:3: access./a: a is there twice"),
        ("[media_types]\n'*.x' = []", "FILE:2: media_types.*.x: pattern of file names"),
        ("[server]\nport = = 1", "FILE:2: "),
        ("[server]\nport = [", "FILE:2: "),
        ("[a]\n[a]\n", "FILE:2: "),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(written(tmp_path, text)).startswith(message)


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^NDSTREAM_SERVER_PORT: expected `int`"):
        load(environ={"NDSTREAM_SERVER_PORT": "http"})
    with pytest.raises(ConfigError, match=r"^NDSTREAM_LIMITS_PEACE: unknown setting; did you mean piece"):
        load(environ={"NDSTREAM_LIMITS_PEACE": "1"})


def test_a_wrong_option_is_named_as_a_setting() -> None:
    with pytest.raises(ConfigError, match=r"^server\.log_level: invalid enum value"):
        load(overrides={"server": {"log_level": "loud"}}, environ={})


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("No such file or directory")
    assert refusal(tmp_path).endswith("Is a directory")
    latin = tmp_path / "latin"
    latin.write_bytes(b"[server]\n# caf\xe9\n")
    assert refusal(latin) == "FILE:2: not UTF-8"
    huge = tmp_path / "huge"
    huge.write_bytes(b"#" * (MiB + 1))
    assert "this is no configuration file" in refusal(huge)


@given(
    st.lists(
        st.sampled_from(
            ["", "# [x] y = 1", 'text = """\n[a]\nb = 1\n"""', "list = [\n 1,\n 2,\n]", "k = { b = 1 }", "m.n = '\\n'"]
        ),
        unique=True,
    )
)
def test_the_line_is_found_whatever_stands_before(statements: list[str]) -> None:
    text = "\n".join(["[zero]", *statements, "[a]", "", "b = 2"])
    expected = text.count("\n") + 1
    document = Document(path=Path("x"), text=text, table=tomllib.loads(text))
    assert document.line(["a", "b"]) == expected
    assert document.line(["a", "missing"]) == expected - 2
    assert document.line(["nothing"]) == 1


def test_lines_that_end_as_on_windows_are_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "crlf.toml"
    path.write_bytes(b"[server]\r\n\r\nport = 'x'\r\n")
    assert refusal(path).startswith("FILE:3: server.port")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("17", 17), ("1KiB", 1024), (" 2 kib ", 2048), ("1.5 MB", 1_500_000), ("3 TB", 3 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 XB", "1e3", "0x10", "1 Mi B", "nan", "9" * 30])
def test_what_is_no_size(text: str) -> None:
    assert parse_size(text) is None


def test_one_directory_is_the_root_and_more_have_names(tmp_path: Path) -> None:
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "scan.h5"
    first.mkdir()
    second.mkdir()
    file.touch()
    assert roots_of([str(first)]) == {"": first}
    assert roots_of([str(file)]) == {"scan.h5": file}
    assert roots_of([str(first), str(second)]) == {"first": first, "second": second}
    assert roots_of([f"one={first}"]) == {"one": first}
    with pytest.raises(ConfigError, match="another root is called 'first'"):
        roots_of([str(first), str(first)])
    with pytest.raises(ConfigError, match="no such file"):
        roots_of([str(tmp_path / "none")])


def test_a_path_with_an_equals_sign_that_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert roots_of(["a=b"]) == {"": Path("a=b")}
    assert roots_of(["."]) == {"": Path()}


def test_reading_again_keeps_what_the_command_line_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "[access]\na = ['x']\n")
    config = load(path, overrides={"server": {"port": 0}})
    written(tmp_path, "[server]\nport = 9\n[access]\na = ['y']\n")
    again = reload(config)
    assert again.server.port == 0
    assert again.access == {"a": frozenset({"y"})}


def test_every_limit_says_what_it_means() -> None:
    documented = {setting.name: setting.meaning for setting in reference() if setting.section == "limits"}
    assert list(documented) == [field.name for field in fields(Limits)]
    assert all(documented.values())


def test_every_default_in_the_reference_is_the_default(tmp_path: Path) -> None:
    lines: dict[str, list[str]] = {}
    for setting in reference():
        if setting.section and setting.default:
            lines.setdefault(setting.section, []).append(f"{setting.name} = {setting.default}")
    text = "".join(f"[{section}]\n" + "\n".join(settings) + "\n" for section, settings in lines.items())
    config, default = load(written(tmp_path, text), environ={}), Config()
    assert (config.server, config.limits, config.users) == (default.server, default.limits, default.users)
    assert config.streams == {"rpc": StreamSettings()}


def test_the_reference_page_has_every_setting_with_type_default_and_meaning() -> None:
    assert rows_of(REFERENCE) == [documented(setting) for setting in reference() if setting.section]
    page = REFERENCE.read_text(encoding="utf-8")
    for setting in reference():
        if not setting.section:
            assert f"`[{setting.name}]`" in page


def test_the_reference_page_of_clients_has_every_setting_of_theirs() -> None:
    aliases = {field.name for field in fields(Alias)}
    rows = rows_of(CLIENT_REFERENCE)
    assert [cells for cells in rows if cells[0] not in aliases] == list(map(documented, client_reference()))
    assert {cells[0] for cells in rows} >= aliases
    limits = {setting.name: setting for setting in reference() if setting.section == "limits"}
    for name, default, meaning in rows_of(CLIENT_REFERENCE, columns=3):
        assert (default, meaning) == (f"`{limits[name].default}`", limits[name].meaning)
    page = CLIENT_REFERENCE.read_text(encoding="utf-8")
    assert {CLIENT_FILE_VARIABLE, PASSWORD_VARIABLE} <= set(re.findall(r"`(NDSTREAM_\w+)`", page))


def test_the_examples_of_client_settings_are_right(tmp_path: Path) -> None:
    blocks = [
        block
        for page in (CLIENT_REFERENCE, CLIENT_REFERENCE.parents[1] / "how-to" / "log-in.md")
        for block in re.findall(r"^```toml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]
    assert len(blocks) > 3
    for block in blocks:
        client_settings({CLIENT_FILE_VARIABLE: str(written(tmp_path, block))})


def rows_of(page: Path, columns: int = 4) -> list[tuple[str, ...]]:
    """Rows of the tables of settings with so many columns."""
    cells = (line.strip("|").split(" | ") for line in page.read_text(encoding="utf-8").splitlines())
    rows = [tuple(cell.strip() for cell in row) for row in cells if len(row) == columns]
    return [(name.strip("`"), *rest) for name, *rest in rows if name.startswith("`")]


def documented(setting: Setting) -> tuple[str, ...]:
    return (setting.name, setting.type, f"`{setting.default}`" if setting.default else "", setting.meaning)
