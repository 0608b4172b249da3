"""A pool of worker threads, as an application sees it."""

import atexit
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from jobqueue.errors import ClosedError
from jobqueue.middleware import WorkMiddleware, check_work_middleware
from jobqueue.registry import Registry, default_registry
from jobqueue.service import Service
from jobqueue.threads import Timeout, seconds_of
from jobqueue.worker.crew import Crew
from jobqueue.worker.gate import GateFunction
from jobqueue.worker.lanes import Lanes, check_lanes

_SECONDS_AT_EXIT: Final = 5.0


class WorkerPool:
    """Worker threads for the jobs of a service whose types are registered; in a ``with`` block it runs to its end.

    A pool runs once. Its settings are the service's. Handlers cannot be registered while it runs. When the interpreter
    exits, pools that still run are finished, for at most 5 seconds. In a forked child, which has none of its threads,
    a pool has nothing to stop or to finish, and cannot be started.

    Of the threads, *lanes* reserves some for jobs of a type, or of those that a pattern covers: ``{"mail": 2}``. They
    run no other jobs; those that are not reserved run any.

    Raises:
        TypeError: *threads* is no int, or *lanes* no mapping.
        ValueError: *threads* is less than 1, or *lanes* leaves none of them for jobs of any type.
    """

    def __init__(
        self,
        service: Service,
        registry: Registry = default_registry,
        threads: int = 4,
        *,
        lanes: Lanes | None = None,
    ) -> None:
        self._threads = _check_threads(threads)
        self._lanes = check_lanes(lanes, threads)
        self._is_open: GateFunction | None = None
        self._service = service
        self._registry = registry
        self._process = os.getpid()
        self._crew: Crew | None = None
        self._stopped = False
        self._changing = threading.Lock()
        self._callers = dict[int, bool]()  # threads that change the pool, and whether to stop it is left to them
        self._has_ended: bool | None = None
        self._middleware: tuple[WorkMiddleware, ...] = ()

    @property
    def service(self) -> Service:
        """Whose jobs it runs."""
        return self._service

    @property
    def registry(self) -> Registry:
        """Where its handlers are registered."""
        return self._registry

    @property
    def is_running(self) -> bool:
        """Whether the pool was started, and not stopped since."""
        return self._crew is not None and not self._stopped and not self._is_inherited

    @property
    def _is_inherited(self) -> bool:
        """Whether this process was forked from the one that made the pool."""
        return self._process != os.getpid()

    @contextmanager
    def _calling(self) -> Generator[None]:
        """Note that this thread changes the pool: a signal handler that interrupts it cannot wait for that.

        If it stops the pool, that is done at the end of the block.
        """
        me = threading.get_ident()
        self._callers[me] = False
        try:
            yield
        finally:
            if self._callers.pop(me):
                self.stop()

    @property
    def _interrupts_a_call(self) -> bool:
        return threading.get_ident() in self._callers

    def use(self, middleware: WorkMiddleware) -> None:
        """Have every run pass through *middleware*, within what was added before.

        Raises:
            TypeError: it cannot be called with a context and a run.
            RuntimeError: the pool was started before.
        """
        check_work_middleware(middleware)
        if self._crew is not None:
            raise RuntimeError("middleware is added before a worker pool is started")
        self._middleware += (middleware,)

    def set_gate(self, is_open: GateFunction | None) -> None:
        """Have ``is_open(job_type)`` say what this pool may claim now, in place of any other; None: everything.

        It is asked before each claim about each type and pattern that has a handler. What is closed is not claimed, and
        asked about again after 100 ms while a thread is idle. A type that has only come by a pattern is asked about
        when its job is about to start; when it is closed, the job is given back, and that costs it nothing. An error
        counts as closed: it is logged when it first occurs, and told to ``set_on_error``. The function is called by
        worker threads, and should be quick: as long as it takes, nothing is claimed, though outcomes are saved.

        Raises:
            TypeError: *is_open* cannot be called.
        """
        if is_open is not None and not callable(is_open):
            raise TypeError(f"a gate must be callable, which {is_open!r:.60} is not")
        self._is_open = is_open
        if self._crew is not None and not self._is_inherited:
            with self._calling():
                self._crew.set_gate(is_open)

    def start(self) -> None:
        """Start the threads.

        Raises:
            RuntimeError: the pool was started before.
            ClosedError: the service is closed, or the pool belongs to a process from which this one was forked.
            RegistrationError: a lane is for jobs that have no handler, or there are too few ``atomic_connections`` for
                the lanes of atomic handlers.
        """
        if self._is_inherited:
            raise ClosedError(
                f"this worker pool belongs to process {self._process}, from which this one ({os.getpid()}) was "
                "forked: threads do not survive a fork, so connect after it, and start a pool on that service"
            )
        with self._calling(), self._changing:
            if self._crew is not None:
                raise RuntimeError("a worker pool can be started only once: make a new one")
            self._service.attach(self)
            self._registry.freeze()
            try:
                self._crew = Crew(
                    self._service,
                    self._registry,
                    self._threads,
                    (*self._service.work_middleware, *self._middleware),
                    lanes=self._lanes,
                    is_open=self._is_open,
                )
                self._crew.start()
            except BaseException:
                self._give_up_start()
                raise
            _finish_at_exit_too(self)

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
        if self._crew is not None and not self._is_inherited:
            with self._calling():
                self._crew.poll_every(interval)

    def stop(self) -> None:
        """Claim no more jobs; running ones go on. Returns at once, and is safe twice and before ``start``."""
        if self._is_inherited:
            return
        if self._interrupts_a_call:
            self._callers[threading.get_ident()] = self._stopped = True
        elif self._crew is not None:
            self._stopped = True
            with self._calling():
                self._crew.stop()

    def finish(self, timeout: Timeout = None) -> bool:
        """Stop, wait for running jobs and save what they led to; return whether all of that was done.

        When *timeout* (seconds, or a timedelta; None: however long jobs take) has passed, handlers are told so by
        their contexts; the jobs of those that still do not end are released, for another process to take at once, and
        are named in the log. That takes two seconds more, and one or two when the database does not answer. Safe
        twice, and from several threads.

        A signal handler had better set a flag for the main thread to finish the pool. If it calls this itself, it
        should give a *timeout*: what it interrupts may hold a lock that a job waits for, such as that of a logger. When
        it interrupts another call of the pool, this returns False at once.

        Raises:
            RuntimeError: a handler calls this, on the pool that runs it.
        """
        if self._is_inherited:
            return True
        seconds = seconds_of(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        if self._crew is not None and self._crew.includes_current_thread:
            raise RuntimeError("a handler cannot wait for its own pool to finish: call stop() instead")
        self.stop()
        if self._interrupts_a_call:
            return False
        with self._calling():
            if not self._changing.acquire(timeout=_bounded(seconds)):
                return False
            try:
                # Another thread may have been about to start it.
                if self._has_ended is None and self._crew is not None:
                    self._has_ended = self._end(self._crew, deadline)
                return self._has_ended is not False
            finally:
                self._changing.release()

    def hurry(self) -> None:
        """Have a ``finish`` that waits in another thread go on as if its timeout had passed; returns at once."""
        if self._crew is not None and not self._is_inherited:
            with self._calling():
                self._crew.hurry()

    def _end(self, crew: Crew, deadline: float | None) -> bool:
        self._stopped = True
        crew.stop()
        ended = crew.end(deadline)
        _running.discard(self)
        self._registry.thaw()
        self._service.detach(self)
        return ended

    def __enter__(self) -> Self:
        if not self.is_running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


def _check_threads(threads: object) -> int:
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise TypeError(f"threads must be an int, not {type(threads).__qualname__} {threads!r:.40}")
    if threads < 1:
        raise ValueError(f"a worker pool needs at least 1 thread, not {threads}")
    return threads


def _bounded(seconds: float | None) -> float:
    """Return a timeout that a lock accepts; -1 is none."""
    return -1 if seconds is None else max(0.0, seconds)


_running: Final = set[WorkerPool]()


def _finish_at_exit_too(pool: WorkerPool) -> None:
    """Have *pool* finished with the others, before anything is undone that was there when it was started."""
    _running.add(pool)
    atexit.unregister(_finish_at_exit)
    atexit.register(_finish_at_exit)


def _finish_at_exit() -> None:
    deadline = time.monotonic() + _SECONDS_AT_EXIT
    pools = list(_running)
    for pool in pools:
        pool.stop()
    for pool in pools:
        pool.finish(max(0.0, deadline - time.monotonic()))
