"""Plain threads that work jobs off: a pool, and what each of its threads does."""

from jobqueue.worker.pool import WorkerPool
from jobqueue.worker.process import finish_threads, start_polling_available_jobs, start_threads, stop_threads

__all__ = ["WorkerPool", "finish_threads", "start_polling_available_jobs", "start_threads", "stop_threads"]
