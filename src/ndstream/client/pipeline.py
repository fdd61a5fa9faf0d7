"""The filters of a dataset under the names that h5py has for them."""

from __future__ import annotations

from collections.abc import Sequence

from ndstream.core.model import Filter

DEFLATE, SHUFFLE, FLETCHER32, SZIP, SCALEOFFSET, LZF = 1, 2, 3, 4, 6, 32000

_SZIP_ENTROPY = 4  # bit of the first option: entropy coding, else nearest neighbour


class Pipeline:
    """Reads the filter pipeline of a dataset (registered numbers of HDF5)."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._by_number = {each.id: each for each in filters}

    @property
    def compression(self) -> str | None:
        """gzip, szip, lzf, "unknown" for filters that others registered, None for none."""
        for number, name in ((DEFLATE, "gzip"), (LZF, "lzf"), (SZIP, "szip")):
            if number in self._by_number:
                return name
        return "unknown" if self._by_number.keys() - {SHUFFLE, FLETCHER32, SCALEOFFSET} else None

    @property
    def compression_options(self) -> int | tuple[str, int] | None:
        """Level of gzip, method and pixels per block of szip."""
        if (found := self._by_number.get(DEFLATE)) is not None:
            return found.options[0] if found.options else None
        if (found := self._by_number.get(SZIP)) is not None and len(found.options) > 1:
            return ("ec" if found.options[0] & _SZIP_ENTROPY else "nn", found.options[1])
        return None

    @property
    def shuffle(self) -> bool:
        """Whether bytes are shuffled."""
        return SHUFFLE in self._by_number

    @property
    def fletcher32(self) -> bool:
        """Whether there are check sums."""
        return FLETCHER32 in self._by_number

    @property
    def scaleoffset(self) -> int | None:
        """Scale factor, or number of bits."""
        found = self._by_number.get(SCALEOFFSET)
        return found.options[1] if found is not None and len(found.options) > 1 else None
