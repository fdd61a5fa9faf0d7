"""Remote directories: mappings of names to directories and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

from ndstream.client import display
from ndstream.client.address import normalise
from ndstream.client.connection import Connection
from ndstream.client.downloads import download_file
from ndstream.client.files import RemoteFile
from ndstream.client.groups import DATA_SIZE_LIMIT, MAX_DEPTH
from ndstream.client.lasting import Lasting
from ndstream.core import model
from ndstream.errors import InvalidRequest, NotFound, UnsupportedMediaType


class RemoteDirectory(Lasting, Mapping[str, Any]):
    """A directory on a server: its directories come first, then its files.

    A path of several names is one request, also when the directories on the way are unknown: these then are
    placeholders (`unpacked` is False) until something of theirs is needed. An entry that is known is never asked for
    again, and one path always gives the same object.

    Attributes
    ----------
    name : str
        Virtual path, "" for the root.
    connection : Connection
    """

    def __init__(
        self,
        connection: Connection,
        name: str = "",
        max_depth: int = MAX_DEPTH,
        data_size_limit: int = DATA_SIZE_LIMIT,
        data: model.Directory | None = None,
    ) -> None:
        self.connection = connection
        self.name = name
        self._max_depth = max_depth
        self._data_size_limit = data_size_limit
        self._described: model.Directory | None = None
        self._directories: dict[str, RemoteDirectory] = {}
        self._files: dict[str, RemoteFile] = {}
        if data is not None:
            self._unpack(data)

    @property
    def filename(self) -> str:
        """Virtual path."""
        return self.name

    @property
    def unpacked(self) -> bool:
        """Whether the directory has been described."""
        return self._described is not None

    @property
    def described(self) -> model.Directory | None:
        """What the server said of the directory; None before it was asked."""
        return self._described

    @property
    def directories(self) -> Mapping[str, RemoteDirectory]:
        """Directories in this one, by name."""
        described = self._load()
        return {name: self._directories[name] for name in described.directories}

    @property
    def files(self) -> Mapping[str, RemoteFile]:
        """Files in this directory, by name."""
        described = self._load()
        return {name: self._files[name] for name in described.files}

    @property
    def size(self) -> int:
        """Bytes of all files below."""
        return self._load().size

    @property
    def description(self) -> str | None:
        """What the publisher says of the directory, in markdown."""
        return self._load().description

    @property
    def labels(self) -> Mapping[str, str]:
        """What the publisher says of entries, in markdown."""
        return self._load().labels or {}

    def __getitem__(self, key: str) -> Any:
        """`RemoteDirectory` or `RemoteFile` at a path below.

        Raises
        ------
        NotFound
            There is none, also KeyError.
        NDStreamError
        """
        return self._find(self._parts(key))

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        try:
            self[key]
        except NotFound:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        described = self._load()
        yield from described.directories
        yield from described.files

    def __len__(self) -> int:
        described = self._load()
        return len(described.directories) + len(described.files)

    def is_hdf5(self, filename: str) -> bool:
        """Whether this is a path of an HDF5 file."""
        try:
            found = self[filename]
        except NotFound:
            return False
        return isinstance(found, RemoteFile) and found.is_hdf5()

    def File(self, filename: str, mode: str = "r") -> RemoteFile:  # noqa: N802 - stands in for h5py.File
        """Open an HDF5 file to read, as ``h5py.File`` would; `mode` is there for code that gives one.

        Raises
        ------
        InvalidRequest
            Another mode: ``ndstream.open(url, path, mode=...)`` opens for writing.
        OSError
            There is no such file, or it is not HDF5.
        """
        if mode != "r":
            raise InvalidRequest(f"{self._place(filename)}: ndstream.open(url, path, mode={mode!r}) opens for writing")
        found = self[filename]
        if not isinstance(found, RemoteFile):
            raise NotFound(f"{self._place(filename)} is a directory")
        if not found.is_hdf5():
            raise _NotHDF5(f"{self._place(filename)} is {found.media_type}, not HDF5")
        return found

    def download(self, target: str | Path, *, overwrite: bool = False) -> Path:
        """Download everything below as one tar file; `target` is its path.

        Raises
        ------
        InvalidRequest
            This is the root, which the protocol does not send, or the file exists and is not to be overwritten.
        NDStreamError
        """
        if not self.name:
            raise InvalidRequest("the root cannot be downloaded as a whole: download what is in it")
        return download_file(self.connection, self.name, Path(target), expected=None, overwrite=overwrite)

    def __enter__(self) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemoteDirectory):
            return NotImplemented
        return (self.connection.server, self.name) == (other.connection.server, other.name)

    def __hash__(self) -> int:
        return hash((self.connection.server, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.connection, self.name, self._max_depth, self._data_size_limit)

    def __repr__(self) -> str:
        return display.directory_text(self)

    def _repr_html_(self) -> str:
        return display.directory_html(self)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self) if self.unpacked else []

    def _parts(self, key: str) -> list[str]:
        path = normalise(key)
        return path.split("/") if path else []

    def _find(self, parts: list[str]) -> Entry:
        """Entry at a path: what is known of the way is walked, the rest is one request."""
        found: Entry = self
        for at, part in enumerate(parts):
            if not isinstance(found, RemoteDirectory):
                raise NotFound(f"{self._place('/'.join(parts))}: {found.file_path} is a file")
            known = found._files.get(part) or found._directories.get(part)
            if known is None:
                if found.unpacked:
                    raise NotFound(f"{self._place('/'.join(parts))}: no such file or directory")
                return found._request(parts[at:])
            found = known
        if isinstance(found, RemoteDirectory) and not found.unpacked and found is not self:
            found._load()
        return found

    def _request(self, parts: list[str]) -> Entry:
        """Ask for an entry below this directory, of which nothing is known yet, and make room for it."""
        path = "/".join([*self._path(), *parts])
        described = self.connection.lookup(path)
        group = self
        for part in parts[:-1]:
            group = group._directories.setdefault(part, group._directory(part, None))
        last = parts[-1]
        if isinstance(described, model.Directory):
            return group._directories.setdefault(last, group._directory(last, described))
        return group._files.setdefault(last, group._file(last, described))

    def _load(self) -> model.Directory:
        if self._described is None:
            found = self.connection.lookup(self.name)
            if not isinstance(found, model.Directory):
                raise NotFound(f"{self.connection.server}: /{self.name} is a file")
            self._unpack(found)
            return found
        return self._described

    def _unpack(self, described: model.Directory) -> None:
        """Take in a description; entries that are there already stay the objects that they are."""
        for name, entry in described.files.items():
            self._files.setdefault(name, self._file(name, entry))
        for name, below in described.directories.items():
            known = self._directories.setdefault(name, self._directory(name, None))
            if below is not None and not known.unpacked:
                known._unpack(below)
        self._described = described

    def _directory(self, name: str, described: model.Directory | None) -> RemoteDirectory:
        path = "/".join([*self._path(), name])
        return RemoteDirectory(self.connection, path, self._max_depth, self._data_size_limit, described)

    def _file(self, name: str, described: model.File) -> RemoteFile:
        path = "/".join([*self._path(), name])
        return RemoteFile(self.connection, path, self._max_depth, self._data_size_limit, described)

    def _path(self) -> list[str]:
        return [self.name] if self.name else []

    def _place(self, name: str) -> str:
        return f"{self.connection.server}: /{'/'.join([*self._path(), normalise(name)])}"


Entry: TypeAlias = RemoteDirectory | RemoteFile


class _NotHDF5(UnsupportedMediaType, OSError):
    """What ``h5py.File`` raises for a file of another kind."""
