"""Counting requests, as cheaply as that can be."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper ends, in seconds, of the latency histogram."""


class Meter:
    """Requests of one protocol; plain numbers, so that counting costs next to nothing.

    Attributes
    ----------
    requests : dict of int to int
        HTTP status to number of answers; 499 for a client that went away, 0 when nothing was answered.
    active : int
        Requests that are being answered or wait.
    sent : int
        Bytes of bodies handed to the connections.
    """

    __slots__ = ("active", "buckets", "name", "requests", "seconds", "sent")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: dict[int, int] = {}
        self.active = 0
        self.sent = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    def done(self, status: int, seconds: float) -> None:
        """Count a finished request."""
        self.requests[status] = self.requests.get(status, 0) + 1
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
