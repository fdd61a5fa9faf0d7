"""Remote objects have nothing of their own to close."""

from __future__ import annotations

from types import TracebackType


class Lasting:
    """Closing does nothing, here only because objects of files in other libraries can be closed.

    The connection belongs to everything that was opened on a server. An object is true, however many members it has.
    """

    def close(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __bool__(self) -> bool:
        return True
