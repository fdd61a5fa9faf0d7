"""Every exception that ndstream raises.

The tree; in brackets the builtin that each one also is, in quotes its ``code``::

    NDStreamError                                      "error"
    ├── RequestError           what was asked for cannot be had: asking again will not help
    │   ├── InvalidRequest     [ValueError]            "invalid"
    │   │   ├── TooLarge                               "too-large"
    │   │   ├── UnsupportedMediaType                   "media-type"
    │   │   ├── WrongKind                              "kind"
    │   │   └── ShapeMismatch                          "shape"
    │   ├── InvalidSelection   [IndexError]            "selection"
    │   │   └── OutOfBounds                            "bounds"
    │   ├── UnsupportedDType   [TypeError]             "dtype"
    │   ├── NotFound           [KeyError, FileNotFoundError]   "not-found"
    │   ├── Exists             [FileExistsError]       "exists"
    │   ├── Conflict                                   "conflict"
    │   ├── NotAuthenticated   [PermissionError]       "unauthenticated"
    │   ├── Forbidden          [PermissionError]       "forbidden"
    │   │   └── ReadOnly                               "read-only"
    │   ├── NotSupported                               "unsupported"
    │   └── Cancelled                                  "cancelled"
    ├── DataError              [OSError]               "data"
    │   │                      what is stored cannot be read
    │   ├── Corrupt                                    "corrupt"
    │   ├── Replaced                                   "replaced"
    │   ├── Quarantined                                "quarantined"
    │   ├── UnsupportedFilter                          "filter"
    │   ├── StorageFull                                "full"
    │   └── StorageFailed                              "storage"
    ├── ServiceError           [RuntimeError]          "service"
    │   │                      the server cannot now: asking again later may help
    │   ├── Busy                                       "busy"
    │   ├── FileInUse          [BlockingIOError]       "in-use"
    │   ├── TimedOut           [TimeoutError]          "timeout"
    │   └── WorkerDied                                 "worker"
    ├── TransportError         [ConnectionError]       "transport"
    │   │                      between client and server
    │   ├── ConnectFailed                              "connect"
    │   │   └── EndpointFailed [RuntimeError]          "endpoint"
    │   ├── ConnectionLost                             "lost"
    │   ├── CertificateError                           "certificate"
    │   └── ProtocolError                              "protocol"
    ├── MessageError           [ValueError]            "message"
    │   │                      a message in flight cannot be understood: the stream goes on with the next
    │   ├── BadHeader                                  "header"
    │   ├── UnknownHtype       [KeyError]              "htype"
    │   ├── MissingPart        [EOFError]              "part"
    │   └── DecodeError                                "undecodable"
    ├── ConfigError            [ValueError]            "config"
    └── MissingExtra           [ImportError]           "extra"

`RequestError` is the caller's misuse, `ProtocolError` the peer's. The ``code`` is what travels: it is stable, and
`by_code` finds the class again on the other side. Which HTTP status a code has is said in `ndstream.wire.status`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class NDStreamError(Exception):
    """Base of all errors of ndstream; `code` is the stable name that travels to the other side."""

    code: ClassVar[str] = "error"

    def __str__(self) -> str:
        # KeyError shows the repr of its argument and OSError looks for an errno: a message is a message.
        return " ".join(str(part) for part in self.args)


class RequestError(NDStreamError):
    """What was asked for cannot be had; the same request will fail again."""

    code = "request"


class InvalidRequest(RequestError, ValueError):
    """A parameter is malformed, unknown, missing or contradicts another."""

    code = "invalid"


class TooLarge(InvalidRequest):
    """The request goes beyond one of the `ndstream.core.limits.Limits`; the message names it."""

    code = "too-large"


class UnsupportedMediaType(InvalidRequest):
    """The body of a request has a content type that the endpoint does not read."""

    code = "media-type"


class WrongKind(InvalidRequest):
    """There is another kind of object: a group where a dataset is needed, or the root group."""

    code = "kind"


class ShapeMismatch(InvalidRequest):
    """The data does not have the shape of what it is for."""

    code = "shape"


class InvalidSelection(RequestError, IndexError):
    """The selection is malformed or does not fit the rank of the array."""

    code = "selection"


class OutOfBounds(InvalidSelection):
    """The selection is well formed but leaves the array."""

    code = "bounds"


class UnsupportedDType(RequestError, TypeError):
    """The element type cannot be read, written or carried by this protocol."""

    code = "dtype"


class NotFound(RequestError, KeyError, FileNotFoundError):
    """No such path or object, or not for this user: the two cannot be told apart."""

    code = "not-found"


class Exists(RequestError, FileExistsError):
    """What should be made is there already."""

    code = "exists"


class Conflict(RequestError):
    """It was changed by somebody else since the caller looked, or before it could be put in order."""

    code = "conflict"


class NotAuthenticated(RequestError, PermissionError):
    """The user name, the password or the key is wrong."""

    code = "unauthenticated"


class Forbidden(RequestError, PermissionError):
    """Known user, known object, but not allowed."""

    code = "forbidden"


class ReadOnly(Forbidden):
    """Nobody may write there: the server, or the file, is read-only."""

    code = "read-only"


class NotSupported(RequestError):
    """The peer does not have this command or feature, or no version of the protocol in common with us."""

    code = "unsupported"


class Cancelled(RequestError):
    """The caller took the request back before it was complete."""

    code = "cancelled"


class DataError(NDStreamError, OSError):
    """What is stored cannot be read."""

    code = "data"


class Corrupt(DataError):
    """The file is damaged, cut short, or not what its name says."""

    code = "corrupt"


class Replaced(DataError):
    """The file changed while it was read; what was read belongs to no single state of it."""

    code = "replaced"


class Quarantined(DataError):
    """The file crashed or hung its readers and is put aside until it changes."""

    code = "quarantined"


class UnsupportedFilter(DataError):
    """The data went through a filter that is not installed here."""

    code = "filter"


class StorageFull(DataError):
    """There is no room left, or no more is allowed; everything is as it was before."""

    code = "full"


class StorageFailed(DataError):
    """The disk failed, or does not let the server write; the message says what became of the file."""

    code = "storage"


class ServiceError(NDStreamError, RuntimeError):
    """The server cannot do this now; asking again later may help."""

    code = "service"


class Busy(ServiceError):
    """A limit of requests is reached, or the server is shutting down."""

    code = "busy"


class FileInUse(ServiceError, BlockingIOError):
    """Another program writes to the file, or keeps others from writing to it."""

    code = "in-use"


class TimedOut(ServiceError, TimeoutError):
    """It took longer than the limit allows."""

    code = "timeout"


class WorkerDied(ServiceError):
    """The process that was reading ended before it answered."""

    code = "worker"


class TransportError(NDStreamError, ConnectionError):
    """Client and server did not understand or did not reach each other."""

    code = "transport"


class ConnectFailed(TransportError):
    """No connection could be made."""

    code = "connect"


class EndpointFailed(ConnectFailed, RuntimeError):
    """A stream cannot use its address: malformed, taken, or not of this machine; the message names it."""

    code = "endpoint"


class ConnectionLost(TransportError):
    """The connection ended before the answer was complete."""

    code = "lost"


class CertificateError(TransportError):
    """The certificate of the server is not trusted."""

    code = "certificate"


class ProtocolError(TransportError):
    """The peer sent what its protocol does not allow."""

    code = "protocol"


class MessageError(NDStreamError, ValueError):
    """A message of a stream cannot be understood, or cannot be made; the next one is not affected.

    Attributes
    ----------
    htype : str or None
        What the message says that it is, if that much was understood.
    parts : sequence of buffers
        The message as it came, part by part, so that nothing is lost; empty when it was to be sent.
    """

    code = "message"
    htype: str | None = None
    parts: Sequence[bytes | bytearray | memoryview] = ()


class BadHeader(MessageError):
    """A header is not what its htype asks for: no JSON object, a key is missing or has no sense."""

    code = "header"


class UnknownHtype(MessageError, KeyError):
    """No codec is known by the htype of the message, or it names none."""

    code = "htype"


class MissingPart(MessageError, EOFError):
    """The message has fewer parts than its header says."""

    code = "part"


class DecodeError(MessageError):
    """A part is not what the header says, or goes beyond one of the `ndstream.core.limits.Limits`."""

    code = "undecodable"


class ConfigError(NDStreamError, ValueError):
    """A setting is unknown or has a wrong value; the message names file and line."""

    code = "config"


class MissingExtra(NDStreamError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""

    code = "extra"


def _tree(cls: type[NDStreamError]) -> dict[str, type[NDStreamError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found |= _tree(sub)
    return found


_BY_CODE = _tree(NDStreamError)


def by_code(code: str) -> type[NDStreamError]:
    """Class of the error that travelled as `code`; `NDStreamError` for a code this version does not know."""
    return _BY_CODE.get(code, NDStreamError)
