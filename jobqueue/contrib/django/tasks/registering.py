"""Which handlers the tasks of a project need: one for each queue."""

from jobqueue.contrib.django.tasks.backend import JobQueueBackend
from jobqueue.contrib.django.tasks.framework import task_backends
from jobqueue.contrib.django.tasks.running import run_task
from jobqueue.registry import Registry, default_registry


def our_backends() -> list[JobQueueBackend]:
    """Return those backends of the setting TASKS that enqueue jobs, by alias. Raises InvalidTaskBackend."""
    backends = [task_backends[alias] for alias in task_backends]
    return [backend for backend in backends if isinstance(backend, JobQueueBackend)]


def register_tasks(registry: Registry = default_registry) -> None:
    """Have *registry* handle the tasks of all queues that TASKS names; what it handles already is passed over.

    The app does that when Django is set up.

    Raises:
        DuplicateHandlerError: the project has a handler of its own for one of these patterns.
        RegistryFrozenError: there is something to register, but a worker pool is running.
    """
    for backend in our_backends():
        for pattern in backend.patterns:
            if not _is_registered(pattern, registry):
                defaults = backend.defaults
                registry.handler(pattern, timeout=defaults.timeout, atomic=defaults.atomic)(run_task)


def _is_registered(pattern: str, registry: Registry) -> bool:
    found = registry.find(pattern)
    return found is not None and found.type == pattern and found.function is run_task
