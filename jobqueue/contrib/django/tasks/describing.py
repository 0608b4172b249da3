"""Calls of tasks as members of bundles, or for schedules."""

from typing import ParamSpec

from jobqueue.bundle import JobDesc
from jobqueue.contrib.django.tasks.backend import JobQueueBackend
from jobqueue.contrib.django.tasks.framework import InvalidTask, Task

_P = ParamSpec("_P")


def job_desc(task: "Task[_P, object]", *args: _P.args, **kwargs: _P.kwargs) -> JobDesc:
    """Describe the job that ``task.enqueue(*args, **kwargs)`` would add: ``JobBundle.new("import", [job_desc(...)])``.

    Raises:
        InvalidTask: its backend is another one, or it is not fit for this one.
        TypeError, ValueError: an argument is no JSON value.
    """
    backend = task.get_backend()
    if not isinstance(backend, JobQueueBackend):
        raise InvalidTask(f"Task {task.module_path!r} is for the backend {task.backend!r}, which enqueues no jobs.")
    return backend.describe(task, args, kwargs)[1]
