"""What each process of ``flask jobqueue worker`` does before it works."""

from collections.abc import Mapping, Sequence

from flask.cli import NoAppException, ScriptInfo

from jobqueue.contrib.flask.app_queue import AppQueue
from jobqueue.errors import JobQueueError
from jobqueue.middleware import LogRuns
from jobqueue.registry import Registry
from jobqueue.worker import WorkerPool
from jobqueue.worker.lanes import types_within


def set_up(
    *, app: str | None, threads: int | None, types: Sequence[str], lanes: Mapping[str, int], log_runs: bool
) -> WorkerPool:
    """Load an application as Flask does, by its import path, and return a pool that does its jobs.

    Raises:
        JobQueueError: there is no such application, or it has no job queue, or no handlers.
    """
    try:
        loaded = ScriptInfo(app_import_path=app).load_app()
    except NoAppException as error:
        raise JobQueueError(error.format_message()) from error
    queue = loaded.extensions.get("jobqueue")
    if not isinstance(queue, AppQueue):
        raise JobQueueError(f"the Flask application {loaded.name!r} has no job queue: call JobQueue().init_app(app)")
    service = queue.service  # imports what JOBQUEUE_IMPORTS names
    pool = queue.pool_on(service, threads, lanes or None, _only(types, queue.registry))
    if log_runs:
        pool.use(LogRuns())
    return pool


def _only(types: Sequence[str], registry: Registry) -> Registry:
    if not types:
        return registry
    within = {each: types_within(each, registry) for each in types}
    if missing := [each for each, found in within.items() if not found]:
        known = ", ".join(registry.patterns()) or "none"
        raise JobQueueError(f"jobs of type {missing[0]!r} have no handler here: there are handlers for {known}")
    return registry.only(name for found in within.values() for name in found)
