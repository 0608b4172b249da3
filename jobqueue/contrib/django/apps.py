"""The app for INSTALLED_APPS, and what it does when Django has been set up."""

import traceback
from typing import Any

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules

from jobqueue.context import set_service_source
from jobqueue.contrib.django import checks, databases, source, test_runs, threads
from jobqueue.contrib.django.configuration import configuration, forget
from jobqueue.contrib.django.task_queues import register_task_queues


class JobQueueConfig(AppConfig):
    """The job queue: finds the handlers of all apps, and has threads started where the project is served."""

    name = "jobqueue.contrib.django"
    label = "jobqueue"
    verbose_name = "Job queue"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Make the project's service the current one, import ``jobs.py`` of each app, and arm the threads."""
        checks.register()
        setting_changed.connect(_on_setting_changed, dispatch_uid="jobqueue.settings")
        set_service_source(source.service)
        try:
            said, connection = configuration(), databases.queue_connection()
        except ImproperlyConfigured:
            if _is_command():
                return  # which tells of it by the system checks
            raise
        register_task_queues()
        if said.autodiscover is not None:
            autodiscover_modules(said.autodiscover)
        test_runs.watch(self, connection)
        threads.arm(said)


def _is_command() -> bool:
    """Return whether it is a command of Django that sets the project up."""
    return any(frame.f_globals.get("__name__") == "django.core.management" for frame, _ in traceback.walk_stack(None))


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    """Have the service made anew for a test that overrides the settings."""
    if setting in {"JOBQUEUE", "DATABASES"}:
        forget()
