"""How long calls of a thread may wait for a connection, where their caller is less patient than the backend."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import Final

_LEAST_SECONDS: Final = 1.0

_patience: Final[ContextVar[float]] = ContextVar("jobqueue_patience", default=inf)


@contextmanager
def patience(seconds: float | None) -> Generator[None]:
    """Have calls within the block wait for a connection for no longer than *seconds*; None: as long as the backend.

    One second is granted in any case: even who wants to look only once may need a new connection for it.
    """
    token = _patience.set(inf if seconds is None else max(seconds, _LEAST_SECONDS))
    try:
        yield
    finally:
        _patience.reset(token)


def seconds_to_connect(most: float) -> float:
    """Return for how many seconds to wait for a connection, if nobody waits longer than *most*."""
    return min(most, _patience.get())
