"""Threads that can be stopped, and the bell that wakes those that wait: nothing here knows of jobs."""

import contextvars
import logging
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)


Timeout = float | timedelta | None
"""How long somebody is ready to wait: seconds, or a timedelta; None: for ever."""


def seconds_of(timeout: Timeout) -> float | None:
    """Return *timeout* in seconds; more than a thread can wait is for ever.

    Raises:
        TypeError: it is neither a number, nor a timedelta, nor None.
        ValueError: it is NaN.
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if seconds is not None and not isinstance(seconds, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise TypeError(f"a timeout is a number of seconds, a timedelta or None, not {timeout!r:.40}")
    if seconds != seconds:  # noqa: PLR0124 - as only NaN does; isnan() cannot hold a large int
        raise ValueError("a timeout cannot be NaN")
    return None if seconds is None or seconds > threading.TIMEOUT_MAX else seconds


class StoppableThread(ABC):
    """A thread that its owner starts once, asks to stop, and joins.

    ``stop`` only asks; it never blocks, and is safe twice and before ``start``. ``with`` does all three.
    """

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        context = contextvars.copy_context()
        # A daemon as a safety net only: an owner that forgets to join must not keep the interpreter alive.
        self._thread = threading.Thread(target=context.run, args=(self.run,), name=name, daemon=True)
        self._backoff = Backoff()

    @abstractmethod
    def run(self) -> None:
        """Work until ``self._stopping`` is set."""

    def _attempt(self, step: Callable[[], object]) -> None:
        """Take one step of a loop that has to go on whatever happens; after an error, log it and pause."""
        try:
            step()
        except Exception:
            if self._stopping.is_set():
                return  # what the step needed may be gone already
            logger.exception("%s goes on after an error of its own", self.name)
            self._stopping.wait(self._backoff.next())
        else:
            self._backoff.reset()

    @property
    def name(self) -> str:
        """What the thread is called in logs and dumps."""
        return self._thread.name

    @property
    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether this is the thread that asks."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start the thread; once in its life."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait up to *timeout* seconds for the thread to end; return whether it has (or was never started)."""
        if self._thread.ident is not None and not self.is_current:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.join()


class Backoff:
    """How long a loop waits after errors in a row: twice as long each time, up to a cap, with jitter."""

    def __init__(self, first: float = 0.1, cap: float = 5.0) -> None:
        self._first = first
        self._cap = cap
        self._next = first

    def next(self) -> float:
        """Return how many seconds to wait after one more error."""
        wait = self._next
        self._next = min(wait * 2, self._cap)
        return wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads processes, guards nothing

    def reset(self) -> None:
        """Start over, after a success."""
        self._next = self._first
