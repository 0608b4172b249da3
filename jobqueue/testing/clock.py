"""The clock that a test moves."""

from contextlib import ExitStack
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from jobqueue.clock import going_by, present
from jobqueue.limits import check_moment

_in_force: ContextVar["Clock | None"] = ContextVar("jobqueue_test_clock", default=None)


def clock_in_force() -> "Clock | None":
    """Return the clock of the innermost block here."""
    return _in_force.get()


class Clock:
    """A clock that stands still until the test moves it, and never goes back.

    In a ``with`` block it is in force: all that this thread (or task) does with jobs goes by it. What is enqueued is
    enqueued at that moment, and due so long after it; schedules count their ticks from it; ``drain`` runs what is due
    by it. It begins at *start*, or else at the moment at which it is made. Whatever else an application does with time,
    such as ``datetime.now()``, goes on as ever.

    Raises:
        InvalidJobError: *start* is no aware datetime.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = check_moment("start", start) or present()
        self._drained_until = self._now
        self._blocks: list[ExitStack] = []

    def now(self) -> datetime:
        """Return what time it is."""
        return self._now

    def advance(self, by: timedelta | None = None, **parts: float) -> datetime:
        """Let time pass: ``advance(timedelta(hours=3))`` or ``advance(hours=3)``; return what time it is then.

        Raises:
            ValueError: that would be back in time.
            TypeError: it is neither; or both.
        """
        if (by is None) is not bool(parts):
            raise TypeError("advance() takes a timedelta, or its parts by name: advance(hours=3)")
        step = timedelta(**parts) if by is None else by
        if not isinstance(step, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
            raise TypeError(f"advance() takes a timedelta, not {step!r:.60}: advance(hours=3)")
        return self.move_to(self._now + step)

    def move_to(self, moment: datetime) -> datetime:
        """Have it be *moment*, and return that.

        Raises:
            ValueError: that would be back in time.
            InvalidJobError: *moment* is no aware datetime.
        """
        checked = check_moment("moment", moment)
        if checked is None or checked < self._now:
            raise ValueError(f"a clock never goes back: it is {self._now}, which is after {checked}")
        self._now = checked
        return self._now

    def catch_up(self, now: datetime) -> Self:
        """Have it be no earlier than *now*; return itself."""
        self._now = max(self._now, now)
        return self

    @property
    def drained_until(self) -> datetime:
        """Up to which moment ``drain`` has come."""
        return self._drained_until

    def note_drained(self, moment: datetime) -> None:
        """Have the next ``drain`` go on from *moment*."""
        self._drained_until = moment

    def __enter__(self) -> Self:
        block = ExitStack()
        block.enter_context(going_by(self.now))
        block.callback(_in_force.reset, _in_force.set(self))
        self._blocks.append(block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.pop().close()

    def __repr__(self) -> str:
        return f"Clock({self._now.astimezone(UTC).isoformat()})"
