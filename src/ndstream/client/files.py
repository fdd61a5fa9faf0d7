"""Remote files: HDF5 ones as mappings of objects, all others as streams of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from ndstream.client import display
from ndstream.client.connection import Connection
from ndstream.client.datasets import RemoteDataset
from ndstream.client.downloads import download_file
from ndstream.client.groups import DATA_SIZE_LIMIT, MAX_DEPTH, RemoteGroup, RemoteObject
from ndstream.client.lasting import Lasting
from ndstream.client.members import Items, Values
from ndstream.client.streams import open_stream
from ndstream.core.model import File
from ndstream.core.operations import Event
from ndstream.errors import NotFound, UnsupportedMediaType


class RemoteFile(Lasting, Mapping[str, Any]):
    """A file on a server. Nothing inside of it is asked for before it is needed.

    As a context manager it gives the root group.

    Attributes
    ----------
    file_path, filename : str
        Virtual path.
    connection : Connection
    """

    def __init__(
        self,
        connection: Connection,
        file_path: str,
        max_depth: int = MAX_DEPTH,
        data_size_limit: int = DATA_SIZE_LIMIT,
        data: File | None = None,
    ) -> None:
        self.connection = connection
        self.file_path = file_path
        self._max_depth = max_depth
        self._data_size_limit = data_size_limit
        self._described = data

    @property
    def described(self) -> File:
        """What the server says of the file."""
        if self._described is None:
            found = self.connection.lookup(self.file_path)
            if not isinstance(found, File):
                raise NotFound(f"{self.connection.server}: /{self.file_path} is a directory")
            self._described = found
        return self._described

    @property
    def filename(self) -> str:
        """Virtual path."""
        return self.file_path

    @property
    def name(self) -> str:
        """Name of the root group."""
        return "/"

    @property
    def mode(self) -> str:
        """Always "r"."""
        return "r"

    @property
    def file(self) -> RemoteFile:
        """The file itself."""
        return self

    @property
    def media_type(self) -> str:
        """Media type, as the server has it."""
        return self.described.media_type

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.described.size

    @property
    def last_modified(self) -> int:
        """Time of the last change, in milliseconds since the epoch."""
        return self.described.modified // 1_000_000

    def is_hdf5(self) -> bool:
        """Whether this is an HDF5 file, by its media type."""
        return self.described.is_hdf5

    def check_hdf5(self) -> None:
        """Make sure that this is an HDF5 file.

        Raises
        ------
        UnsupportedMediaType
        """
        if not self.is_hdf5():
            raise UnsupportedMediaType(f"{self._place()} is {self.media_type}, not HDF5: open() reads its bytes")

    @cached_property
    def root(self) -> RemoteGroup:
        """The root group.

        Raises
        ------
        UnsupportedMediaType
            This is no HDF5 file.
        """
        self.check_hdf5()
        return RemoteGroup(self.connection, self.file_path, "/", self._max_depth, self._data_size_limit, file=self)

    def refresh(self) -> None:
        """Forget what is known of the file and its root group, see `RemoteGroup.refresh`."""
        self._described = None
        if "root" in self.__dict__:
            self.root.refresh()

    @property
    def parent(self) -> RemoteGroup:
        """The root group."""
        return self.root

    @property
    def attrs(self) -> Any:
        """Attributes of the root group."""
        return self.root.attrs

    def __getitem__(self, name: str | bytes) -> Any:
        """Object at a path, see `RemoteGroup`; ``"/"`` is the root group."""
        return self.root[name]

    def get(self, name: str, default: Any = None, getclass: bool = False, getlink: bool = False) -> Any:
        """Object, class or link at a path, see `RemoteGroup.get`."""
        return self.root.get(name, default, getclass, getlink)

    def __iter__(self) -> Iterator[str]:
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    def __contains__(self, name: object) -> bool:
        return name in self.root

    def values(self) -> Values:
        """Objects in the root group."""
        return self.root.values()

    def items(self) -> Items:
        """Names and objects in the root group."""
        return self.root.items()

    def visit(self, func: Callable[[str], Any]) -> Any:
        """Call `func` with the path of every object, see `RemoteGroup.visit`."""
        return self.root.visit(func)

    def visititems(self, func: Callable[[str, Any], Any]) -> Any:
        """Call `func` with path and object of every object, see `RemoteGroup.visititems`."""
        return self.root.visititems(func)

    def read_many(self, wanted: Sequence[tuple[RemoteDataset, Any]]) -> list[NDArray[Any]]:
        """Read selections of several datasets of this file, in one request if that can be.

        From a server of ours all of it is of one state of the file.

        Parameters
        ----------
        wanted : sequence of (RemoteDataset, index expression)

        Returns
        -------
        list of ndarray

        Raises
        ------
        InvalidSelection, OutOfBounds
        Conflict
            It took several requests, and the file was changed again and again between them.
        NDStreamError
        """
        reads = [dataset.asked(key) for dataset, key in wanted]
        self.connection.read_many(self.file_path, reads)
        return [destination for _, _, destination in reads]

    def copy(
        self,
        source: str | RemoteObject,
        dest: Any,
        name: str | None = None,
        shallow: bool = False,
        expand_soft: bool = False,
        expand_external: bool = False,
    ) -> None:
        """Copy an object into a local HDF5 file, see `RemoteGroup.copy`."""
        self.root.copy(source, dest, name, shallow, expand_soft, expand_external)

    def follow(self, since: int | str | None = None) -> Iterator[Event]:
        """Iterate over the commits made to the file after number `since`, or after the state of that tag.

        None stands for the state of this call.

        Waits for the next one without polling. Close the iterator to stop.

        Raises
        ------
        InvalidRequest
            The server does not tell of changes.
        NotFound
            The file is gone.
        NDStreamError
        """
        return self.connection.follow(self.file_path, since)

    def open(self, mode: str = "r") -> IO[Any]:
        """Open the bytes of the file as a stream, of text (``"r"``) or of bytes (``"rb"``).

        Raises
        ------
        InvalidRequest
            Another mode.
        NDStreamError
        """
        return open_stream(self.connection, self.file_path, mode)

    def download(self, target: str | Path, *, overwrite: bool = False) -> Path:
        """Download the whole file; `target` is a path, or a directory to put it in.

        It is there completely or not at all; a lost connection is taken up where it was lost, if the server can.

        Raises
        ------
        InvalidRequest
            There is such a file, and it is not to be overwritten.
        NDStreamError
        """
        path = Path(target)
        if path.is_dir():
            path /= self.file_path.rpartition("/")[2]
        return download_file(self.connection, self.file_path, path, expected=self.described, overwrite=overwrite)

    def __enter__(self) -> RemoteGroup:
        return self.root

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemoteFile):
            return NotImplemented
        return (self.connection.server, self.file_path) == (other.connection.server, other.file_path)

    def __hash__(self) -> int:
        return hash((self.connection.server, self.file_path))

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.connection, self.file_path, self._max_depth, self._data_size_limit, self._described)
        return type(self), state

    def __repr__(self) -> str:
        return display.file_text(self)

    def _repr_html_(self) -> str:
        return display.file_html(self)

    def _place(self) -> str:
        return f"{self.connection.server}: /{self.file_path}"
