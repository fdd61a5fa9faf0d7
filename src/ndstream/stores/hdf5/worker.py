"""One worker process: ``python -m ndstream.stores.hdf5.worker DESCRIPTOR``.

It holds the HDF5 library and files that nobody vouches for, and answers the requests of `messages` that arrive on an
inherited socket one by one. It may crash or hang in the library at any time: the pool sees that and starts another.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
import socket
import sys
from typing import TypeVar

import msgspec
from h5py import _errors, h5d, h5z

from ndstream.core.model import Dataset, Node
from ndstream.errors import InvalidRequest, NotFound, Replaced, TooLarge
from ndstream.stores.hdf5.describe import Describer
from ndstream.stores.hdf5.faults import answer_to
from ndstream.stores.hdf5.fetch import read_box
from ndstream.stores.hdf5.layout import Layout, Library
from ndstream.stores.hdf5.locate import Tail, layout_of
from ndstream.stores.hdf5.messages import (
    Describe,
    Described,
    Failed,
    Fetch,
    Fetched,
    Hello,
    Known,
    Locate,
    Located,
    Ready,
    Reply,
    Request,
    Target,
    longest_reply,
)
from ndstream.stores.hdf5.open_files import OpenFile, OpenFiles
from ndstream.stores.hdf5.recovery import LeftBehind
from ndstream.stores.hdf5.references import Names
from ndstream.stores.hdf5.resolve import Found, Resolver
from ndstream.stores.hdf5.roots import Roots

with contextlib.suppress(ImportError):
    import hdf5plugin  # noqa: F401  # importing it registers its filters

T = TypeVar("T", bound=Node)

_PR_SET_PDEATHSIG = 1
#: Numbers under which filters are registered and found in files.
_FILTERS = (*range(1, 7), 305, 307, *range(32000, 32036))


class Worker:
    """Answers requests about files.

    Parameters
    ----------
    hello : Hello
        What is served, and what may be used.
    """

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._roots = Roots(hello.roots)
        self._files = self._open_files()

    def _open_files(self) -> OpenFiles:
        return OpenFiles(self._hello.open_files)

    def answer(self, request: Request) -> Reply:
        """Answer one request; every failure of it becomes a `Failed`."""
        try:
            return self.handle(request)
        except LeftBehind as error:
            return Failed(code=error.code, message=str(error), left=error.path)
        except Exception as error:  # noqa: BLE001  (whatever it is, the next request is answered)
            known = answer_to(error)
            return Failed(code=known.code, message=str(known))

    def handle(self, request: Request) -> Reply:
        """Answer one request, or raise what is wrong with it."""
        match request:
            case Describe():
                return self._describe(request)
            case Locate():
                return self._locate(request)
            case Fetch():
                return self._fetch(request)
            case Hello():
                raise InvalidRequest("the greeting comes once, and first")
            case _:
                raise InvalidRequest(f"not for this worker, or not now: {type(request).__name__.lower()}")

    def close(self) -> None:
        """Close the files that are open."""
        self._files.close()

    def _describe(self, request: Describe) -> Described:
        file, resolver = self._open(request.target)
        describer = Describer(
            resolver,
            depth=request.depth,
            wide=request.wide,
            data=request.data,
            links=self._hello.links,
            document=self._hello.document,
        )
        node = describer.describe(resolver.find(file, request.target.name))
        file.check(request.target.generation)
        return Described(node=_placed(node, file, resolver), lasting=not resolver.others)

    def _locate(self, request: Locate) -> Located:
        file, resolver = self._open(request.target)
        found = _dataset(resolver.find(file, request.target.name), request.target.name)
        describer = Describer(resolver, links=self._hello.links, document=self._hello.document)
        dataset = describer.dataset(found, brief=True)
        layout: Layout
        if found.file.live and dataset.shape is not None:
            layout, since = Library(reason="another program is writing the file", chunks=dataset.chunks), 0
        else:
            layout, since = self._layout(found, dataset, request.known)
        file.check(request.target.generation)
        where = found.file
        where.check(where.generation)
        # The file that a link names is looked at before each use. What is on the way to it is not, nor are the sources
        # of a virtual dataset, of which it takes its shape.
        lasting = resolver.others <= {where.path} and dataset.storage != "virtual"
        dataset = _placed(dataset, file, resolver)
        return Located(
            dataset=dataset, layout=layout, file=where.path, generation=where.generation, since=since, lasting=lasting
        )

    def _layout(
        self, found: Found, dataset: Dataset, known: Known | None, tail: Tail | None = None
    ) -> tuple[Layout, int]:
        """How a dataset is stored, and the number of the first chunk that is listed: here, of all that there are."""
        index, size = self._hello.chunk_index, found.file.size
        return layout_of(found.object, dataset.dtype, file_size=size, chunk_index=index, tail=tail), 0

    def _fetch(self, request: Fetch) -> Fetched:
        file, resolver = self._open(request.target)
        found = _dataset(resolver.find(file, request.target.name), request.target.name)
        if request.address not in (None, found.identity):
            raise Replaced("another dataset has got the name")
        box = (request.start, request.count, request.step)
        data = read_box(found.object, box, most=request.most, name_of=Names(found.file, found.object))
        file.check(request.target.generation)
        if found.file is not file:
            found.file.check(found.file.generation)
        return Fetched(data=data)

    def _open(self, target: Target) -> tuple[OpenFile, Resolver]:
        self._files.begin()
        file = self._files.open(target.file, target.generation)
        return file, Resolver(self._files, self._roots, target.hidden, self._hello.link_depth)


def _placed(node: T, file: OpenFile, resolver: Resolver) -> T:
    """Note in a description whether other files than `file` have a part in it."""
    return msgspec.structs.replace(node, elsewhere=True) if resolver.others - {file.path} else node


def _dataset(found: Found, name: str) -> Found:
    if not isinstance(found.object, h5d.DatasetID):
        raise NotFound(f"{name} is not a dataset")
    return found


class Channel:
    """Messages over a connected socket: a length (4 bytes, little-endian) and a msgpack map each."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._requests = msgspec.msgpack.Decoder(Request)
        self._replies = msgspec.msgpack.Encoder()

    def receive(self) -> Request | None:
        """Wait for the next request; None when the server is gone."""
        head = self._exactly(4)
        if head is None:
            return None
        body = self._exactly(int.from_bytes(head, "little"))
        return None if body is None else self._requests.decode(body)

    def send(self, reply: Reply, longest: int) -> None:
        """Send a reply; one of more than `longest` bytes becomes a `Failed`."""
        body = self._encode(reply)
        if len(body) - 4 > min(longest, 0xFFFF_FFFF):
            body = self._encode(Failed(code=TooLarge.code, message="the answer is longer than the limit (document)"))
        body[:4] = (len(body) - 4).to_bytes(4, "little")
        self._connection.sendall(body)

    def _encode(self, reply: Reply) -> bytearray:
        body = bytearray(4)
        self._replies.encode_into(reply, body, 4)
        return body

    def _exactly(self, size: int) -> bytearray | None:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self._connection.recv_into(view)
            if not got:
                return None
            view = view[got:]
        return data


def confine(hello: Hello, resource_kind: int = resource.RLIMIT_AS) -> None:
    """Keep to the memory allowed, and leave no core files of other people's data behind."""
    _, hard = resource.getrlimit(resource_kind)
    most = hello.memory if hard == resource.RLIM_INFINITY else min(hello.memory, hard)
    resource.setrlimit(resource_kind, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with_parent() -> None:
    """Have the kernel end this process when the server ends, even while the library hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(connection: socket.socket) -> None:
    """Answer requests until the other side closes the connection."""
    channel = Channel(connection)
    hello = channel.receive()
    if not isinstance(hello, Hello):
        return
    confine(hello)
    worker = Worker(hello)
    filters = available_filters()
    channel.send(Ready(filters=filters), longest_reply(hello, 0))
    while (request := channel.receive()) is not None:
        channel.send(worker.answer(request), longest_reply(request, hello.document))


def available_filters() -> tuple[int, ...]:
    """Numbers of the filters that can be undone."""
    return tuple(number for number in _FILTERS if _can_undo(number))


def _can_undo(number: int) -> bool:
    return bool(h5z.filter_avail(number)) and bool(h5z.get_filter_info(number) & h5z.FILTER_CONFIG_DECODE_ENABLED)


def main() -> None:
    """Serve the socket whose descriptor is the only argument."""
    die_with_parent()
    # Ctrl-C in a terminal goes to all processes; the server decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _errors.silence_errors()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
