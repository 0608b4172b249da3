"""The worker threads of this process: one pool over the current service and the default registry."""

import threading
from datetime import timedelta

from jobqueue.context import current_service
from jobqueue.errors import JobQueueError
from jobqueue.worker.pool import WorkerPool

_lock = threading.Lock()
_pool: WorkerPool | None = None


def start_threads(n: int) -> WorkerPool:
    """Start *n* worker threads on the current service, for all registered handlers.

    Raises:
        ValueError: *n* is less than 1.
        JobQueueError: worker threads are running already.
        NotInitializedError: there is no current service.
    """
    global _pool  # noqa: PLW0603 - the pool of the process, for those who need no more than one
    with _lock:
        if _pool is not None and _pool.is_running:
            raise JobQueueError("worker threads are running already: call finish_threads() first")
        pool = WorkerPool(current_service(), threads=n)
        if _pool is not None:
            _pool.finish()
        pool.start()
        _pool = pool
        return pool


def stop_threads() -> None:
    """Claim no more jobs; running ones go on. Returns at once; without threads it does nothing."""
    pool = _pool
    if pool is not None:
        pool.stop()


def finish_threads(timeout: float | timedelta | None = None) -> bool:
    """Stop the worker threads and wait until their jobs have ended and are saved; see ``WorkerPool.finish``.

    Returns False when something had not ended within *timeout* (seconds, or a timedelta). Without threads it does
    nothing, and returns True.
    """
    pool = _pool
    return True if pool is None else pool.finish(timeout)
