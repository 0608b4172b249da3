"""A pool of worker threads, as an application sees it."""

import atexit
import os
import threading
import time
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from jobqueue.registry import Registry, default_registry
from jobqueue.service import Service
from jobqueue.threads import Timeout, seconds_of
from jobqueue.worker.crew import Crew

_SECONDS_AT_EXIT: Final = 5.0


class WorkerPool:
    """Worker threads for the jobs of a service whose types are registered; in a ``with`` block it runs to its end.

    A pool runs once. Its settings are the service's. Handlers cannot be registered while it runs.

    Raises:
        ValueError: *threads* is less than 1.
    """

    def __init__(self, service: Service, registry: Registry = default_registry, threads: int = 4) -> None:
        if threads < 1:
            raise ValueError(f"a worker pool needs at least 1 thread, not {threads}")
        self._service = service
        self._registry = registry
        self._threads = threads
        self._process = os.getpid()
        self._crew: Crew | None = None
        self._stopped = False
        self._ending = threading.Lock()
        self._ender: int | None = None
        self._has_ended: bool | None = None

    @property
    def is_running(self) -> bool:
        """Whether the pool was started, and not stopped since."""
        return self._crew is not None and not self._stopped and self._process == os.getpid()

    def start(self) -> None:
        """Start the threads.

        Raises:
            RuntimeError: the pool was started before.
            ClosedError: the service is closed.
        """
        if self._crew is not None:
            raise RuntimeError("a worker pool can be started only once: make a new one")
        self._service.attach(self)
        self._registry.freeze()
        try:
            self._crew = Crew(self._service, self._registry, self._threads)
            self._crew.start()
        except BaseException:
            self._give_up_start()
            raise
        atexit.register(self._finish_at_exit)

    def _give_up_start(self) -> None:
        if self._crew is not None:
            self._crew.stop()
            self._crew.end(time.monotonic())
            self._crew = None
        self._registry.thaw()
        self._service.detach(self)

    def poll_every(self, interval: timedelta) -> None:
        """Have idle threads look at the queue at least this often, if that is more often than they do.

        It holds while the pool runs; before ``start`` it does nothing.
        """
        if self._crew is not None:
            self._crew.poll_every(interval)

    def stop(self) -> None:
        """Claim no more jobs; running ones go on. Returns at once, and is safe twice and before ``start``."""
        if self._crew is not None:
            self._stopped = True
            self._crew.stop()

    def finish(self, timeout: Timeout = None) -> bool:
        """Stop, wait for running jobs and save what they led to; return whether all of that was done.

        When *timeout* (seconds, or a timedelta; None: however long jobs take) has passed, handlers are told so by
        their contexts; the jobs of those that still do not end are released, for another process to take at once, and
        are named in the log. Safe twice, and from several threads.

        Raises:
            RuntimeError: a handler calls this, on the pool that runs it.
        """
        if self._crew is None or self._process != os.getpid():
            return True
        if self._crew.includes_current_thread:
            raise RuntimeError("a handler cannot wait for its own pool to finish: call stop() instead")
        seconds = seconds_of(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        self.stop()
        # A signal handler may call this while its thread is in here already: it cannot wait for itself.
        if self._ender == threading.get_ident() or not self._ending.acquire(timeout=_bounded(seconds)):
            return False
        self._ender = threading.get_ident()
        try:
            if self._has_ended is None:
                self._has_ended = self._end(self._crew, deadline)
            return self._has_ended
        finally:
            self._ender = None
            self._ending.release()

    def _end(self, crew: Crew, deadline: float | None) -> bool:
        ended = crew.end(deadline)
        atexit.unregister(self._finish_at_exit)
        self._registry.thaw()
        self._service.detach(self)
        return ended

    def _finish_at_exit(self) -> None:
        self.finish(_SECONDS_AT_EXIT)

    def __enter__(self) -> Self:
        if not self.is_running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


def _bounded(seconds: float | None) -> float:
    """Return a timeout that a lock accepts; -1 is none."""
    return -1 if seconds is None else max(0.0, seconds)
