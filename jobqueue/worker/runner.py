"""What a worker thread does with one claimed job."""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, Protocol

from jobqueue.events import JobStarted, RunEnded
from jobqueue.execution import execute
from jobqueue.handler import Handler
from jobqueue.job_context import JobContext
from jobqueue.middleware import WorkMiddleware
from jobqueue.models import Fence, Job
from jobqueue.outcomes import Outcome, RunError
from jobqueue.registry import Registry, ScheduleRetry
from jobqueue.service import Service
from jobqueue.worker.atomic import AtomicRuns, RunEnd

logger = logging.getLogger(__name__)

_CACHED_TYPES: Final = 256


class Beating(Protocol):
    """Whatever beats for a claim while its job runs."""

    def begin(self, fence: Fence, context: JobContext) -> None:
        """Beat from now on."""
        ...

    def end(self) -> None:
        """Beat no more."""
        ...


class Unbeaten:
    """Beats for nothing: heartbeats are off."""

    def begin(self, fence: Fence, context: JobContext) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class Runner:
    """Runs the jobs of one worker thread, one after the other."""

    def __init__(
        self,
        service: Service,
        registry: Registry,
        atomic_runs: AtomicRuns,
        beating: Beating,
        middleware: Sequence[WorkMiddleware] = (),
    ) -> None:
        self._service = service
        self._observers = service.listeners.observers
        self._middleware = middleware
        self._registry = registry
        self._atomic_runs = atomic_runs
        self._beating = beating
        self._context: JobContext | None = None
        # Registries are frozen while pools run.
        self._ways_of = lru_cache(_CACHED_TYPES)(self._look_up)

    @property
    def context(self) -> JobContext | None:
        """The run that goes on at this moment, for other threads to look at."""
        return self._context

    def run(self, job: Job) -> tuple[RunEnd, float]:
        """Run *job*; return how that ended, and how many seconds it took."""
        handler, timeout, schedule_retry = self._ways_of(job.type)
        context = JobContext(job, timeout=timeout, service=self._service)
        if JobStarted in self._observers.wanted:
            self._observers.tell(JobStarted(job=job))
        began = time.monotonic()
        self._context = context
        try:
            self._beating.begin(job.fence, context)
            ran = self._ran(job, context, handler, schedule_retry)
        finally:
            self._beating.end()
            self._context = None
        seconds = time.monotonic() - began
        if RunEnded in self._observers.wanted:
            self._tell_end(job, ran.led_to or ran.refused, seconds)
        return ran, seconds

    def _tell_end(self, job: Job, outcome: Outcome | None, seconds: float) -> None:
        if outcome is not None:
            error_type = None if outcome.error is None else outcome.error.type or None
            took = timedelta(seconds=seconds)
            self._observers.tell(RunEnded(job=job, kind=outcome.kind, took=took, error_type=error_type))

    def _look_up(self, job_type: str) -> tuple[Handler[..., Any] | None, timedelta | None, ScheduleRetry | None]:
        handler = self._registry.find(job_type)
        usual = self._service.settings.job_timeout
        timeout = usual if handler is None else handler.timeout_or(usual)
        return handler, timeout, self._registry.schedule_retry_of(job_type)

    def _ran(
        self, job: Job, context: JobContext, handler: Handler[..., Any] | None, schedule_retry: ScheduleRetry | None
    ) -> RunEnd:
        try:
            if handler is not None and handler.atomic:
                return self._atomic_runs.run(job, context, handler, self._beating.end)
            return RunEnd(execute(job, context, handler, schedule_retry, self._middleware))
        except BaseException as error:  # an error so broken that not even its message can be read
            kind = type(error).__qualname__
            logger.exception("job %s failed, and telling how did, too", job.id)
            why = RunError(message=f"the run failed, and telling how did, too: {kind}", type=kind)
            return RunEnd(Outcome.failed(job, why))
