"""The names of ``mflow.utils``."""

from ndstream.streams.merge import Merge
from ndstream.streams.throughput import ThroughputStatistics, ThroughputStatisticsPrinter
from ndstream.transports.zmq.monitor import ConnectionCountMonitor, SocketEventListener, no_clients_timeout_notifier

__all__ = [
    "ConnectionCountMonitor",
    "Merge",
    "SocketEventListener",
    "ThroughputStatistics",
    "ThroughputStatisticsPrinter",
    "no_clients_timeout_notifier",
]
