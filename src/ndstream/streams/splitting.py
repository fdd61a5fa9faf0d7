"""One stream to several: every message, or every n-th, to each output, of which none waits for another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import msgspec

from ndstream.core.modes import BIND, CONNECT, Mode, Policy
from ndstream.errors import ConfigError, TimedOut, TooLarge
from ndstream.streams.stream import Stream

_PUMP = 100  # milliseconds without a message, after which queues are looked after


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where messages come from: PULL or SUB."""

    address: str
    mode: Mode = Mode.PULL
    bind: bool = False
    queue_size: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where messages go.

    Attributes
    ----------
    address : str
    mode : Mode
        PUSH or PUB.
    bind : bool
    queue_size : int, messages
    modulo : int
        Of so many messages, the first one goes here.
    policy : str
        What becomes of a message for which there is no room. With ``"block"`` the source has to wait, and so have the
        other outputs.
    """

    address: str
    mode: Mode = Mode.PUSH
    bind: bool = True
    queue_size: int = 100
    modulo: int = 1
    policy: Policy = "drop-newest"


class Splitter:
    """Passes messages on.

    Parameters
    ----------
    source : Source
    outputs : sequence of Output

    Attributes
    ----------
    source : Stream
    outputs : list of (Output, Stream)
        Their `Stream.statistics` count what was sent and what was dropped.

    Raises
    ------
    EndpointFailed
        An address cannot be used.
    """

    def __init__(self, source: Source, outputs: Sequence[Output]) -> None:
        with ExitStack() as opened:
            self.outputs = [(output, opened.enter_context(_open(output))) for output in outputs]
            self.source = opened.enter_context(
                Stream().connect(
                    source.address,
                    BIND if source.bind else CONNECT,
                    source.mode,
                    _PUMP,
                    source.queue_size,
                    copy=False,
                )
            )
            self._opened = opened.pop_all()
        self._count = 0

    def run(self, ended: Callable[[], bool], most: int | None = None) -> None:
        """Pass messages on until told to end, or until there were as many as wanted.

        Parameters
        ----------
        ended : callable
            Asked after each message, and while none comes.
        most : int, optional
        """
        while not ended() and self._count != most:
            message = self.source.receive_raw()
            if message is None:
                for _, stream in self.outputs:
                    stream.flush(0)
                continue
            self._pass_on(message.frames)

    def _pass_on(self, frames: Sequence[Any]) -> None:
        count, self._count = self._count, self._count + 1
        for output, stream in self.outputs:
            if count % output.modulo == 0:
                try:
                    stream.send_parts(frames)
                except (TimedOut, TooLarge):
                    continue  # told to end while it waited, or longer than the queue; counted as dropped

    @property
    def streams(self) -> list[Stream]:
        """All streams, to be woken."""
        return [self.source, *(stream for _, stream in self.outputs)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()


def _open(output: Output) -> Stream:
    return Stream().connect(
        output.address,
        BIND if output.bind else CONNECT,
        output.mode,
        queue_size=output.queue_size,
        copy=False,
        policy=output.policy,
    )


# -- configuration --


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    mode: str = "PULL"
    queue_size: Annotated[int, msgspec.Meta(ge=0)] = 100


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    mode: str = "PUSH"
    queue_size: Annotated[int, msgspec.Meta(ge=0)] = 100
    modulo: Annotated[int, msgspec.Meta(ge=1)] | None = None
    policy: Policy = "drop-newest"


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    source: _Source
    streams: Annotated[list[_Output], msgspec.Meta(min_length=1)]


def read_configuration(path: Path) -> tuple[Source, list[Output]]:
    """Read a configuration of m_split; outputs may have a ``policy`` besides.

    An address that begins with ``tcp://*:`` is bound, another one connected to.

    Raises
    ------
    ConfigError
        It cannot be read, or makes no sense.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Configuration)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    source = Source(
        address=found.source.address,
        mode=mode_of(found.source.mode, _RECEIVING),
        bind=_binds(found.source.address),
        queue_size=found.source.queue_size,
    )
    return source, [
        Output(
            address=each.address,
            mode=mode_of(each.mode, _SENDING),
            bind=_binds(each.address),
            queue_size=each.queue_size,
            modulo=each.modulo or 1,
            policy=each.policy,
        )
        for each in found.streams
    ]


def parse_output(text: str) -> Output:
    """Make an output of what stands on a command line: ``ADDRESS[,KEY=VALUE]…``.

    The keys are those of the configuration, and ``connect``, which has no value; without it the address is bound.

    Raises
    ------
    ConfigError
        It makes no sense.
    """
    address, *words = text.split(",")
    said: dict[str, Any] = {"address": address}
    bind = True
    for word in words:
        key, equal, value = word.partition("=")
        if word == "connect":
            bind = False
        elif not equal:
            raise ConfigError(f"{text}: {word!r} is no KEY=VALUE")
        else:
            said[key] = value
    try:
        made = msgspec.convert(said, _Output, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{text}: {error}") from error
    return Output(
        address=made.address,
        mode=mode_of(made.mode, _SENDING),
        bind=bind,
        queue_size=made.queue_size,
        modulo=made.modulo or 1,
        policy=made.policy,
    )


_RECEIVING: Mapping[str, Mode] = {"PULL": Mode.PULL, "SUB": Mode.SUB}
_SENDING: Mapping[str, Mode] = {"PUSH": Mode.PUSH, "PUB": Mode.PUB}


def mode_of(name: str, known: Mapping[str, Mode]) -> Mode:
    """Find a mode by its name, in whatever case; a `ConfigError` when there is none."""
    if name.upper() not in known:
        raise ConfigError(f"mode is {name!r}; it can be {' or '.join(known)}")
    return known[name.upper()]


def _binds(address: str) -> bool:
    return address.startswith("tcp://*:")
