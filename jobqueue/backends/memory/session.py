"""The way of one store to its queue: open until the store closes, by the store's clock."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from jobqueue.backends.memory.change import Change
from jobqueue.backends.memory.queue import MemoryQueue
from jobqueue.backends.memory.rows import Rows
from jobqueue.errors import ClosedError


class Session:
    """Reads and changes a queue.

    *now* is for tests that move the clock: what it returns, unless None, takes the place of this machine's time.
    """

    def __init__(self, queue: MemoryQueue, now: Callable[[], datetime | None]) -> None:
        self.queue = queue
        self.now = now
        self._closed = False

    def reading(self) -> AbstractContextManager[Rows]:
        """Look at the rows within the block. Raises ClosedError."""
        self._check_open()
        return self.queue.reading()

    def changing(self) -> AbstractContextManager[Change]:
        """Change the rows within the block, and tell of it. Raises ClosedError."""
        self._check_open()
        return self.queue.changing(self.moment)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the service was closed")

    def moment(self) -> datetime:
        """Return what time it is."""
        return self.now() or datetime.now(UTC)

    def close(self) -> bool:
        """Read and change nothing any more; return whether it was open."""
        was_open, self._closed = not self._closed, True
        return was_open
