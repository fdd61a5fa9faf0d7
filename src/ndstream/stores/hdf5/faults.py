"""Errors of the HDF5 library in words of our own.

h5py raises builtins whose text may hold paths of this machine; they are translated here, once, before anything leaves
a worker.
"""

from __future__ import annotations

import logging
import re

from ndstream.errors import Corrupt, InvalidRequest, NDStreamError, TooLarge, UnsupportedDType

_log = logging.getLogger(__name__)

#: What h5py raises when the library fails. Other exceptions are mistakes of ours.
LIBRARY_ERRORS = (OSError, KeyError, ValueError, RuntimeError, TypeError, MemoryError)

_MEMORY = "it takes more memory than one worker may use (worker_memory)"
_INNERMOST = re.compile(r"\((.+)\)", re.DOTALL)


def reason_of(error: BaseException) -> str:
    """Take the cause that the library gave, without any path of this machine."""
    text = str(error.args[-1]) if error.args else ""
    found = _INNERMOST.search(text)
    cause = (found[1] if found else text).split("name = ")[0].rstrip(" :,")
    return cause if cause and "/" not in cause else "the HDF5 library gave up"


def translate(error: Exception) -> NDStreamError:
    """Find the error of ours that says what an error of the library means."""
    if isinstance(error, NDStreamError):
        return error
    if isinstance(error, MemoryError):
        return TooLarge(_MEMORY)
    if isinstance(error, RecursionError):
        return Corrupt("it is nested without end")
    reason = reason_of(error)
    if "allocat" in reason:
        return TooLarge(_MEMORY)
    if isinstance(error, TypeError) or "conversion path" in reason:
        return UnsupportedDType(reason)
    return Corrupt(reason)


def is_expected(error: Exception) -> bool:
    """Whether an exception is one that requests and files may lead to; others are mistakes of ours."""
    return isinstance(error, (NDStreamError, RecursionError, *LIBRARY_ERRORS))


def answer_to(error: Exception) -> NDStreamError:
    """`translate` an exception of any kind; one that is not expected is logged with its trace."""
    if is_expected(error):
        return translate(error)
    _log.error("a request cannot be carried out", exc_info=error)
    return InvalidRequest(f"it cannot be carried out ({type(error).__name__}); the log of the server says why")
