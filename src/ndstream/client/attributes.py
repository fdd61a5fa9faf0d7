"""Attributes of remote objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ndstream.client.empty import Empty
from ndstream.client.values import array_of, read_type
from ndstream.core.dtypes import String, to_numpy
from ndstream.core.model import Attribute
from ndstream.errors import NotFound, UnsupportedDType


class RemoteAttributes(Mapping[str, Any]):
    """Attributes of one object by name: all are here already, values are made when asked for.

    Values are as h5py gives them: numpy scalars and arrays, `str` for strings of variable length, `numpy.bytes_` for
    fixed ones, `Empty` for a null dataspace. References are the path of what they refer to. Arrays are the caller's
    own. Read-only.
    """

    def __init__(self, described: Mapping[str, Attribute], owner: str) -> None:
        self._described = described
        self._owner = owner

    def __getitem__(self, name: str) -> Any:
        """Value of an attribute.

        Raises
        ------
        NotFound
        UnsupportedDType
            The server or this client cannot read it; the message says why.
        """
        try:
            attribute = self.described()[name]
        except KeyError:
            raise NotFound(f"{self._owner} has no attribute {name!r}") from None
        return _value(attribute, name, self._owner)

    def __iter__(self) -> Iterator[str]:
        return iter(self.described())

    def __len__(self) -> int:
        return len(self.described())

    def __contains__(self, name: object) -> bool:
        return name in self.described()

    def __repr__(self) -> str:
        return f"<Attributes of {self._owner}: {', '.join(self.described()) or 'none'}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.described())

    def described(self) -> Mapping[str, Attribute]:
        """What is known of the attributes: exact types, shapes and elements."""
        return self._described


def _value(attribute: Attribute, name: str, owner: str) -> Any:
    dtype = attribute.dtype
    if attribute.problem is not None or dtype is None:
        raise UnsupportedDType(f"{owner}: attribute {name!r} cannot be read: {attribute.problem or 'unknown type'}")
    if attribute.shape is None:
        return Empty(to_numpy(read_type(dtype)))
    if attribute.value is None:
        raise UnsupportedDType(f"{owner}: attribute {name!r} came without its value")
    array = array_of(dtype, attribute.shape, attribute.value)
    if isinstance(dtype, String) and dtype.size is None:
        for index, text in enumerate(array.flat):
            array.flat[index] = text.decode("utf-8", "surrogateescape")
    # A scalar of the type itself, not an array without axes; and nothing that writes into the description.
    return array[()] if array.ndim == 0 else array.copy()
