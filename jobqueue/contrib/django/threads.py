"""Worker threads of a project: started where it is served, and nowhere else."""

from typing import Any, Final

from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.test.utils import _TestState  # pyright: ignore[reportPrivateUsage] - there is no other sign of a test run

from jobqueue.contrib.django.configuration import Configuration, configuration
from jobqueue.contrib.serving import ServingThreads
from jobqueue.worker.process import start_threads


def arm(said: Configuration) -> None:
    """Have the threads started when the project is loaded, if this process serves it."""
    if said.threads and said.start:
        _threads.arm()
        request_started.connect(_on_request, dispatch_uid="jobqueue.threads")


def _start() -> None:
    said = configuration()
    start_threads(said.threads, lanes=said.lanes)


def _on_request(*, sender: type[BaseHandler], **_: Any) -> None:
    """Start in what was not known to be a server; tests make requests, too."""
    if not hasattr(_TestState, "saved_data") and sender.__module__ != "django.test.client":
        _threads.on_request()


_threads: Final = ServingThreads(_start)
