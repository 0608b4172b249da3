"""For tests of applications: run jobs at once, or ignore them, within a ``with`` block and this thread (or task).

What is started within the block from a copy of its context, as worker threads are, is affected while the block lasts.
Blocks can be nested; whatever is ignored by any of them is not run by another. As long as there is no current service,
a DoNothingService stands in for it within the block, so that no database is needed.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import attrs

from jobqueue.answers import Discard, Snooze
from jobqueue.backends.nothing import DoNothingService
from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.context import current_service, standing_in
from jobqueue.errors import NotInitializedError
from jobqueue.execution import reason_of, run_now
from jobqueue.middleware import AddMiddleware, adding_through
from jobqueue.models import Job
from jobqueue.payload import dump_json
from jobqueue.registry import Registry, default_registry
from jobqueue.service import Service

__all__ = ["ignore_job_bundles", "ignore_jobs", "synchronous_jobs"]


@contextmanager
def synchronous_jobs(registry: Registry = default_registry) -> Generator[None]:
    """Run the handler of each job that is added within the block then and there, in this thread; store nothing.

    Whatever a handler raises is raised to whoever adds the job: there are no retries. The job that is returned has the
    result. What is due later is run now, but a job that is snoozed is not run again: it has not stopped. Of a bundle
    the jobs are run in order until one fails; when all of them have stopped, the job that it adds then is run, and the
    listeners for bundles are called. The caller's ``connection`` is not used. Of several such blocks the innermost one
    counts.

    Raises (from what adds a job):
        HandlerNotFoundError: *registry* has no handler for the job's type.
        PayloadError: the payload is not what the handler takes, or its result cannot be stored as JSON.
    """
    with _middleware(_RunNow(registry), outermost=False):
        yield


@contextmanager
def ignore_jobs(type: str | None = None, predicate: Callable[[Job], bool] | None = None) -> Generator[list[Job]]:
    """Neither store nor run jobs that are added within the block; give a list of them.

    With *type*, only jobs of this type are ignored; with *predicate*, only those for which it is true. Not asked for is
    what belongs to a bundle, its members and the job that it adds in the end: see ``ignore_job_bundles``.
    """
    ignored: list[Job] = []

    def is_ignored(job: Job) -> bool:
        return (type is None or job.type == type) and (predicate is None or predicate(job))

    with _middleware(_IgnoreJobs(is_ignored, ignored), outermost=True):
        yield ignored


@contextmanager
def ignore_job_bundles(
    type: str | None = None, predicate: Callable[[JobBundle], bool] | None = None
) -> Generator[list[JobBundle]]:
    """Neither store nor run bundles that are added within the block, nor their jobs; give a list of them.

    With *type*, only bundles of this type are ignored; with *predicate*, only those for which it is true.
    """
    ignored: list[JobBundle] = []

    def is_ignored(bundle: JobBundle) -> bool:
        return (type is None or bundle.type == type) and (predicate is None or predicate(bundle))

    with _middleware(_IgnoreBundles(is_ignored, ignored), outermost=True):
        yield ignored


@contextmanager
def _middleware(middleware: AddMiddleware, *, outermost: bool) -> Generator[None]:
    with ExitStack() as stack:
        try:
            current_service()
        except NotInitializedError:
            stack.enter_context(standing_in(stack.enter_context(DoNothingService())))
        stack.enter_context(adding_through(middleware, outermost=outermost))
        yield


@attrs.frozen
class _IgnoreJobs(AddMiddleware):
    is_ignored: Callable[[Job], bool]
    ignored: list[Job]

    def add_job(self, service: Service, job: Job, add: Callable[[Job], Job]) -> Job:  # noqa: ARG002
        if not self.is_ignored(job):
            return add(job)
        self.ignored.append(job)
        return job


@attrs.frozen
class _IgnoreBundles(AddMiddleware):
    is_ignored: Callable[[JobBundle], bool]
    ignored: list[JobBundle]

    def add_bundle(self, service: Service, bundle: JobBundle, add: Callable[[JobBundle], JobBundle]) -> JobBundle:  # noqa: ARG002
        if not self.is_ignored(bundle):
            return add(bundle)
        self.ignored.append(bundle)
        return bundle


@attrs.frozen
class _RunNow(AddMiddleware):
    registry: Registry

    def add_job(self, service: Service, job: Job, add: Callable[[Job], Job]) -> Job:  # noqa: ARG002
        return self._run(job, service)

    def add_bundle(self, service: Service, bundle: JobBundle, add: Callable[[JobBundle], JobBundle]) -> JobBundle:  # noqa: ARG002
        for place, job in enumerate(bundle.jobs):
            bundle = _with_member(bundle, place, self._run(job, service, bundle))
        if not bundle.stopped:
            return bundle
        stopped = attrs.evolve(bundle, stopped_at=datetime.now(UTC))
        if (desc := stopped.on_stopped) is not None:
            self._run(attrs.evolve(_job_of(desc), completes_bundle_id=stopped.id), service, stopped)
        service.listeners.tell_bundle_stopped(stopped)
        return stopped

    def _run(self, job: Job, service: Service, bundle: JobBundle | None = None) -> Job:
        """Run *job* and return it as it would be stored."""
        started_at = datetime.now(UTC)
        result = run_now(job, self.registry, service=service, bundle=bundle)
        if isinstance(result, Snooze):
            return attrs.evolve(job, run_count=1)
        stopped = attrs.evolve(job, started_at=started_at, stopped_at=datetime.now(UTC), run_count=1)
        if isinstance(result, Discard):
            return attrs.evolve(
                stopped,
                cancelled_at=stopped.stopped_at,
                error_msg=reason_of(result),
                current_retry_count=job.max_retry_count,
            )
        return attrs.evolve(stopped, result_json=None if result is None else dump_json(result))


def _with_member(bundle: JobBundle, place: int, job: Job) -> JobBundle:
    """Put *job*, which was run, in its place."""
    jobs = (*bundle.jobs[:place], job, *bundle.jobs[place + 1 :])
    return attrs.evolve(bundle, jobs=jobs, num_jobs_stopped=sum(job.stopped for job in jobs))


def _job_of(desc: JobDesc) -> Job:
    return Job.new(
        desc.type,
        desc.payload,
        origin=desc.origin,
        priority=desc.priority,
        start_at=desc.start_at,
        max_retry_count=desc.max_retry_count,
        retry=desc.retry,
    )
