"""The worker threads of this process: one pool over the current service and the default registry."""

import logging
import os
import sys
import threading
from collections.abc import Iterable
from datetime import timedelta

from jobqueue.context import current_service
from jobqueue.errors import JobQueueError
from jobqueue.middleware import WorkMiddleware
from jobqueue.threads import Timeout, seconds_of
from jobqueue.worker.lanes import Lanes
from jobqueue.worker.pool import WorkerPool

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_pool: WorkerPool | None = None
_poll_interval: timedelta | None = None  # the shortest that was asked for while no threads ran
_program: str | None = None  # what runs a pool of its own in this process


def leave_threads_to(program: str) -> None:
    """Have those who start threads wherever they are loaded start none in this process, which *program* works in."""
    global _program  # noqa: PLW0603 - as there is one process
    _program = program


def has_program() -> bool:
    """Whether a program has a pool of its own in this process, so that nobody else starts threads."""
    return _program is not None


def are_left_out(what: str) -> bool:
    """Whether *what* was called to start threads where a program has a pool of its own; then a warning says so."""
    if not has_program():
        return False
    logger.warning(
        "%s starts nothing in this process, where `%s` runs a pool of its own: its options say how many threads and "
        "lanes that has, and service.use_in_workers(...) gives it middleware",
        what,
        _program,
    )
    return True


def start_threads(n: int, *, middleware: Iterable[WorkMiddleware] = (), lanes: Lanes | None = None) -> WorkerPool:
    """Start *n* worker threads on the current service, for all registered handlers.

    Every run passes through *middleware*, the first outermost. Of the threads, *lanes* reserves some for jobs of a type
    or pattern; see ``WorkerPool``.

    When ``stop_threads`` has left jobs running, these are waited for. In a process of ``jobqueue worker``, which runs a
    pool of its own, none is started: the log says so, and the pool that is returned is not running.

    Raises:
        TypeError: *n* is no int, or *lanes* no mapping.
        ValueError: *n* is less than 1, or *lanes* leaves none of them for jobs of any type.
        RegistrationError: a lane is for jobs that have no handler.
        JobQueueError: worker threads are running already.
        NotInitializedError: there is no current service.
    """
    global _pool, _poll_interval
    pool, leftover = WorkerPool(current_service(), threads=n, lanes=lanes), _pool
    for each in middleware:
        pool.use(each)
    if are_left_out(f"start_threads({n})"):
        return pool
    # Not under the lock, which the jobs that are waited for may want.
    if leftover is not None and not leftover.is_running:
        leftover.finish()
    with _lock:
        if _pool is not None and _pool.is_running:
            raise JobQueueError("worker threads are running already: call finish_threads() first")
        pool.start()
        if _poll_interval is not None:
            pool.poll_every(_poll_interval)
        _pool, _poll_interval = pool, None
        return pool


def start_polling_available_jobs(interval: timedelta | float) -> None:
    """Have idle worker threads look at the queue every *interval* (a timedelta, or seconds), until they are stopped.

    They do so every ``WorkerSettings.poll_interval`` anyway; this is for more often. May be called before
    ``start_threads`` or after it, and several times: the shortest interval counts.

    Raises:
        TypeError: *interval* is neither a timedelta nor a number.
        ValueError: *interval* is zero or negative, or without an end.
    """
    global _poll_interval  # noqa: PLW0603 - as there is one pool of the process, for those who need no more
    seconds = seconds_of(interval)
    if seconds is None:
        raise ValueError(f"a poll interval has an end, which {interval} has not")
    if seconds < 0:
        raise ValueError(f"a poll interval cannot be negative, as {interval} is")
    if not seconds:
        raise ValueError("a poll interval cannot be zero: that would be a busy loop")
    wanted = timedelta(seconds=seconds)
    with _lock:
        if _pool is not None and _pool.is_running:
            _pool.poll_every(wanted)
        else:
            _poll_interval = wanted if _poll_interval is None else min(_poll_interval, wanted)


def stop_threads() -> None:
    """Claim no more jobs; running ones go on. Returns at once; without threads it does nothing."""
    _forget_polling()
    pool = _pool
    if pool is not None:
        pool.stop()


def finish_threads(timeout: Timeout = None) -> bool:
    """Stop the worker threads and wait until their jobs have ended and are saved; see ``WorkerPool.finish``.

    Returns False when something had not ended within *timeout* (seconds, or a timedelta). Without threads it does
    nothing, and returns True.
    """
    _forget_polling()
    pool = _pool
    return True if pool is None else pool.finish(timeout)


def end_threads() -> bool:
    """Stop the worker threads, and release at once the jobs that still run; return whether threads were running.

    That takes as long as ``finish_threads(0)``.
    """
    were_running = _pool is not None and _pool.is_running
    finish_threads(0)
    return were_running


def _forget_polling() -> None:
    global _poll_interval  # noqa: PLW0603 - as above
    _poll_interval = None


def _begin_anew() -> None:
    """Forget, in a forked child, the threads of its parent, and a lock that one of them may hold for ever."""
    global _lock, _pool, _poll_interval, _program
    _lock, _pool, _poll_interval, _program = threading.Lock(), None, None, None


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_begin_anew)
