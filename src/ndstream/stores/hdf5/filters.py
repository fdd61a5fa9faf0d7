"""The filter pipeline of a dataset, as the file has it."""

from __future__ import annotations

from h5py import h5p, h5z

from ndstream.core.model import Filter
from ndstream.stores.hdf5.names import text_of


def filters_of(properties: h5p.PropDCID) -> tuple[Filter, ...]:
    """List the filters of a dataset in the order in which they are applied when it is written."""
    stages = (properties.get_filter(position) for position in range(properties.get_nfilters()))
    return tuple(
        Filter(id=number, name=text_of(name), options=tuple(options), optional=bool(flags & h5z.FLAG_OPTIONAL))
        for number, flags, options, name in stages
    )
