"""Middleware: what stands between those who add jobs and the rows, and between workers and handlers.

What a service, or a worker pool, was told to use is in force for all that passes through it, the first to be added
outermost. For tests there is more, which is in force in the context that has put it there.
"""

import inspect
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from jobqueue.bundle import JobBundle
from jobqueue.errors import JobInterruptedError, LostClaimError
from jobqueue.job_context import JobContext
from jobqueue.models import Job
from jobqueue.service import AddingMiddleware, Service

logger = logging.getLogger(__name__)

WorkMiddleware = Callable[[JobContext, Callable[[], object]], object]
"""Stands between a worker and a handler: is called with the context of a run, and with what goes on to the handler.

It calls that once, and returns what it has returned; or it does something else, and returns what a handler might. What
it raises, or lets through, is the run's error. A method ``end_thread()``, if it has one, is called by each worker
thread at its end.
"""

_in_force: ContextVar[tuple["_Layer", ...]] = ContextVar("jobqueue_add_middleware", default=())


class AddMiddleware:
    """Stands between a service and its rows when something is added; this one lets everything through: derive from it.

    What reaches it is complete: checked, and with an origin. It adds by calling *add*, or does something else, and
    returns what the caller is to be given.
    """

    def add_job(self, service: Service, job: Job, add: Callable[[Job], Job]) -> Job:  # noqa: ARG002 - for children
        """Add *job*, or do something else."""
        return add(job)

    def add_bundle(
        self,
        service: Service,  # noqa: ARG002 - for children
        bundle: JobBundle,
        add: Callable[[JobBundle], JobBundle],
    ) -> JobBundle:
        """Add *bundle*, or do something else; its members do not pass through ``add_job``."""
        return add(bundle)


@attrs.define(eq=False)
class _Layer:
    """Middleware within its block. A context that was copied there may outlive that, as a thread's does."""

    middleware: AddMiddleware
    outermost: bool
    is_over: bool = False


@contextmanager
def adding_through(middleware: AddMiddleware, *, outermost: bool) -> Generator[None]:
    """Have all that is added within the block pass through *middleware*: in this thread (or task), and those it starts.

    It comes before what is in force already; but what is *outermost* always comes before what is not.
    """
    layer = _Layer(middleware, outermost)
    token = _in_force.set(tuple(sorted((layer, *_in_force.get()), key=lambda each: not each.outermost)))
    try:
        yield
    finally:
        layer.is_over = True
        _in_force.reset(token)


def check_adding_middleware(middleware: object) -> None:
    """Raise TypeError unless *middleware* can stand between a service and its rows."""
    _refuse_class(middleware)
    if lacking := [name for name in ("add_job", "add_bundle") if not callable(getattr(middleware, name, None))]:
        raise TypeError(
            f"middleware of a service needs {' and '.join(lacking)}, which {middleware!r:.60} has not: derive it from "
            "jobqueue.AddMiddleware"
        )


def check_work_middleware(middleware: object) -> None:
    """Raise TypeError unless *middleware* can stand between workers and handlers."""
    _refuse_class(middleware)
    if not callable(middleware):
        raise TypeError(f"middleware of workers is called with a context and a run, which {middleware!r:.60} cannot be")
    try:
        parameters = inspect.signature(middleware)
    except ValueError:  # of what is not written in Python, nobody knows it
        return
    try:
        parameters.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"middleware of workers is called with a context and a run, which {middleware!r:.60} does not take: {error}"
        ) from None


def _refuse_class(middleware: object) -> None:
    if isinstance(middleware, type):
        raise TypeError(f"middleware is an object, not a class: {middleware.__qualname__}()")


def add_job_through(service: Service, job: Job, add: Callable[[Job], Job]) -> Job:
    """Pass *job* through all middleware that is in force, and at last to *add*."""
    in_force = _middleware_in_force(service)
    if not in_force:
        return add(job)

    def pass_on(job: Job, rest: Sequence[AddingMiddleware]) -> Job:
        if not rest:
            return add(job)
        added = rest[0].add_job(service, job, lambda passed: pass_on(passed, rest[1:]))
        if not isinstance(added, Job):  # pyright: ignore[reportUnnecessaryIsInstance] - it is an application's code
            raise _no_answer(rest[0], "add_job", "a Job", added)
        return added

    return pass_on(job, in_force)


@attrs.frozen
class PassedJobs:
    """Jobs that have passed through middleware, and are to be added together."""

    jobs: list[Job]
    """Those that are to be added."""
    answers: list[Job]
    """What the middleware has said of each that there was."""
    places: Sequence[int | None] | None
    """For each that there was: where among *jobs* it is, if anywhere; None: they are the same."""

    def answers_for(self, stored: list[Job]) -> list[Job]:
        """Return what the caller is given when *stored* is what *jobs* have become."""
        if self.places is None:
            return stored
        return [
            answer if place is None or stored[place] is self.jobs[place] else stored[place]
            for answer, place in zip(self.answers, self.places, strict=True)
        ]


def pass_jobs_through(service: Service, jobs: list[Job]) -> PassedJobs:
    """Pass *jobs*, one by one, through all middleware that is in force."""
    if not _middleware_in_force(service):
        return PassedJobs(jobs, jobs, None)
    kept: list[Job] = []

    def keep(job: Job) -> Job:
        kept.append(job)
        return job

    answers: list[Job] = []
    places: list[int | None] = []
    for job in jobs:
        number = len(kept)
        answers.append(add_job_through(service, job, keep))
        places.append(number if len(kept) > number else None)
    return PassedJobs(kept, answers, places)


def add_bundle_through(service: Service, bundle: JobBundle, add: Callable[[JobBundle], JobBundle]) -> JobBundle:
    """Pass *bundle* through all middleware that is in force, and at last to *add*."""

    def pass_on(bundle: JobBundle, rest: Sequence[AddingMiddleware]) -> JobBundle:
        if not rest:
            return add(bundle)
        added = rest[0].add_bundle(service, bundle, lambda passed: pass_on(passed, rest[1:]))
        if not isinstance(added, JobBundle):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise _no_answer(rest[0], "add_bundle", "a JobBundle", added)
        return added

    return pass_on(bundle, _middleware_in_force(service))


def _no_answer(middleware: AddingMiddleware, method: str, kind: str, answer: object) -> TypeError:
    return TypeError(
        f"{type(middleware).__qualname__}.{method} must return {kind}, be it added or not, and has returned "
        f"{answer!r:.60}"
    )


def _middleware_in_force(service: Service) -> Sequence[AddingMiddleware]:
    own, layers = service.add_middleware, _in_force.get()
    return [*own, *[layer.middleware for layer in layers if not layer.is_over]] if layers else own


def run_through(middleware: Sequence[WorkMiddleware], context: JobContext, run: Callable[[], object]) -> object:
    """Pass a run through all of *middleware*, and at last to *run*; return what comes back."""
    if not middleware:
        return run()
    first, rest = middleware[0], middleware[1:]
    return first(context, lambda: run_through(rest, context, run))


def end_thread(middleware: Sequence[WorkMiddleware]) -> None:
    """Have whatever of *middleware* has something to end in this worker thread, which ends, do so."""
    for each in reversed(middleware):
        end: Callable[[], object] | None = getattr(each, "end_thread", None)
        try:
            if end is not None:
                end()
        except Exception:
            logger.exception("middleware could not end its part in %s", threading.current_thread().name)


def _check_logger(_: object, __: "attrs.Attribute[logging.Logger]", value: object) -> None:
    if not callable(getattr(value, "log", None)):
        raise TypeError(f"logger must be a logger, such as logging.getLogger('runs'), not {value!r:.60}")


def _check_level(_: object, __: "attrs.Attribute[int]", value: object) -> None:
    if not isinstance(value, int):
        raise TypeError(f"level must be a number, such as logging.DEBUG, not {value!r:.60}")


@attrs.frozen
class LogRuns:
    """Work middleware that logs the beginning and the end of each run, with its duration in seconds.

    The records have ``job_id``, ``job_type`` and ``seconds``. What a failed run leads to is logged by the worker.

    Raises:
        TypeError: *logger* is none, or *level* no number.
    """

    logger: logging.Logger = attrs.field(default=logger, validator=_check_logger)
    level: int = attrs.field(default=logging.INFO, validator=_check_level)

    def __call__(self, context: JobContext, run: Callable[[], object]) -> object:
        """Run, and log."""
        self._log(context, "began", {})
        began = time.monotonic()
        how = "failed"
        try:
            result = run()
            how = "ended"
            return result
        finally:
            seconds = time.monotonic() - began
            self._log(context, f"{how} after {seconds:.3f} s", {"seconds": seconds})

    def _log(self, context: JobContext, what: str, facts: dict[str, object]) -> None:
        job = context.job
        extra = {"job_id": str(job.id), "job_type": job.type, **facts}
        self.logger.log(self.level, "run %d of job %s (%s) %s", job.run_count + 1, job.id, job.type, what, extra=extra)


@attrs.frozen
class CaptureExceptions:
    """Work middleware that has ``capture(error)`` called with what handlers raise: a tracker of errors, for example.

    Not with what ends a run that was told to stop, which is no failure. What *capture* raises itself is logged.
    ``jobqueue.current_job()`` tells it which job it was.
    """

    capture: Callable[[Exception], object] = attrs.field(validator=attrs.validators.is_callable())

    def __call__(self, context: JobContext, run: Callable[[], object]) -> object:  # noqa: ARG002 - as all of them
        """Run, and have what is raised captured."""
        try:
            return run()
        except (JobInterruptedError, LostClaimError):
            raise
        except Exception as error:
            self._capture(error)
            raise

    def _capture(self, error: Exception) -> None:
        try:
            self.capture(error)
        except Exception:
            logger.exception("an exception of a handler could not be captured")
