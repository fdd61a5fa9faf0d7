"""Every limit of ndstream, in one value.

A limit is passed in, never read from a global: servers get theirs from the configuration, clients from
`ndstream.open`. Sizes are in bytes, times in seconds, unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Bytes: TypeAlias = int
Seconds: TypeAlias = float

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30

SLOWEST = 16 * KiB
"""Bytes per second below which what a peer sends is cut off, once it has used up its time."""
LARGEST_ELEMENT = 64 * MiB
"""Bytes of one element of a type that a peer describes."""
LARGEST_DATASET = (1 << 63) - 1
"""Elements of a dataset, stored or not, and bytes of one that is not chunked; HDF5 cannot open larger ones again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server or a client accepts before it says no.

    The comment of each field is its documentation in the reference of the configuration file. `Bytes` and `Seconds`
    say the unit; a size may be written "64 MiB" there.
    """

    # -- requests --
    request_head: Bytes = 1 * MiB  #: longest request line and headers together
    request_body: Bytes = 256 * MiB  #: longest body of a request that is read
    socket_message: Bytes = 64 * KiB  #: longest message that is taken from the client of a WebSocket
    selections: int = 1 << 24  #: ranges, or index points, in one request
    selection_text: int = 1 << 23  #: characters of a selection in text form
    path_length: int = 4096  #: characters of a virtual path or of the name of an object
    requests_per_user: int = 6  #: requests served at once for one user or address, others wait; 0 = no limit
    # -- memory of the server --
    piece: Bytes = 8 * MiB  #: bytes that are read, decoded and sent in one go
    request_memory: Bytes = 48 * MiB  #: bytes one request may hold at a time, however much it reads
    buffers: Bytes = 128 * MiB  #: bytes of data that are made at a time, for all requests together; others wait
    spool: Bytes = 8 * GiB  #: bytes of temporary file one request may use, or a batch go through besides its data
    chunk_cache: Bytes = 32 * MiB  #: decoded chunks kept for small reads
    layout_cache: Bytes = 64 * MiB  #: chunk indexes and descriptions kept
    document: Bytes = 256 * MiB  #: longest description (not counting streamed data) that is built or accepted
    # -- what a file may ask for --
    chunk: Bytes = 1 * GiB  #: largest stored or decoded chunk that is read
    chunk_index: int = 1 << 22  #: chunks of one dataset that are indexed; more are read through the HDF5 library
    links: int = 1 << 20  #: links of one group that are listed
    link_depth: int = 32  #: soft and external links followed for one name
    inline_data: Bytes = 64 * KiB  #: data of a dataset that a worker sends with the description
    # -- workers --
    workers: int = 0  #: processes that hold the HDF5 library; 0 = one per core, at least two
    worker_timeout: Seconds = 30.0  #: seconds one call of the HDF5 library may take
    worker_memory: Bytes = 4 * GiB  #: address space of a worker
    worker_strikes: int = 2  #: crashes or hangs after which a file is put aside until it changes
    open_files: int = 32  #: files one worker keeps open
    # -- writing --
    operations: int = 100_000  #: operations in one batch
    write_queue: Bytes = 1 * GiB  #: data that waits to be written to one file; more has to wait outside
    write_timeout: Seconds = 600.0  #: seconds one commit may take before its writer is given up
    reader_patience: Seconds = 5.0  #: seconds a commit waits for a reader of what it changes, before that fails
    writers: int = 32  #: files that are written at a time, each by a process; more let those go that are idle
    writer_idle: Seconds = 60.0  #: seconds after the last write until the file is let go
    events: int = 1024  #: commits of one file that are remembered for those who follow it
    batch_keys: int = 4096  #: keys of batches of one file that are remembered, so that none is carried out twice
    journal: Bytes = 64 * MiB  #: journal of a file that is written, beyond which it is emptied
    # -- connections over TCP, without HTTP --
    connections: int = 256  #: connections of one protocol over TCP; more are refused
    frame: Bytes = 256 * MiB  #: longest frame of a protocol over TCP, in each direction
    values: int = 1 << 22  #: values in one message over TCP; an array is one, however long
    frames: Bytes = 1 * GiB  #: frames that arrive, of all connections together; beyond it only the oldest is read on
    replies: Bytes = 1 * GiB  #: replies that peers have not taken, of all connections together; others wait
    in_flight: int = 64  #: requests of one connection that are under way; more are not read
    follows: int = 8  #: streams of events that one connection may have at a time
    frame_timeout: Seconds = 60.0  #: seconds in which a frame that has begun must go on, and at a fair rate
    # -- clients --
    read_part: Bytes = 256 * MiB  #: bytes that a client asks for in one request; longer reads are made in parts
    read_requests: int = 4  #: parts of one read that a client asks for at once
    read_memory: Bytes = 256 * MiB  #: bytes that stored chunks, and what becomes of them, take in one such request
    block_cache: Bytes = 0  #: bytes of data that a client keeps for small reads; 0 = none
    # -- messages in flight --
    message_parts: int = 1 << 16  #: parts of one message of a stream
    message_part: Bytes = 1 * GiB  #: longest part of a message
    message_header: Bytes = 4 * MiB  #: longest header of a message, as sent and decompressed
    message_depth: int = 64  #: lists and maps within each other in a header
    message_array: Bytes = 1 * GiB  #: largest array that a message may declare, decompressed
    stream_queue: Bytes = 256 * MiB  #: messages that wait in a sender that drops the oldest when its peers are slow
    record_gap: int = 1 << 20  #: frames that may be missing in a row, in a recording; beyond that none gets a place
    # -- time --
    idle_timeout: Seconds = 60.0  #: seconds after which a silent connection is closed: no request, no answer to a ping
    send_timeout: Seconds = 300.0  #: seconds a peer may take nothing of an answer before it is cut off
    connect_timeout: Seconds = 10.0  #: seconds a client waits for a connection
    read_timeout: Seconds = 120.0  #: seconds a client waits for the next bytes
    retries: int = 2  #: times a client repeats a safe request after a lost connection


DEFAULT_LIMITS = Limits()
