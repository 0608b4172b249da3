"""When a pool looks at the queue: at once when it has a reason to, and now and then without one."""

import time
from datetime import timedelta
from typing import Final

_NEVER_LOOKED: Final = 0.0


class Looks:
    """Reasons to look at the queue, and when the next look is due without one. Called under the dispatcher's lock.

    A reason that comes up while somebody is looking stands: the look may have been too early for it.
    """

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._reasons = 1  # so far
        self._heeded = 0  # how many there were when the last look that found too little began
        self._at = _NEVER_LOOKED

    @property
    def poll_seconds(self) -> float:
        """How long at most nobody looks."""
        return self._poll_seconds

    @property
    def due_at(self) -> float:
        """When, by the monotonic clock, the next look is, or was, due."""
        return _NEVER_LOOKED if self._reasons > self._heeded else self._at

    def is_due(self, now: float) -> bool:
        """Whether it is time to look."""
        return now >= self._at or self._reasons > self._heeded

    def add_reasons(self, n: int = 1) -> None:
        """Have the queue looked at."""
        self._reasons += n

    def begin(self) -> int:
        """Note that somebody looks now; return what to tell ``heed`` when too little was found."""
        self._at = time.monotonic() + self._poll_seconds
        return self._reasons

    def heed(self, reasons: int) -> None:
        """Note that a look, begun when there were so many reasons, has found all that was there."""
        self._heeded = max(self._heeded, reasons)

    def expect_within(self, delay: timedelta | None) -> None:
        """Look again after *delay*, if any, at the latest: another look may know of an earlier moment."""
        if delay is not None:
            self._at = min(self._at, time.monotonic() + delay.total_seconds())

    def expect_at(self, moment: float) -> None:
        """Look again at *moment*, by the monotonic clock, at the latest."""
        self._at = min(self._at, moment)

    def poll_every(self, seconds: float) -> None:
        """Look at least this often, from now on."""
        self._poll_seconds = min(self._poll_seconds, seconds)
        self._at = min(self._at, time.monotonic() + self._poll_seconds)
