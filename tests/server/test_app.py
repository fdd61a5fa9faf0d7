from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndstream.config import load
from ndstream.core import registry
from ndstream.core.ports import Receive, Scope, Send
from ndstream.errors import ConfigError, InvalidRequest
from ndstream.server.app import Application
from ndstream.stores.memory import Group, MemoryStore

from .conftest import Scripted, Start, answer, ask, ok, write_users


async def tell_paths(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, f"{scope['root_path']} {scope['path']} {scope['ndstream.access'].user}".encode())


def test_a_protocol_answers_what_is_below_its_prefix(start: Start) -> None:
    server = start(tell_paths)
    assert ask(server, "/scripted/a/b?x=1").body == b"/scripted /scripted/a/b None"
    assert ask(server, "/scripted").body == b"/scripted /scripted None"


@pytest.mark.parametrize("path", ["/nothing", "/scriptedly/a", "//scripted/a", "/SCRIPTED/a", "/a/scripted"])
def test_what_nobody_serves_is_not_found(start: Start, path: str) -> None:
    found = ask(start(tell_paths), path)
    assert (found.status, found.body) == (404, b"404: not found\n")


def test_the_health_page_says_ok(start: Start) -> None:
    assert ask(start(), "/healthz").body == b"ok\n"


def test_the_health_page_says_what_is_wrong(start: Start) -> None:
    class Ill(MemoryStore):
        def problem(self) -> str | None:
            return "no worker is alive"

    server = start(store=Ill({}))
    answered = ask(server, "/healthz")
    assert (answered.status, answered.body) == (503, b"no worker is alive\n")
    assert json.loads(ask(server, "/status").body)["server"]["health"] == "no worker is alive"


def test_pages_answer_get_and_head_only(start: Start) -> None:
    server = start()
    assert ask(server, "/healthz", method="HEAD").body == b""
    refused = ask(server, "/healthz", method="POST", body=b"x")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


def test_the_welcome_page_names_what_is_served_and_how_to_read_it(start: Start) -> None:
    server = start(store=MemoryStore({"run<1>": {"scan.h5": Group()}}))
    text = ask(server, "/")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert "run<1>/" in text.body.decode()
    assert f'ndstream.open("{server.url}")' in text.body.decode()
    page = ask(server, "/", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "run&lt;1&gt;/" in page.body.decode()
    assert "run<1>" not in page.body.decode()


def test_the_welcome_page_repeats_no_markup_from_the_host_header(start: Start) -> None:
    page = ask(start(), "/", headers={"Accept": "text/html", "Host": 'x"><script>'})
    assert b"<script>" not in page.body


def test_the_welcome_page_shows_each_user_what_they_may_see(start: Start, tmp_path: Path) -> None:
    write_users(tmp_path / "users", alice=("secret", "staff"))
    server = start(store=MemoryStore({"open": {}, "closed": {"a.h5": Group()}}), access={"closed": ["staff"]})
    assert b"closed" not in ask(server, "/").body
    assert b"closed/" in ask(server, "/", headers={"Authorization": "Basic YWxpY2U6c2VjcmV0"}).body


def test_the_welcome_page_is_there_when_the_root_is_hidden(start: Start) -> None:
    assert b"Nothing that you can see" in ask(start(access={"": ["staff"]}), "/").body


def test_the_status_is_json_or_a_page(start: Start) -> None:
    server = start()
    ask(server, "/scripted/x")
    status = json.loads(ask(server, "/status").body)
    assert status["server"]["health"] == "ok"
    assert status["requests"]["scripted"]["by_status"] == {"200": 1}
    assert b"<h2>requests</h2>" in ask(server, "/status", headers={"Accept": "text/html"}).body


def test_the_status_is_where_hdfstream_servers_have_it(start: Start) -> None:
    assert ask(start(), "/scripted/status").headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/status", "/metrics", "/scripted/status"])
def test_strangers_find_no_status_and_no_metrics(start: Start, path: str) -> None:
    server = start(server={"operators": ("10.0.0.0/8",)})
    assert ask(server, path).status == 404


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_who_comes_through_a_proxy_on_this_machine_is_a_stranger(start: Start, header: str) -> None:
    server = start()
    assert ask(server, "/status", headers={header: "127.0.0.1"}).status == 404
    assert ask(server, "/status").status == 200


def test_a_trusted_proxy_tells_who_is_asking(start: Start) -> None:
    server = start(server={"trusted_proxies": ("127.0.0.1",)})
    assert ask(server, "/status", headers={"X-Forwarded-For": "192.0.2.1"}).status == 404
    assert ask(server, "/status", headers={"X-Forwarded-For": "127.0.0.1"}).status == 200


def test_reload_takes_new_rules_and_tells_what_needs_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("[access]\n", encoding="utf-8")
    users = {"file": tmp_path / "users"}
    undo = registry.register(registry.PROTOCOLS, "scripted", Scripted(ok))
    try:
        app = Application(
            load(path, overrides={"users": users, "server": {"protocols": ("scripted",)}}), store=MemoryStore({})
        )
    finally:
        undo()
    assert app.authenticator.anonymous("::1").sees("closed")
    path.write_text("[access]\nclosed = ['staff']\n[limits]\nrequests_per_user = 1\n", encoding="utf-8")
    assert app.reload().endswith("only with a restart: limits")
    assert not app.authenticator.anonymous("::1").sees("closed/a")
    assert app.turns.most == 1


def test_a_wrong_configuration_is_not_taken_and_told(tmp_path: Path, start: Start) -> None:
    server = start()
    server.app._config = load(overrides={"users": {"file": tmp_path / "users"}}, environ={})
    (tmp_path / "users").write_text("nonsense", encoding="utf-8")
    (tmp_path / "users").chmod(0o600)
    notice = json.loads(ask(server, "/status?reload=1").body)["server"]["notice"]
    assert notice.startswith("configuration not read again: ")
    assert "expected name:hash:roles" in notice


def test_metrics_are_those_that_prometheus_reads(start: Start) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    server = start()
    server.app.counters.add("read_bytes", 4096, "gzip")
    ask(server, "/scripted/x")
    ask(server, "/nothing")
    answered = ask(server, "/metrics")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answered.body.decode())
        for sample in family.samples
    }
    assert samples["ndstream_http_requests_total", (("protocol", "scripted"), ("status", "200"))] == 1
    assert samples["ndstream_http_requests_total", (("protocol", "pages"), ("status", "404"))] == 1
    assert samples["ndstream_http_sent_bytes_total", (("protocol", "scripted"),)] == 2
    assert samples["ndstream_http_request_seconds_count", (("protocol", "scripted"),)] == 1
    assert samples["ndstream_http_request_seconds_bucket", (("le", "+Inf"), ("protocol", "scripted"))] == 1
    assert samples["ndstream_read_bytes_total", (("of", "gzip"),)] == 4096
    assert samples["process_open_fds", ()] > 0


def test_two_protocols_with_one_prefix_are_refused(tmp_path: Path) -> None:
    undo = [registry.register(registry.PROTOCOLS, name, Scripted(ok, name)) for name in ("one", "two")]
    config = load(overrides={"server": {"protocols": ("one", "two")}, "users": {"file": tmp_path / "u"}}, environ={})
    try:
        with pytest.raises(ConfigError, match="protocol two"):
            Application(config, store=MemoryStore({}))
    finally:
        for one in undo:
            one()


def test_an_unknown_protocol_or_store_is_refused(tmp_path: Path) -> None:
    users = {"file": tmp_path / "users"}
    with pytest.raises(InvalidRequest, match="no protocol is called 'ftp'"):
        Application(load(overrides={"server": {"protocols": ("ftp",)}, "users": users}), store=MemoryStore({}))
    with pytest.raises(InvalidRequest, match="no store is called 'tape'"):
        Application(load(overrides={"server": {"store": "tape"}, "users": users}))
