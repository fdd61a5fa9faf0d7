"""How a stream is opened: what a user names, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, TypeAlias, TypedDict, Unpack

from ndstream.core.limits import DEFAULT_LIMITS, Limits
from ndstream.core.modes import BIND, CONNECT, Mode, Policy
from ndstream.errors import InvalidRequest
from ndstream.streams.intake import OnError, OnGap
from ndstream.transports.zmq.channel import Context, Options
from ndstream.transports.zmq.keys import Curve, Key

Topics: TypeAlias = "str | bytes | Iterable[str | bytes]"

_FEW = 8  # messages that libzmq queues when the oldest are to be dropped: those cannot be


class Additions(TypedDict, total=False):
    """What `ndstream.connect` takes by name and the original does not; it is explained there."""

    topics: Topics
    policy: Policy | None
    on_error: OnError
    on_gap: OnGap | None
    compressed: bool
    count_subscribers: bool
    key: str | os.PathLike[str] | None
    server_key: Key | None
    allowed_keys: Iterable[Key] | None
    limits: Limits


class Choices(Additions, total=False):
    """The same, and what the original takes."""

    receive_timeout: float | None
    send_timeout: float | None
    queue_size: int
    linger: int
    copy: bool
    context: Context | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The same, checked and with defaults; time-outs are in seconds, None is without end."""

    address: str
    bind: bool
    mode: Mode
    policy: Policy
    receive_timeout: float | None
    send_timeout: float | None
    queue_size: int
    linger: int
    copy: bool
    context: Context | None
    topics: tuple[bytes, ...]
    on_error: OnError
    on_gap: OnGap | None
    compressed: bool
    count_subscribers: bool
    curve: Curve | None
    limits: Limits

    @classmethod
    def of(cls, address: str, conn_type: str, mode: int, **choices: Unpack[Choices]) -> Self:
        """Check what a user names.

        Raises
        ------
        InvalidRequest
            There is no such type of connection, mode or policy, or a number makes no sense.
        ConfigError
            A key cannot be read, or keys contradict each other.
        """
        if conn_type not in (CONNECT, BIND):
            raise InvalidRequest(f"conn_type is {conn_type!r}; it can be {CONNECT!r} or {BIND!r}")
        known = _mode(mode)
        policy = choices.get("policy") or ("drop-newest" if known is Mode.PUB else "block")
        if policy not in ("block", "drop-newest", "drop-oldest"):
            raise InvalidRequest(f"policy is {policy!r}; it can be 'block', 'drop-newest' or 'drop-oldest'")
        if (queue_size := choices.get("queue_size", 100)) < 0:
            raise InvalidRequest(f"queue_size is {queue_size}; it can be 0, without limit, or more")
        return cls(
            address=address,
            bind=conn_type == BIND,
            mode=known,
            policy=policy,
            receive_timeout=seconds(choices.get("receive_timeout")),
            send_timeout=seconds(choices.get("send_timeout")),
            queue_size=queue_size,
            linger=choices.get("linger", 1000),
            copy=choices.get("copy", True),
            context=choices.get("context"),
            topics=_topics(choices.get("topics", "")),
            on_error=choices.get("on_error", "raise"),
            on_gap=choices.get("on_gap"),
            compressed=choices.get("compressed", False),
            count_subscribers=choices.get("count_subscribers", False),
            curve=Curve.of(choices.get("key"), choices.get("server_key"), choices.get("allowed_keys")),
            limits=choices.get("limits", DEFAULT_LIMITS),
        )

    def options(self) -> Options:
        """How the channel is opened."""
        oldest_go = self.policy == "drop-oldest" and self.mode.sends
        return Options(
            address=self.address,
            mode=self.mode,
            bind=self.bind,
            queue_size=min(self.queue_size or _FEW, _FEW) if oldest_go else self.queue_size,
            linger=self.linger,
            copy=self.copy,
            longest_part=self.limits.message_part,
            topics=self.topics,
            count_subscribers=self.count_subscribers,
            curve=self.curve,
            context=self.context,
        )


def seconds(timeout: float | None) -> float | None:
    """Seconds of a time-out in milliseconds; None and negative ones are without end."""
    return None if timeout is None or timeout < 0 else timeout / 1000


def _mode(mode: int) -> Mode:
    try:
        return Mode(int(mode))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"mode is {mode!r}; it can be PUB, SUB, PUSH or PULL") from error


def _topics(topics: Topics) -> tuple[bytes, ...]:
    several = [topics] if isinstance(topics, str | bytes) else topics
    return tuple(topic.encode() if isinstance(topic, str) else topic for topic in several)
