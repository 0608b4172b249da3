"""What has become of a job, told as the result of a task."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from django.conf import settings
from django.utils import timezone

from jobqueue.contrib.django.tasks.call import TaskCall, queue_of
from jobqueue.contrib.django.tasks.framework import (
    AnyResult,
    AnyTask,
    TaskError,
    TaskResult,
    TaskResultStatus,
    task_backends,
)
from jobqueue.contrib.django.tasks.task import as_it_was
from jobqueue.models import AttemptError, Job, State

_STATUS: Final[Mapping[State, TaskResultStatus]] = {
    State.CANCELLED: TaskResultStatus.FAILED,
    State.FAILED: TaskResultStatus.FAILED,
    State.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    State.RUNNING: TaskResultStatus.RUNNING,
    State.RETRYING: TaskResultStatus.READY,
    State.SCHEDULED: TaskResultStatus.READY,
    State.AVAILABLE: TaskResultStatus.READY,
}

# Of what ended a job without an exception of its own; classes, since that is what errors are told by.
_CANCELLED: Final = "concurrent.futures.CancelledError"
_WORKERS_DIED: Final = "jobqueue.JobInterruptedError"

_UNKNOWN_WORKER: Final = "unknown"


def result_of(job: Job, task: AnyTask, call: TaskCall) -> AnyResult:
    """Tell what *job*, which is the *call* of *task*, has come to."""
    state = job.state
    began = _begins(job)
    result: AnyResult = TaskResult(
        task=as_enqueued(task, job, call),
        id=str(job.id),
        status=_STATUS[state],
        enqueued_at=_moment(job.created_at) or timezone.now(),
        started_at=began[0] if began else None,
        last_attempted_at=began[-1] if began else None,
        finished_at=_moment(job.stopped_at),
        args=list(call.args),
        kwargs=call.kwargs,
        backend=call.backend,
        errors=_errors(job, state),
        worker_ids=_workers(job),
    )
    object.__setattr__(result, "_return_value", job.result)
    return result


def as_enqueued(task: AnyTask, job: Job, call: TaskCall) -> AnyTask:
    """Return *task* with what was said when it was enqueued, of a backend that there is: that is asked again."""
    return as_it_was(
        task,
        priority=job.priority,
        queue_name=queue_of(job.type),
        run_after=_moment(call.run_after),
        backend=call.backend if call.backend in task_backends else task.backend,
    )


def _moment(moment: datetime | None) -> datetime | None:
    return moment if moment is None or settings.USE_TZ else timezone.make_naive(moment)


def _is_claimed(job: Job) -> bool:
    """Whether ``started_at`` is that of a run: a waiting job that is cancelled gets one, too."""
    return job.started and job.claimed_by is not None


def _attempts(job: Job) -> list[AttemptError]:
    """Return the runs that have failed since the job was made, or reset, which keeps what was noted of those before."""
    found: list[AttemptError] = []
    for attempt in reversed(job.attempt_errors):
        if attempt.run > job.run_count or (found and attempt.run >= found[0].run):
            break
        found.insert(0, attempt)
    return found


def _begins(job: Job) -> list[datetime]:
    noted = [_moment(attempt.started_at) for attempt in _attempts(job)]
    last = _moment(job.started_at) if _is_claimed(job) else None
    return [moment for moment in dict.fromkeys([*noted, last]) if moment is not None]


def _workers(job: Job) -> list[str]:
    """Name who ran the job, once for each run: ``len()`` of this is how the framework counts attempts."""
    known = {attempt.run: attempt.claimed_by for attempt in _attempts(job)}
    runs = job.run_count
    if _is_claimed(job):
        runs += not _is_counted(job, max(known, default=0))
        known[runs] = job.claimed_by
    return [known.get(run) or _UNKNOWN_WORKER for run in range(1, runs + 1)]


def _is_counted(job: Job, last_failed_run: int) -> bool:
    """Whether the run that the row shows has ended by itself: not if it goes on, was cancelled, or its worker died."""
    if not job.stopped or job.claim_id is None:
        return False
    return job.cancelled_at is None or last_failed_run < job.run_count


def _errors(job: Job, state: State) -> list[TaskError]:
    errors = [
        TaskError(exception_class_path=attempt.error_type, traceback=attempt.traceback)
        for attempt in job.attempt_errors
    ]
    if state is State.CANCELLED:
        errors.append(TaskError(exception_class_path=_CANCELLED, traceback=job.error_msg or ""))
    elif state is State.FAILED and not _is_told(job):
        errors.append(TaskError(exception_class_path=_WORKERS_DIED, traceback=job.error_msg or ""))
    return errors


def _is_told(job: Job) -> bool:
    """Whether the error that ended the job is among those of its runs: not if it ended because its workers died."""
    return bool(job.attempt_errors) and job.attempt_errors[-1].error_msg == job.error_msg
