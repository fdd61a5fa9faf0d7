"""The codes of errors that travel (SPEC.md, C5), and the errors of ndstream that they are: the one table."""

from __future__ import annotations

from typing import Any

from ndstream import errors
from ndstream.errors import NDStreamError
from ndstream.protocols.rpc.messages import Failure

_CODES: dict[str, str] = {
    "request": "bad_request",
    "invalid": "bad_request",
    "too-large": "too_large",
    "media-type": "bad_request",
    "kind": "wrong_kind",
    "shape": "shape_mismatch",
    "selection": "out_of_range",
    "bounds": "out_of_range",
    "dtype": "type_mismatch",
    "not-found": "not_found",
    "exists": "exists",
    "conflict": "conflict",
    "unauthenticated": "auth_required",
    "forbidden": "forbidden",
    "read-only": "read_only",
    "unsupported": "unknown_command",
    "cancelled": "cancelled",
    "data": "corrupt",
    "corrupt": "corrupt",
    "replaced": "busy",
    "quarantined": "corrupt",
    "filter": "corrupt",
    "full": "storage",
    "storage": "storage",
    "service": "internal",
    "busy": "busy",
    "in-use": "busy",
    "timeout": "timeout",
    "worker": "internal",
    "protocol": "bad_frame",
}

_CLASSES: dict[str, type[NDStreamError]] = {
    "bad_frame": errors.ProtocolError,
    "frame_too_large": errors.TooLarge,
    "bad_request": errors.InvalidRequest,
    "unknown_command": errors.NotSupported,
    "unsupported_version": errors.NotSupported,
    "auth_required": errors.NotAuthenticated,
    "forbidden": errors.Forbidden,
    "not_found": errors.NotFound,
    "exists": errors.Exists,
    "wrong_kind": errors.WrongKind,
    "cancelled": errors.Cancelled,
    "type_mismatch": errors.UnsupportedDType,
    "shape_mismatch": errors.ShapeMismatch,
    "out_of_range": errors.OutOfBounds,
    "too_large": errors.TooLarge,
    "read_only": errors.ReadOnly,
    "busy": errors.Busy,
    "timeout": errors.TimedOut,
    "storage": errors.StorageFailed,
    "corrupt": errors.Corrupt,
    "internal": errors.ServiceError,
    "conflict": errors.Conflict,
}


class Refused(Exception):
    """An error on its way to the peer, with what is told besides, and a code of its own if there is one."""

    def __init__(self, error: NDStreamError, code: str | None = None, **details: Any) -> None:
        super().__init__(error)
        self.error = error
        self.code = code
        self.details = details


def failure_of(error: NDStreamError | Refused) -> Failure:
    """What is told of an error."""
    if isinstance(error, Refused):
        code = error.code or _CODES.get(error.error.code, "internal")
        return Failure(code=code, message=str(error.error), details=error.details)
    return Failure(code=_CODES.get(error.code, "internal"), message=str(error))


def error_of(failure: Failure) -> NDStreamError:
    """Error that a client raises for what a server told."""
    return _CLASSES.get(failure.code, errors.ServiceError)(failure.message)
