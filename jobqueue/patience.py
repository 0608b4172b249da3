"""How long calls of a thread may wait for the backend, where their caller is less patient than it is."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import Final

_LEAST_SECONDS: Final = 1.0

_deadline: Final[ContextVar[float]] = ContextVar("jobqueue_deadline", default=inf)


@contextmanager
def patience(seconds: float | None, *, at_least: float = _LEAST_SECONDS) -> Generator[None]:
    """Have calls within the block wait for no longer than *seconds* in all; None: as long as the backend.

    One second, or *at_least*, is granted in any case: even who wants to look only once may need a new connection.
    """
    token = _deadline.set(inf if seconds is None else time.monotonic() + max(seconds, at_least))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_to_connect(most: float) -> float:
    """Return for how many seconds to wait for a connection, if nobody waits longer than *most*."""
    return _seconds_left(most)


def seconds_to_answer(most: float) -> float:
    """Return for how many seconds to wait for an answer, if nobody waits longer than *most*."""
    return _seconds_left(most)


def _seconds_left(most: float) -> float:
    deadline = _deadline.get()
    return most if deadline == inf else max(0.0, min(most, deadline - time.monotonic()))
