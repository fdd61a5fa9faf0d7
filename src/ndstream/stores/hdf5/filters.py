"""The filter pipeline of a dataset, as the file has it, or will."""

from __future__ import annotations

from h5py import h5p, h5z

from ndstream.core.model import Filter
from ndstream.errors import InvalidRequest, UnsupportedFilter
from ndstream.stores.hdf5.decoders import DEFLATE, FLETCHER32, LZF, SHUFFLE
from ndstream.stores.hdf5.names import text_of
from ndstream.wire.compression import BITSHUFFLE


def filters_of(properties: h5p.PropDCID) -> tuple[Filter, ...]:
    """List the filters of a dataset in the order in which they are applied when it is written."""
    stages = (properties.get_filter(position) for position in range(properties.get_nfilters()))
    return tuple(
        Filter(id=number, name=text_of(name), options=tuple(options), optional=bool(flags & h5z.FLAG_OPTIONAL))
        for number, flags, options, name in stages
    )


def add_filter(properties: h5p.PropDCID, stage: Filter, *, fixed: bool) -> None:
    """Add a filter to those of a dataset that is going to be made, of elements of `fixed` size or not.

    Raises
    ------
    UnsupportedFilter, InvalidRequest
    """
    check_filter(stage.id)
    # Of elements of variable length the chunks hold references alone: the library wants filters of them optional. LZF
    # makes nothing of what does not become shorter.
    optional = stage.optional or not fixed or stage.id == LZF
    try:
        if stage.id == DEFLATE:
            properties.set_deflate(stage.options[0] if stage.options else 4)
        elif stage.id == SHUFFLE:
            properties.set_shuffle()  # its option, the size of an element, is the library's to say
        elif stage.id == FLETCHER32:
            properties.set_fletcher32()
        elif (
            stage.id == BITSHUFFLE and len(stage.options) > 4
        ):  # as stored: its version and the size are its own to say
            properties.set_filter(stage.id, 0, stage.options[3:])
        else:
            properties.set_filter(stage.id, h5z.FLAG_OPTIONAL if optional else 0, stage.options)
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"options {stage.options} of filter {stage.name}: {error}") from None


def may_fail(stage: Filter) -> bool:
    """Whether there may be elements that cannot be stored, since a filter makes nothing of them."""
    return not stage.optional and stage.id not in (DEFLATE, SHUFFLE, FLETCHER32)


def check_filter(number: int) -> None:
    """Make sure that the HDF5 library can apply a filter; raises `UnsupportedFilter`."""
    if not h5z.filter_avail(number) or not h5z.get_filter_info(number) & h5z.FILTER_CONFIG_ENCODE_ENABLED:
        raise UnsupportedFilter(f"filter {number} cannot be applied here")
