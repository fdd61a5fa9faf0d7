"""What a connection agreed on by its hello (SPEC.md, C1)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec

from ndstream.core.limits import KiB, Limits
from ndstream.errors import InvalidRequest, NotSupported, UnsupportedMediaType
from ndstream.protocols.rpc import messages as m
from ndstream.protocols.rpc.codec import Agreed
from ndstream.protocols.rpc.codes import Refused

_SHORTEST_FRAME = 4 * KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What both ends may use.

    Attributes
    ----------
    features : frozenset of str
        Those that both have.
    frame : int, bytes
        Longest frame that the peer accepts.
    agreed : Agreed
        What the codec must know of it.
    """

    features: frozenset[str]
    frame: int
    agreed: Agreed

    @property
    def binary(self) -> bool:
        """Whether extended frames may be sent and come."""
        return "binary" in self.features

    @property
    def compresses(self) -> bool:
        """Whether the peer wants bodies compressed."""
        return "zlib" in self.features

    @property
    def streams(self) -> bool:
        """Whether a reply may have several frames."""
        return self.binary and "stream" in self.features

    @property
    def plain(self) -> bool:
        """Whether a `PlainRead` may have everything that it can have, and is answered without compression."""
        return self.streams and self.features >= {"ids", "selection"} and not self.compresses

    def check(self, request: m.Request) -> None:
        """Refuse what was not agreed on.

        Raises
        ------
        NotSupported
            The command belongs to a feature that is not in use.
        UnsupportedMediaType
            So does the form of the frame.
        InvalidRequest
            So does an argument.
        """
        needed = m.NEEDS.get(request.command)
        if needed is not None and needed not in self.features:
            raise NotSupported(f"{request.command} belongs to the feature {needed!r}, which hello did not name")
        if request.form is m.Form.EXTENDED and not self.binary:
            raise UnsupportedMediaType("extended frames belong to the feature 'binary', which hello did not name")
        if request.ident is not None and "ids" not in self.features:
            raise InvalidRequest("ids are a feature that hello did not name")
        arguments = request.arguments
        selects = arguments.get("selection") is not None or arguments.get("selections") is not None
        if selects and "selection" not in self.features:
            raise InvalidRequest("selections are a feature that hello did not name")
        if arguments.get("stream") is True and not self.streams:
            raise InvalidRequest(
                "streamed replies belong to the features 'stream' and 'binary', which hello did not name"
            )


def read_hello(arguments: dict[str, Any]) -> m.Hello:
    """Read the arguments of a hello; those that are not known here are left out.

    Raises
    ------
    InvalidRequest
    """
    given = {key: value for key, value in arguments.items() if key in m.Hello.__struct_fields__ and value is not None}
    try:
        return msgspec.convert(given, m.Hello)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidRequest(f"hello: {error}") from error


def agree(hello: m.Hello, limits: Limits) -> Session:
    """Answer a hello.

    Raises
    ------
    InvalidRequest
        It is for another protocol, or does not accept frames that say anything.
    Refused
        There is no version in common.
    """
    if hello.protocol != m.PROTOCOL:
        raise InvalidRequest(f"this is {m.PROTOCOL}, not {hello.protocol[:40]!r}")
    if hello.version < m.VERSION:
        error = NotSupported(f"version {hello.version} is not spoken here")
        raise Refused(error, "unsupported_version", versions=[m.VERSION])
    frame = limits.frame if hello.max_frame is None else min(hello.max_frame, limits.frame)
    if frame < _SHORTEST_FRAME:
        raise InvalidRequest(f"max_frame is at least {_SHORTEST_FRAME}")
    features = frozenset(m.FEATURES) & frozenset(hello.features)
    return Session(features=features, frame=frame, agreed=Agreed(m.CODECS & features, limits.frame))


def welcome(session: Session, limits: Limits, *, writable: bool) -> dict[str, Any]:
    """Fields of the reply to a hello."""
    return {
        "status": "success",
        "protocol": m.PROTOCOL,
        "version": m.VERSION,
        "server": f"ndstream {version('ndstream')}",
        "max_frame": limits.frame,
        "max_inflight": limits.in_flight,
        "features": [feature for feature in m.FEATURES if feature in session.features],
        "writable": writable,
    }


def config_fields(form: m.Form, limits: Limits, *, known: bool) -> dict[str, Any]:
    """Fields of the reply to get_config; the limits for those who said hello."""
    spelled = m.Form.JSON if form is m.Form.JSON else m.Form.MSGPACK
    fields: dict[str, Any] = {"status": "success", "serialization_format": spelled.value, "use_compression": False}
    if known:
        names = (
            *("connections", "frame", "frames", "in_flight", "follows", "frame_timeout", "send_timeout"),
            *("selections", "operations", "write_timeout"),
        )
        fields["limits"] = {name: getattr(limits, name) for name in names}
    return fields
