"""The handlers of the queues of the setting TASKS, wherever there is a Tasks framework that reads it."""

from importlib.util import find_spec
from typing import Any

import django
from django.apps import apps
from django.conf import settings

from jobqueue.registry import Registry, default_registry


def register_task_queues(registry: Registry = default_registry) -> None:
    """Have *registry* handle the tasks that this project enqueues as jobs, if it does.

    Raises:
        InvalidTaskBackend: TASKS is wrong.
    """
    if _backends() and _has_framework():
        from jobqueue.contrib.django.tasks import register_tasks  # noqa: PLC0415 - there may be no framework

        register_tasks(registry)


def _backends() -> list[str]:
    """Return what TASKS names besides the backends of the frameworks themselves, which are no queues."""
    said: dict[str, dict[str, Any]] = getattr(settings, "TASKS", None) or {}
    named = [str(params.get("BACKEND", "")) for params in said.values()]
    return [name for name in named if not name.startswith(("django.tasks.", "django_tasks."))]


def _has_framework() -> bool:
    return django.VERSION >= (6,) or (find_spec("django_tasks") is not None and apps.is_installed("django_tasks"))
