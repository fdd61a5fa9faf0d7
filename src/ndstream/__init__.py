"""ndstream: n-dimensional arrays between machines, at rest in HDF5 files and in flight.

``ndstream.open(url)`` reads remote files as h5py reads local ones. All names load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndstream.client.datasets import RemoteDataset
    from ndstream.client.directories import RemoteDirectory
    from ndstream.client.empty import Empty
    from ndstream.client.files import RemoteFile
    from ndstream.client.groups import RemoteGroup
    from ndstream.client.links import ExternalLink, HardLink, SoftLink
    from ndstream.client.local import LocalOrRemoteFile
    from ndstream.client.progress import disable_progress, set_progress_delay
    from ndstream.client.rpc import BlockingHDF5Client, HDF5Client
    from ndstream.client.settings import Config
    from ndstream.client.streaming_decoder import StreamingDecoder
    from ndstream.core.modes import BIND, CONNECT, PUB, PULL, PUSH, SUB
    from ndstream.errors import NDStreamError
    from ndstream.errors import NDStreamError as HDFStreamRequestError
    from ndstream.mflow import utils
    from ndstream.session import aopen, get_config, open, open_any, set_config, verify_cert  # noqa: A004 - see session
    from ndstream.streams.aio import AsyncStream, aconnect
    from ndstream.streams.handlers import ReceiveHandler, receive_handlers, send_handlers
    from ndstream.streams.merge import Merge
    from ndstream.streams.messages import Message, Statistics
    from ndstream.streams.stream import Stream, connect, disconnect

__all__ = [
    "BIND",
    "CONNECT",
    "PUB",
    "PULL",
    "PUSH",
    "SUB",
    "AsyncStream",
    "BlockingHDF5Client",
    "Config",
    "Empty",
    "ExternalLink",
    "HDF5Client",
    "HDFStreamRequestError",
    "HardLink",
    "LocalOrRemoteFile",
    "Merge",
    "Message",
    "NDStreamError",
    "ReceiveHandler",
    "RemoteDataset",
    "RemoteDirectory",
    "RemoteFile",
    "RemoteGroup",
    "SoftLink",
    "Statistics",
    "Stream",
    "StreamingDecoder",
    "aconnect",
    "aopen",
    "connect",
    "disable_progress",
    "disconnect",
    "get_config",
    "open",
    "open_any",
    "receive_handlers",
    "send_handlers",
    "set_config",
    "set_progress_delay",
    "utils",
    "verify_cert",
]

_HOMES = {
    "AsyncStream": "streams.aio",
    "BIND": "core.modes",
    "BlockingHDF5Client": "client.rpc",
    "CONNECT": "core.modes",
    "Config": "client.settings",
    "Empty": "client.empty",
    "ExternalLink": "client.links",
    "HDF5Client": "client.rpc",
    "HardLink": "client.links",
    "LocalOrRemoteFile": "client.local",
    "Merge": "streams.merge",
    "Message": "streams.messages",
    "NDStreamError": "errors",
    "PUB": "core.modes",
    "PULL": "core.modes",
    "PUSH": "core.modes",
    "ReceiveHandler": "streams.handlers",
    "RemoteDataset": "client.datasets",
    "RemoteDirectory": "client.directories",
    "RemoteFile": "client.files",
    "RemoteGroup": "client.groups",
    "SUB": "core.modes",
    "SoftLink": "client.links",
    "Statistics": "streams.messages",
    "Stream": "streams.stream",
    "StreamingDecoder": "client.streaming_decoder",
    "aconnect": "streams.aio",
    "aopen": "session",
    "connect": "streams.stream",
    "disable_progress": "client.progress",
    "disconnect": "streams.stream",
    "get_config": "session",
    "open": "session",
    "open_any": "session",
    "receive_handlers": "streams.handlers",
    "send_handlers": "streams.handlers",
    "set_config": "session",
    "set_progress_delay": "client.progress",
    "utils": "mflow",
    "verify_cert": "session",
}
# What clients of the stock package catch.
_ALIASES = {"HDFStreamRequestError": "NDStreamError"}


def __getattr__(name: str) -> Any:
    own = _ALIASES.get(name, name)
    if own not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[own]}"), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
