"""What time it is for those who add and manage jobs here: the real time, unless a test has put another in force."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

import attrs


@attrs.define(eq=False)
class _Reading:
    """A clock within its block. A context that was copied there may outlive that, as a thread's does."""

    now: Callable[[], datetime]
    is_over: bool = False


_in_force: ContextVar[_Reading | None] = ContextVar("jobqueue_clock", default=None)


@contextmanager
def going_by(now: Callable[[], datetime]) -> Generator[None]:
    """Go by *now* within the block: in this thread (or task), and those it starts."""
    reading = _Reading(now)
    token = _in_force.set(reading)
    try:
        yield
    finally:
        reading.is_over = True
        _in_force.reset(token)


def moved_now() -> datetime | None:
    """Return the moment that a test has moved to; None when it is the real one that counts."""
    reading = _in_force.get()
    return None if reading is None or reading.is_over else reading.now()


def present() -> datetime:
    """Return what time it is, by this machine's clock where no test has put another in force."""
    return moved_now() or datetime.now(UTC)
