"""Run a server: in this process until a signal ends it, or in a thread."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import uvicorn

from ndstream.config import Config
from ndstream.core.ports import Store
from ndstream.errors import NDStreamError, ServiceError
from ndstream.server.app import Application
from ndstream.server.connection import Connection, check_all
from ndstream.server.listen import bind, is_loopback, tls_context, url_of
from ndstream.server.socket import WebSocket
from ndstream.server.streams import Stream, open_streams
from ndstream.wire.buffers import keep_heap

log = logging.getLogger("ndstream.server")


def serve(config: Config, on_ready: Callable[[str, Mapping[str, str]], object] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests end (``server.drain`` seconds) and return.

    A second signal does not wait. Messages go to the standard error stream.

    Parameters
    ----------
    config : Config
        What to serve, how.
    on_ready : callable, optional
        Called as soon as requests are answered, with the URL, and the addresses of protocols on ports of their own.

    Raises
    ------
    ConfigError
        A setting is wrong, or the port is taken.
    """
    keep_heap()
    _log_to_stderr(config.server.log_level, access=config.server.access_log)
    server = Server(config)
    streams = {stream.name: stream.url for stream in server.streams}
    server.run(None if on_ready is None else lambda url: on_ready(url, streams))


class Server:
    """A server that listens from the moment it is made, and answers while it runs.

    Use it as a context manager to run it in a thread, or call `run`.

    Parameters
    ----------
    config : Config
        What to serve, how.
    store : Store, optional
        In place of the one that `config` names.

    Attributes
    ----------
    app : Application
    port : int
    url : str
    streams : list of Stream
        Protocols on TCP ports of their own.

    Raises
    ------
    ConfigError
        A setting is wrong, or the port is taken.
    """

    def __init__(self, config: Config, *, store: Store | None = None) -> None:
        settings = config.server
        tls_context(settings)  # uvicorn loads the certificate later, and would not say what is wrong with it
        self._sockets = bind(settings.host, settings.port, settings.backlog)
        try:
            self.app = Application(config, store=store)
            self.streams = open_streams(config, self.app.service, self.app.authenticator)
            self.app.checks += [stream.check for stream in self.streams]
        except BaseException:
            _close(self._sockets)
            raise
        self.port: int = self._sockets[0].getsockname()[1]
        self.url = url_of(settings.host, self.port, tls=settings.certificate is not None)
        self._uvicorn = _Uvicorn(self.app, config, self.streams)
        self._thread: threading.Thread | None = None
        self._failure: NDStreamError | OSError | None = None
        _warn(config, self._sockets)

    def run(self, on_ready: Callable[[str], object] | None = None) -> None:
        """Answer requests until `stop` or, in the main thread, a signal.

        Raises
        ------
        ServiceError
            The store does not start, or somebody else writes a file that is served for writing.
        ConfigError
            The file of a protocol over TCP cannot be read.
        """
        self._uvicorn.on_ready = (lambda: on_ready(self.url)) if on_ready is not None else None
        try:
            self._uvicorn.run(sockets=self._sockets)
        except SystemExit as error:
            # uvicorn's way to say so.
            raise self.app.failure or ServiceError("the server did not start; the log says why") from error
        finally:
            _close(self._sockets)
            for stream in self.streams:
                stream.close()

    def stop(self) -> None:
        """Stop soon; may be called from any thread."""
        self._uvicorn.should_exit = True

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run_in_thread, args=(ready,), name="ndstream-server")
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _run_in_thread(self, ready: threading.Event) -> None:
        try:
            self.run(lambda _: ready.set())
        except (NDStreamError, OSError) as error:
            self._failure = error
        finally:
            ready.set()


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it is ready, looks after its connections, and survives the signal that stops it."""

    def __init__(self, app: Application, settings: Config, streams: list[Stream]) -> None:
        super().__init__(_uvicorn_config(settings, app))
        self._app = app
        self._streams = streams
        self.on_ready: Callable[[], object] | None = None
        limits = settings.limits
        self._interval = max(0.05, min(1.0, limits.idle_timeout / 4, limits.send_timeout / 4))
        self._settings = settings.server

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for stream in self._streams:
            await stream.start()
        self._look()
        if self.on_ready is not None:
            self.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.tasks:
            log.info("stopping: %d requests get %.0f s to end", len(self.server_state.tasks), self._settings.drain)
        self._app.stop()
        drain = 0.0 if self.force_exit else self._settings.drain
        await asyncio.gather(super().shutdown(sockets), *(stream.stop(drain) for stream in self._streams))
        # Told to hurry, uvicorn leaves this out; worker processes must not stay behind.
        await self._app.aclose()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        check_all(self.server_state.connections, loop.time())
        for stream in self._streams:
            stream.app.check(loop.time())
        loop.call_later(self._interval, self._look)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal, at once at the second.

        uvicorn would raise the signal again when all is done, which makes an orderly end look like a crash.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: object) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _uvicorn_config(config: Config, app: Application) -> uvicorn.Config:
    settings = config.server
    return uvicorn.Config(
        app,
        http=Connection.with_limits(config.limits),
        loop="uvloop",
        ws=WebSocket,
        ws_max_size=config.limits.socket_message,
        ws_ping_interval=config.limits.idle_timeout / 2,
        ws_ping_timeout=config.limits.idle_timeout / 2,
        ws_per_message_deflate=False,
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=settings.backlog,
        timeout_keep_alive=math.ceil(config.limits.idle_timeout),
        timeout_graceful_shutdown=math.ceil(settings.drain),
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )


def _warn(config: Config, sockets: list[socket.socket]) -> None:
    """Say what is allowed, and seldom meant."""
    if not is_loopback(sockets) and not config.users_file.exists():
        log.warning("other machines can reach this server, and there are no users: what is served is public")
    if not is_loopback(sockets) and config.server.certificate is None and config.users_file.exists():
        log.warning("passwords travel unencrypted: set server.certificate, or put a proxy with TLS in front")
    for path in config.access:
        name, _, rest = path.partition("/")
        served = [config.roots[root] / below for root, below in ((name, rest), ("", path)) if root in config.roots]
        if path and not any(place.exists() for place in served):
            log.warning("access: nothing is served as %r, so this rule protects nothing", path)


def _close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _log_to_stderr(level: str, *, access: bool) -> None:
    """Configure logging of this process, which is the server's own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("ndstream", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("ndstream").setLevel(level.upper())
    logging.getLogger("ndstream.access").setLevel(logging.INFO if access else logging.WARNING)
    # uvicorn tells every start, stop and malformed request; its warnings are enough.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
