"""The backend for the setting TASKS: each call of a task is a job."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from jobqueue.bundle import JobDesc
from jobqueue.context import current_service
from jobqueue.contrib.django.tasks.call import PREFIX, TaskCall, called, check_queue_name, pattern_of, type_of
from jobqueue.contrib.django.tasks.checking import check_alike, check_installed, check_queues
from jobqueue.contrib.django.tasks.framework import (
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    InvalidTask,
    TaskResultDoesNotExist,
    normalize_json,
    task_backends,
    task_enqueued,
)
from jobqueue.contrib.django.tasks.options import Options, check_names, check_retries
from jobqueue.contrib.django.tasks.results import result_of
from jobqueue.contrib.django.tasks.task import JobQueueTask, check_importable, task_to_tell_of
from jobqueue.errors import InvalidJobError, JobNotFoundError, PayloadError
from jobqueue.models import Job
from jobqueue.retry import RetryPolicy, Waits


class JobQueueBackend(BaseTaskBackend):
    """Enqueues tasks as jobs, of the types ``task:QUEUE:PATH``, that worker threads run wherever the app is installed.

    A task is enqueued in the open transaction of the queue's database, and rolled back with it. OPTIONS are those of
    ``Options``, in small letters.

    Raises:
        InvalidTaskBackend: an option, or the name of a queue, is wrong.
    """

    task_class = JobQueueTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        check_names(alias, params.get("QUEUES", ()))
        super().__init__(alias, params)
        self.defaults = Options.of(alias, self.options)

    @property
    def patterns(self) -> list[str]:
        """What covers the types of the jobs that this backend enqueues: a pattern for each queue."""
        return [pattern_of(name) for name in sorted(self.queues)] or [pattern_of(None)]

    def validate_task(self, task: AnyTask) -> None:
        """Raise InvalidTask when *task* cannot be enqueued here."""
        super().validate_task(task)
        check_queue_name(task.queue_name)
        count, policy = self._retries_of(task)
        try:
            check_retries(count, policy)
        except InvalidJobError as error:
            raise InvalidTask(f"Task {task.module_path!r}: {error}") from error

    def enqueue(self, task: AnyTask, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Add a job that calls *task*: in the open transaction, if there is one.

        Raises:
            InvalidTask: it is not fit for this backend, or workers could not import it.
            TypeError, ValueError: an argument is no JSON value.
        """
        call, desc = self.describe(task, args, kwargs)
        job = current_service().enqueue(
            cast("str", desc.type),
            desc.payload,
            priority=desc.priority,
            start_at=desc.start_at,
            max_retry_count=desc.max_retry_count,
            retry=desc.retry,
        )
        result = result_of(job, task, call)
        task_enqueued.send(type(self), task_result=result)
        return result

    def describe(self, task: AnyTask, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[TaskCall, JobDesc]:
        """Say what job a call of *task* is. Raises as ``enqueue``."""
        self.validate_task(task)
        check_importable(task)
        plain_args: Any = normalize_json(list(args))
        plain_kwargs: Any = normalize_json(kwargs)
        call = called(task, plain_args, plain_kwargs)
        count, policy = self._retries_of(task)
        return call, JobDesc(
            call.as_payload(),
            type=type_of(task.queue_name, call.task),
            priority=int(task.priority),
            start_at=call.run_after,
            max_retry_count=count,
            retry=policy,
        )

    def get_result(self, result_id: str) -> Any:
        """Read what has become of a task, which need not be in the code or in TASKS any more.

        Raises:
            TaskResultDoesNotExist: there is no such job, or it is no call of a task.
        """
        try:
            job = current_service().get_job(UUID(result_id))
        except (ValueError, AttributeError, TypeError, JobNotFoundError):
            raise TaskResultDoesNotExist(result_id) from None
        return self._result_of(job)

    def _result_of(self, job: Job) -> AnyResult:
        if not job.type.startswith(PREFIX):
            raise TaskResultDoesNotExist(str(job.id))
        try:
            call = TaskCall.of(job.payload)
        except PayloadError as error:
            raise TaskResultDoesNotExist(str(job.id)) from error
        return result_of(job, task_to_tell_of(call.task, self.alias), call)

    def _retries_of(self, task: AnyTask) -> tuple[int | None, RetryPolicy | None]:
        """Return how often *task* is retried, and when: as it says itself, else as OPTIONS do."""
        if not isinstance(task, JobQueueTask):
            return self.defaults.max_retry_count, self.defaults.retry
        count = task.max_retry_count
        if count is None and not isinstance(task.retry, Waits):  # which say how many they are
            count = self.defaults.max_retry_count
        return count, self.defaults.retry if task.retry is None else task.retry

    def check(self, **kwargs: Any) -> list[Any]:
        """Find what is wrong with the settings."""
        others = [other for other in task_backends.all() if isinstance(other, JobQueueBackend)]
        return [
            *super().check(**kwargs),
            *check_installed(self.alias),
            *check_queues(self.alias, self.queues),
            *check_alike(self, others),
        ]
