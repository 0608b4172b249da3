"""A task as this backend knows it: with what Django's own tasks cannot say."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Final, Never, cast

from jobqueue.contrib.django.tasks.framework import AnyTask, InvalidTask, Task
from jobqueue.retry import RetryPolicy

_NOT_IMPORTED: Final = (Exception, SystemExit)
"""What the module of a task may raise; one that lacks its settings may well end its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueueTask(AnyTask):
    """A task that may say how it is retried: ``@task(max_retry_count=3, retry=Exponential())``.

    What is None here is as the backend's OPTIONS say. Django 6.0 has no way to give these to its decorator.
    """

    max_retry_count: int | None = None
    """How often a run that failed is repeated."""
    retry: RetryPolicy | None = None
    """When."""


def import_task(path: str) -> AnyTask:
    """Return the task at a path such as ``shop.tasks.send_receipt``.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
        TypeError: what is there is no task.
    """
    module_path, _, name = path.rpartition(".")
    if not module_path:
        raise ImportError(f"{path!r} is not the path of a task, such as 'shop.tasks.send_receipt'")
    module = import_module(module_path)
    try:
        found = getattr(module, name)
    except AttributeError:
        raise ImportError(
            f"task {path!r} is not there (any more): module {module_path!r} has no {name!r}", name=path
        ) from None
    if not isinstance(found, Task):
        raise TypeError(f"{path!r} is no task, but {type(found).__qualname__}: decorate it with @task")
    return cast("AnyTask", found)


def check_importable(task: AnyTask) -> None:
    """Raise InvalidTask unless a worker, which has nothing but its path, would find *task*'s function."""
    path = task.module_path
    try:
        found = import_task(path)
    except _NOT_IMPORTED as error:
        raise InvalidTask(f"No worker could find this task by its path: {type(error).__name__}: {error}") from error
    if found.func is not task.func:
        raise InvalidTask(f"No worker could find this task: {path!r} is another one.")
    if path.startswith("__main__."):
        raise InvalidTask(f"No worker could find {path!r}: define the task in a module that workers can import.")


def as_it_was(task: AnyTask, **said: Any) -> AnyTask:
    """Return *task* with what was *said* when it was enqueued, whatever has become of the setting TASKS since."""
    return _unchecked(type(task), {field.name: getattr(task, field.name) for field in fields(task)} | said)


def task_to_tell_of(path: str, backend: str) -> AnyTask:
    """Return the task at *path*; if there is none any more, what can be read and not called, and is of *backend*."""
    try:
        return import_task(path)
    except _NOT_IMPORTED as error:
        reason = error

    def gone(*_: object, **__: object) -> Never:
        message = f"task {path!r} cannot be called here: {type(reason).__name__}: {reason}"
        raise ImportError(message, name=path) from reason

    gone.__module__, _, gone.__qualname__ = path.rpartition(".")
    gone.__name__ = gone.__qualname__
    defaults = {field.name: field.default for field in fields(JobQueueTask)}
    return _unchecked(JobQueueTask, {**defaults, "func": gone, "backend": backend})


def _unchecked(kind: type[AnyTask], values: Mapping[str, Any]) -> AnyTask:
    """Make a task without asking its backend whether it is fit to be enqueued."""
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
