"""The application: every protocol under its prefix, and the pages of the server itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version
from urllib.parse import parse_qs

from ndstream.config import Config, reload
from ndstream.core import registry
from ndstream.core.counters import Counters
from ndstream.core.model import Directory
from ndstream.core.ports import (
    Access,
    ASGIApp,
    FailureForm,
    HealthCheck,
    Holding,
    ProtocolPlugin,
    Receive,
    Scope,
    SelfDescribing,
    Send,
    Service,
    Sockets,
    Starting,
    Store,
    StoreFactory,
    Writing,
)
from ndstream.errors import ConfigError, FileInUse, NDStreamError, NotFound, ServiceError
from ndstream.server.answer import JSON, TEXT, Answer
from ndstream.server.auth import Authenticated, Authenticator
from ndstream.server.limit import Limited, Turns
from ndstream.server.meter import Meter
from ndstream.server.operators import NOT_FOUND, OperatorsOnly
from ndstream.server.socket import Handshake
from ndstream.server.status import Status, render
from ndstream.server.users import UserFile
from ndstream.server.watch import Watch, plain_failure
from ndstream.server.welcome import Welcome, url_of, wants_html

PageMaker = Callable[[Scope], Awaitable[Answer]]

_PAGES = "pages"
"""Name under which the pages of the server itself are counted."""

log = logging.getLogger("ndstream.server")


class Application:
    """ASGI application of a server.

    Parameters
    ----------
    config : Config
        What to serve, how.
    store : Store, optional
        In place of the one that `config` names; it is closed with the application.

    Raises
    ------
    ConfigError
        A root, the file of users, a store or a protocol that `config` names is wrong.
    MissingExtra
        A store or protocol needs a module that is not installed.

    Attributes
    ----------
    checks : list of async function
        Called when the store has started; the server does not start when one raises.
    failure : Exception or None
        Why the server did not start.
    """

    def __init__(self, config: Config, *, store: Store | None = None) -> None:
        self._config = config
        self._version = version("ndstream")
        self.counters = Counters()
        self.turns = Turns(config.limits.requests_per_user)
        self.authenticator = Authenticator(UserFile(config.users_file), config.access, config.writable)
        self.store = store if store is not None else _open_store(config, self.counters)
        self.service = Service(store=self.store, limits=config.limits, counters=self.counters)
        self._plugins = _plugins(config)
        self._meters: dict[str, Meter] = {}
        self._protocols, self._sockets = self._build_protocols()
        self._pages = self._build_pages()
        self._unknown = self._watched(_not_found, _PAGES)
        self._no_socket = Handshake(self._unknown)
        self.checks: list[Callable[[], Awaitable[None]]] = [self._check_files]
        self.failure: NDStreamError | OSError | None = None
        self._closed = False
        self._stopping = asyncio.Event()
        self._status = Status(self._version, self._meters.values(), self.counters, lambda: self.turns.waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or start and stop with the server (`lifespan`)."""
        scope["ndstream.stopping"] = self._stopping
        if scope["type"] == "http":
            app = self._pages.get(scope["path"]) or _below(self._protocols, scope) or self._unknown
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            app = _below(self._sockets, scope) or self._no_socket
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            raise ValueError(f"no {scope['type']} here")

    def stop(self) -> None:
        """End what has no end of its own, such as the following of files."""
        self._stopping.set()

    async def aclose(self) -> None:
        """Close the store and end the threads; safe to call more than once."""
        if self._closed:
            return
        self._closed = True
        self.authenticator.close()
        await self.store.aclose()

    def reload(self) -> str:
        """Read configuration and users again.

        Users, roles and the limit of requests count from now on; what a store or a listening socket was built with
        stays.

        Returns
        -------
        str
            What was done, and which changed settings wait for a restart.

        Raises
        ------
        ConfigError
            They are wrong; everything stays as it was.
        """
        config = reload(self._config)
        self.authenticator.reload(UserFile(config.users_file), config.access, config.writable)
        self.turns.most = config.limits.requests_per_user
        later = [
            name for name in ("server", "limits", "roots", "media_types", "streams") if self._differs(config, name)
        ]
        if bool(config.writable) != bool(self._config.writable):
            later.append("writable")
        self._config = config
        log.info("configuration read again")
        return "configuration read again" + (f"; changed, but only with a restart: {', '.join(later)}" if later else "")

    def _differs(self, config: Config, section: str) -> bool:
        return bool(getattr(config, section) != getattr(self._config, section))

    def _build_protocols(self) -> tuple[dict[str, ASGIApp], dict[str, ASGIApp]]:
        """Applications of the protocols by prefix, for requests and for sockets, each with everything around it."""
        apps: dict[str, ASGIApp] = {}
        sockets: dict[str, ASGIApp] = {}
        for plugin in self._plugins:
            if not plugin.prefix.startswith("/") or "/" in plugin.prefix[1:] or plugin.prefix in apps:
                raise ConfigError(
                    f"protocol {plugin.name}: its prefix {plugin.prefix!r} is not one path segment or taken"
                )
            apps[plugin.prefix] = self._guarded(plugin, plugin.app(self.service))
            if isinstance(plugin, Sockets):
                sockets[plugin.prefix] = Handshake(self._guarded(plugin, plugin.sockets(self.service)))
        return apps, sockets

    def _guarded(self, plugin: ProtocolPlugin, app: ASGIApp) -> ASGIApp:
        failure = plugin.failure if isinstance(plugin, FailureForm) else plain_failure
        limited = Authenticated(Limited(app, self.turns), self.authenticator)
        return self._watched(limited, plugin.name, failure)

    def _build_pages(self) -> dict[str, ASGIApp]:
        server = self._config.server

        def for_operators(make: PageMaker) -> ASGIApp:
            only = OperatorsOnly(_page(make), server.operators, behind_proxy=bool(server.trusted_proxies))
            return self._watched(only, _PAGES)

        status = for_operators(self._show_status)
        welcome = Authenticated(_page(self._show_welcome), self.authenticator)
        pages = {
            "/": self._watched(welcome, _PAGES),
            "/healthz": self._watched(_page(self._show_health), _PAGES),
            "/metrics": for_operators(self._show_metrics),
            "/status": status,
        }
        for plugin in self._plugins:
            if isinstance(plugin, SelfDescribing):
                pages["/openapi.json"] = self._watched(_page(partial(_show_openapi, plugin)), _PAGES)
                break
        # Where the original hdfstream server has it (specs: hdfstream section 2.3).
        return pages | {f"{plugin.prefix}/status": status for plugin in self._plugins}

    def _watched(
        self, app: ASGIApp, name: str, failure: Callable[[int, str], tuple[str, bytes]] = plain_failure
    ) -> ASGIApp:
        return Watch(app, self._meters.setdefault(name, Meter(name)), failure)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._start()
                except (NDStreamError, OSError) as error:
                    self.failure = error
                    await self.aclose()
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        if isinstance(self.store, Starting):
            try:
                await self.store.start()
            except (NDStreamError, OSError) as error:
                raise ServiceError(f"the store does not start: {error}") from error
        for check in self.checks:
            await check()

    async def _check_files(self) -> None:
        """Refuse to start when a file that is served for writing is written by somebody else.

        Whatever else is wrong with it, who asks for it is told.

        Raises
        ------
        FileInUse
        """
        everybody = Access(writable=frozenset(self._config.writable))
        for root, place in self._config.roots.items():
            if isinstance(self.store, Holding) and everybody.writes(root) and place.is_file():
                try:
                    await self.store.hold(root, everybody)
                except FileInUse:
                    raise
                except NDStreamError as error:
                    log.warning("%s cannot be written: %s", root, error)
                else:
                    await self.store.release(root, everybody)

    def _problem(self) -> str | None:
        return self.store.problem() if isinstance(self.store, HealthCheck) else None

    async def _show_health(self, scope: Scope) -> Answer:
        problem = self._problem()
        return Answer(503 if problem else 200, TEXT, f"{problem or 'ok'}\n".encode())

    async def _show_metrics(self, scope: Scope) -> Answer:
        # Here, because a server should be ready in a second, and who asks for metrics has another.
        from ndstream.server.metrics import MEDIA_TYPE, Exposition

        exposition = Exposition(self._meters.values(), self.counters, self.turns.waiting)
        return Answer(200, MEDIA_TYPE, exposition.render())

    async def _show_status(self, scope: Scope) -> Answer:
        notice = ""
        if parse_qs(scope["query_string"].decode("latin-1")).get("reload") == ["1"]:
            try:
                notice = self.reload()
            except ConfigError as error:
                notice = f"configuration not read again: {error}"
                log.error("%s", notice)
        return render(self._status.document(self._config, self._problem(), notice), html=wants_html(scope))

    async def _show_welcome(self, scope: Scope) -> Answer:
        access: Access = scope["ndstream.access"]
        try:
            root = await self.store.lookup("", access, depth=1)
        except NotFound:
            root = None
        directory = root if isinstance(root, Directory) else None
        welcome = Welcome(version=self._version, url=url_of(scope), root=directory, protocols=self._plugins)
        return welcome.answer(html=wants_html(scope))


def _below(apps: Mapping[str, ASGIApp], scope: Scope) -> ASGIApp | None:
    """Find the application of the prefix that the path begins with; it sees the rest of the path."""
    path: str = scope["path"]
    end = path.find("/", 1)
    prefix = path if end < 0 else path[:end]
    app = apps.get(prefix)
    if app is not None:
        scope["root_path"] = scope.get("root_path", "") + prefix
    return app


def _open_store(config: Config, counters: Counters) -> Store:
    factory: StoreFactory = registry.load(registry.STORES, config.server.store)
    return factory(
        config.roots,
        limits=config.limits,
        counters=counters,
        media_types=config.media_types,
        writing=Writing() if config.writable else None,
    )


def _plugins(config: Config) -> list[ProtocolPlugin]:
    names = config.server.protocols or registry.names(registry.PROTOCOLS)
    return [registry.load(registry.PROTOCOLS, name) for name in names]


def _page(make: PageMaker) -> ASGIApp:
    """Application that answers GET and HEAD with what `make` gives."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await (await make(scope)).send(send)
        else:
            await Answer(405, TEXT, b"405: method not allowed\n", ((b"allow", b"GET, HEAD"),)).send(send)

    return page


async def _show_openapi(plugin: SelfDescribing, scope: Scope) -> Answer:
    return Answer(200, JSON, plugin.openapi())


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await NOT_FOUND.send(send)
