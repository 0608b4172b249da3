"""The application context around each run of a job."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from flask import Flask, current_app, g, has_app_context

from jobqueue.job_context import JobContext

_RUN: Final = "_jobqueue_run"


def is_in_context_of(app: Flask) -> bool:
    """Whether ``current_app`` is *app* here."""
    return has_app_context() and current_app == app


def is_of_run() -> bool:
    """Whether the context here was made for the run of a job, whose session nobody commits but the handler."""
    return bool(g.get(_RUN, False))


@contextmanager
def context_of(app: Flask) -> Generator[None]:
    """Have a context of *app* within the block: a fresh one, whose teardown functions run, unless there is one."""
    if is_in_context_of(app):
        yield
    else:
        with app.app_context():
            yield


class InAppContext:
    """Work middleware for the worker threads of an application."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, context: JobContext, run: Callable[[], object]) -> object:  # noqa: ARG002 - as all of them
        """Run the job."""
        if is_in_context_of(self._app):
            return run()  # in the transaction of a session, which is committed with the job's completion
        with self._app.app_context():
            setattr(g, _RUN, True)
            return run()
