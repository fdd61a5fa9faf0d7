"""Messages of several parts, of which the first says what they are: finding the codec, reading and writing headers.

Source: protocols/htype/SPEC.md, "Messages".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ndstream.core.limits import Limits
from ndstream.core.packets import STREAM2, Buffer, Codec, CodecFactory, Decoding, Packet
from ndstream.core.registry import CODECS, load, names
from ndstream.errors import BadHeader, DecodeError, MessageError, MissingPart, UnknownHtype

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_NOT_JSON = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class Codecs:
    """The codecs of one stream; makes packets of frames, and frames of data.

    Parameters
    ----------
    options : Decoding, optional
        Given to each codec that is made.
    factories : mapping of str to CodecFactory, optional
        By htype; asked before the registry.

    Notes
    -----
    For one thread at a time. A codec is made when the first message of its htype comes, one for all the htypes of a
    factory. Which htypes are installed is looked up once.
    """

    __slots__ = ("_codecs", "_factories", "_few", "_installed", "_limits", "_longest", "_made", "_short", "options")

    def __init__(self, options: Decoding | None = None, factories: Mapping[str, CodecFactory] | None = None) -> None:
        self.options = options or Decoding()
        self._limits = self.options.limits
        self._longest = self._limits.message_part
        self._few = min(self._limits.message_parts, 64)
        self._short = min(self._limits.message_header, _shallow(self._limits))
        self._factories = factories or {}
        self._codecs: dict[str, Codec] = {}
        self._made: dict[int, tuple[CodecFactory, Codec]] = {}
        self._installed: frozenset[str] | None = None

    def decode(self, frames: Sequence[Buffer]) -> Packet:
        """Decode one message.

        Parameters
        ----------
        frames : sequence of buffers
            Its parts, all that came; the packet keeps them, arrays are views of them.

        Raises
        ------
        BadHeader
            Part 0 is neither a JSON object nor a CBOR map, or a header does not say what it has to.
        UnknownHtype
            It names no codec that is known.
        MissingPart
            The header announces more parts than came.
        DecodeError
            A part is not what the header says, or goes beyond a limit.
        MissingExtra
            There is a codec, but what it needs is not installed.

        Notes
        -----
        Every `MessageError` has the parts of the message. Whatever a message was has no effect on the next one.
        """
        try:
            # As the loop of a receiver spends most of its time here, what is common is checked in few steps.
            first = frames[0]
            if len(first) >= self._short or len(frames) > self._few:
                raise LookupError
            header = _decode_object(first)
            codec = self._codecs[header["htype"]]
        except (LookupError, TypeError, *_NOT_JSON):
            header, codec = self._open(frames)
        try:
            for part in frames:
                if len(part) > self._longest:
                    raise DecodeError(f"a part of {len(part)} bytes; message_part is {self._longest}")
            return Packet(codec.decode(header, frames), frames, codec)
        except MessageError as error:
            raise _complete(error, header, frames) from error.__cause__

    def encode(self, data: Any) -> list[Buffer]:
        """Encode one message, whole.

        Parameters
        ----------
        data : mapping with the key ``header``, or an object with that attribute
            As `Packet.data` has it, or made by whoever sends; ``header["htype"]`` says which codec.

        Returns
        -------
        list of buffers
            The parts, to be sent together. Large ones are views of what is in `data`: do not change it until they
            were sent.

        Raises
        ------
        UnknownHtype
            There is no ``htype``, or no codec of that name.
        MessageError
            The data do not make a message of that htype.
        """
        header = data.get("header") if isinstance(data, Mapping) else getattr(data, "header", None)
        htype = header.get("htype") if isinstance(header, Mapping) else None
        if htype is None:
            raise UnknownHtype("the data has no header with the key 'htype'")
        try:
            return self.codec(htype).encode(data)
        except MessageError as error:
            error.htype = str(htype)
            raise

    def codec(self, htype: str) -> Codec:
        """Codec of this stream for an htype.

        Raises
        ------
        UnknownHtype
        MissingExtra
        """
        if not isinstance(htype, str):
            raise BadHeader(f"the htype is {_short(htype)}, not text")
        if htype not in self._codecs:
            factory = self._factory(htype)
            if id(factory) not in self._made:  # the factory is kept with it, so that its id stays its own
                self._made[id(factory)] = factory, factory(self.options)
            self._codecs[htype] = self._made[id(factory)][1]
        return self._codecs[htype]

    def _factory(self, htype: str) -> CodecFactory:
        if htype in self._factories:
            return self._factories[htype]
        if self._installed is None:
            self._installed = frozenset(names(CODECS))
        if htype not in self._installed:
            raise UnknownHtype(f"no codec is known for the htype {_short(htype)}")
        factory: CodecFactory = load(CODECS, htype)
        return factory

    def _open(self, frames: Sequence[Buffer]) -> tuple[dict[str, Any], Codec]:
        """Header and codec of a message; the header of one in CBOR has only the name of its codec."""
        header: dict[str, Any] = {}
        try:
            if len(frames) > self._limits.message_parts:
                raise DecodeError(f"a message of {len(frames)} parts; message_parts is {self._limits.message_parts}")
            if not frames:
                raise MissingPart("a message without parts")
            first = frames[0]
            if len(first) and 0xA0 <= first[0] <= 0xBF:  # no text in UTF-8 begins so, a map in CBOR does
                header = {"htype": STREAM2}
            else:
                header = decode_header(first, self._limits)
                if header.get("htype") == STREAM2:
                    raise BadHeader(f"{STREAM2!r} is not sent as JSON")
            if "htype" not in header:
                raise UnknownHtype("the header has no key 'htype'")
            return header, self.codec(header["htype"])
        except MessageError as error:
            raise _complete(error, header, frames) from error.__cause__


def _complete(error: MessageError, header: dict[str, Any], frames: Sequence[Buffer]) -> MessageError:
    htype = header.get("htype")
    error.htype = htype if isinstance(htype, str) else None
    error.parts = tuple(frames)
    return error


def decode_header(part: Buffer, limits: Limits) -> dict[str, Any]:
    """Decode a part that is one JSON object.

    Raises
    ------
    BadHeader
        It is none, too long, too deep, or no UTF-8.
    """
    if len(part) > limits.message_header:
        raise BadHeader(f"a header of {len(part)} bytes; message_header is {limits.message_header}")
    try:
        header = _decode_object(part)
    except _NOT_JSON:
        header = _decode_leniently(part)
    if len(part) >= _shallow(limits) and not _is_flat(header, limits.message_depth):
        raise BadHeader(f"a header with lists and maps more than {limits.message_depth} deep")
    return header


def _shallow(limits: Limits) -> int:
    """Length below which a header cannot be too deep, since each list or map takes two characters."""
    return 2 * limits.message_depth


def _decode_leniently(part: Buffer) -> dict[str, Any]:
    # Python's senders write NaN and Infinity, which JSON does not have.
    try:
        header = json.loads(bytes(part).decode())
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise BadHeader(f"a header is no JSON object in UTF-8: {reason}") from error
    if not isinstance(header, dict):
        raise BadHeader("a header is JSON, but no object")
    return header


def _is_flat(value: Any, depth: int) -> bool:
    """Whether lists and maps are within each other at most `depth` times."""
    if isinstance(value, dict):
        return depth > 0 and all(_is_flat(item, depth - 1) for item in value.values() if isinstance(item, dict | list))
    if isinstance(value, list):
        return depth > 0 and all(_is_flat(item, depth - 1) for item in value if isinstance(item, dict | list))
    return True


def encode_header(header: Mapping[str, Any] | list[Any]) -> bytes:
    """Encode a header, or a list in its place, as JSON.

    It is spaced and escaped as by Python's ``json``, which the original tools use.

    Raises
    ------
    BadHeader
        A value has no form in JSON; scalars and arrays of numpy have.
    """
    try:
        return json.dumps(header, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadHeader(f"a header cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{_short(value)} of type {type(value).__name__}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
