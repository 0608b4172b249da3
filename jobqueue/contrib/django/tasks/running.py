"""The handler of all jobs that are calls of tasks."""

import socket
from traceback import format_exception

from django.utils import timezone

from jobqueue.answers import Discard, Snooze
from jobqueue.contrib.django.tasks.call import TaskCall
from jobqueue.contrib.django.tasks.framework import (
    AnyResult,
    AnyTask,
    TaskContext,
    TaskError,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
)
from jobqueue.contrib.django.tasks.results import result_of
from jobqueue.contrib.django.tasks.task import import_task
from jobqueue.errors import JobInterruptedError, LostClaimError
from jobqueue.job_context import JobContext
from jobqueue.models import Job
from jobqueue.retry import DEFAULT_POLICY, ErrorFilter, kinds_of


def run_task(context: JobContext, call: TaskCall) -> object:
    """Run the task that a job calls; tell the receivers of the framework's signals.

    A task may return Snooze or Discard, as handlers may. Receivers that fail are logged by Django; the run goes on.

    Raises:
        ImportError, TypeError: there is no such task.
        Exception: whatever the task raises; TypeError for a result that is no JSON value.
    """
    task = import_task(call.task)
    result = _begun(result_of(context.job, task, call), context.job)
    sender = type(result.task.get_backend())
    task_started.send_robust(sender=sender, task_result=result)
    try:
        returned = _call(result)
    except BaseException as error:
        if _is_the_end(context, error):
            _end(result, TaskResultStatus.FAILED, error)
            task_finished.send_robust(sender=sender, task_result=result)
        raise
    if isinstance(returned, Snooze):
        return returned
    if isinstance(returned, Discard):
        _end(result, TaskResultStatus.FAILED)
    else:
        object.__setattr__(result, "_return_value", returned)
        _end(result, TaskResultStatus.SUCCESSFUL)
    task_finished.send_robust(sender=sender, task_result=result)
    return returned


def _begun(result: AnyResult, job: Job) -> AnyResult:
    """Tell of a run that has begun, also where jobs are run without having been claimed, as in tests."""
    object.__setattr__(result, "status", TaskResultStatus.RUNNING)
    if not job.started:
        now = timezone.now()
        object.__setattr__(result, "started_at", result.started_at or now)
        object.__setattr__(result, "last_attempted_at", now)
        result.worker_ids.append(socket.gethostname())
    return result


def _call(result: AnyResult) -> object:
    task: AnyTask = result.task
    context = (TaskContext(task_result=result),) if task.takes_context else ()
    returned: object = task.call(*context, *result.args, **result.kwargs)
    return returned if isinstance(returned, Snooze | Discard) else normalize_json(returned)


def _is_the_end(context: JobContext, error: BaseException) -> bool:
    """Whether a run that ends by *error* is the last one: it was not told to stop, and there is no retry."""
    if context.is_cancelled and isinstance(error, JobInterruptedError | LostClaimError):
        return False
    job = context.job
    policy = job.retry_policy or DEFAULT_POLICY
    return (
        job.current_retry_count >= job.max_retry_count
        or (isinstance(policy, ErrorFilter) and not policy.retries_after(kinds_of(error)))
        or policy.delay_before(job.current_retry_count + 1) is None
    )


def _end(result: AnyResult, status: TaskResultStatus, error: BaseException | None = None) -> None:
    object.__setattr__(result, "status", status)
    object.__setattr__(result, "finished_at", timezone.now())
    if error is not None:
        kind = type(error)
        result.errors.append(
            TaskError(
                exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
                traceback="".join(format_exception(error)),
            )
        )
