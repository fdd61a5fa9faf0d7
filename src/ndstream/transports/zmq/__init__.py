"""ZeroMQ: bytes in parts over sockets of one direction. The only place that imports zmq."""

from ndstream.errors import MissingExtra

try:
    import zmq as _zmq  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra("message streams need the 'stream' extra: pip install 'ndstream[stream]'") from error
