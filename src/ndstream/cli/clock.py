"""When the next message is due."""

from __future__ import annotations

import time

from ndstream.cli.ending import Ending


class Clock:
    """Waits until a message is due, counted from the first one; what is late is sent at once.

    Parameters
    ----------
    ending : Ending
    rate : float, optional
        Messages per second; without one nothing is waited for, unless a time is given.
    """

    def __init__(self, ending: Ending, rate: float | None = None) -> None:
        self._ending = ending
        self._rate = rate
        self._begin: float | None = None
        self._sent = 0

    def wait(self, due: float | None = None) -> bool:
        """Wait for the next message; False when the command is to end.

        Parameters
        ----------
        due : float, seconds, optional
            Time since the first message, when it does not follow from the rate.
        """
        if self._begin is None:
            self._begin = time.monotonic()
        if due is None and self._rate:
            due = self._sent / self._rate
        self._sent += 1
        if due is not None and (left := self._begin + due - time.monotonic()) > 0:
            self._ending.wait(left)
        return not self._ending.asked()

    @property
    def elapsed(self) -> float:
        """Seconds since the first message."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin
