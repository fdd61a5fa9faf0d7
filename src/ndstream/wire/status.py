"""Error codes and HTTP status codes, both ways; the one table for every protocol over HTTP.

The status is for whoever knows only HTTP. Our own answers also carry the code itself in the header `ERROR_HEADER`,
so that a client of ours raises the very class that the server did.
"""

from __future__ import annotations

from ndstream import errors
from ndstream.errors import NDStreamError

ERROR_HEADER = "ndstream-error"

_STATUS = {
    "request": 400,
    "invalid": 400,
    "too-large": 413,
    "media-type": 415,
    "kind": 400,
    "shape": 400,
    "selection": 400,
    "bounds": 416,
    "dtype": 422,
    "not-found": 404,
    "unauthenticated": 401,
    "forbidden": 403,
    "read-only": 403,
    "unsupported": 400,
    "cancelled": 400,
    "exists": 409,
    "conflict": 412,
    "replaced": 409,
    "full": 507,
    "busy": 503,
    "in-use": 423,
    "timeout": 504,
}

_CLASS: dict[int, type[NDStreamError]] = {
    400: errors.InvalidRequest,
    401: errors.NotAuthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    408: errors.TimedOut,
    409: errors.Replaced,
    412: errors.Conflict,
    413: errors.TooLarge,
    415: errors.UnsupportedMediaType,
    416: errors.OutOfBounds,
    422: errors.UnsupportedDType,
    423: errors.FileInUse,
    429: errors.Busy,
    503: errors.Busy,
    504: errors.TimedOut,
    507: errors.StorageFull,
}


def status_of(code: str) -> int:
    """HTTP status for an error code of `ndstream.errors`; 500 for what only the server can be blamed for."""
    return _STATUS.get(code, 500)


def error_class(status: int, code: str | None = None) -> type[NDStreamError]:
    """Class of the error behind an HTTP status.

    Parameters
    ----------
    status : int
        Of an answer that is not a success.
    code : str, optional
        What the header `ERROR_HEADER` said; believed before the status when it is a code of this version.
    """
    if code is not None:
        named = errors.by_code(code)
        if named is not NDStreamError:
            return named
    if status in _CLASS:
        return _CLASS[status]
    if 400 <= status < 500:
        return errors.RequestError
    return errors.ServiceError if 500 <= status < 600 else errors.ProtocolError
