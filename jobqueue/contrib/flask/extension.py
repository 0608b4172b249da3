"""The extension, of which an application has one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

from flask import Flask, current_app, has_app_context

from jobqueue.context import set_service_source
from jobqueue.contrib.flask.app_queue import AppQueue
from jobqueue.contrib.flask.commands import QueueCommands
from jobqueue.errors import NotInitializedError
from jobqueue.registry import Registry, default_registry
from jobqueue.service import Service

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

_NAME: Final = "jobqueue"


class JobQueue:
    """The job queue of a Flask application, or of several.

    ``JobQueue(app)``, or ``queue = JobQueue()`` and then ``queue.init_app(app)`` in a factory, once *app* is
    configured. From then on the functions of ``jobqueue`` work on the queue of the current application; outside of
    contexts, on that of the only application there is. See docs/flask.md for the keys of ``app.config``.

    With *db*, a Flask-SQLAlchemy, all calls that are made in an application context are part of ``db.session``: what is
    added exists when that is committed. Handlers are registered in *registry*.

    Raises:
        ConfigurationError: the application's configuration is not fit for it; the message names the key.
    """

    def __init__(
        self, app: Flask | None = None, *, db: "SQLAlchemy | None" = None, registry: Registry = default_registry
    ) -> None:
        self._db = db
        self._registry = registry
        self._apps = WeakSet[Flask]()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give *app* its queue: ``app.extensions["jobqueue"]``, ``flask jobqueue``, and threads where it is served.

        Raises:
            ConfigurationError: its configuration is not fit for that.
            RuntimeError: it has a queue.
        """
        if _NAME in app.extensions:
            raise RuntimeError(f"the Flask application {app.name!r} has a job queue already")
        queue = AppQueue(app, self._registry, self._db)
        app.extensions[_NAME] = queue
        app.cli.add_command(QueueCommands(queue))
        self._apps.add(app)
        _apps.add(app)
        _in_use.add(app)
        set_service_source(_service_of_current_app)
        queue.arm()

    @property
    def service(self) -> Service:
        """The service of the current application, or of the only one that has this queue.

        Raises:
            NotInitializedError: there is no context, and none or several have it.
            JobQueueError: as ``jobqueue_pg.connect``, when it is first needed.
        """
        return _queue_among(self._apps).service

    @property
    def handler(self) -> Callable[..., Any]:
        """The decorator for handlers, ``jobqueue.handler``."""
        return self._registry.handler

    def start_threads(self) -> None:
        """Start worker threads in this process, for servers that nobody recognises; at most once.

        There are as many as JOBQUEUE_THREADS says, or 4. To be called when all handlers are registered. In a process of
        ``flask jobqueue worker``, which has a pool of its own, none is started, and the log says so.

        Raises:
            ClosedError: the queue was closed in this process.
        """
        _queue_among(self._apps).start_threads()

    def close(self) -> None:
        """Finish the worker threads and close the service of the current application, if this process has them.

        That is done at the end of the process, too. For tests that make applications.
        """
        queue = _queue_among(self._apps)
        queue.close()
        _in_use.discard(queue.app)


_apps: Final = WeakSet[Flask]()
_in_use: Final = WeakSet[Flask]()
"""Those of them whose queue was not closed: which may be meant where there is no context."""


def _service_of_current_app() -> Service:
    return _queue_among(_apps).service


def _queue_among(apps: "WeakSet[Flask]") -> AppQueue:
    """Return the queue of the current application, if it is one of *apps*, or of the only one of these."""
    if has_app_context():
        queue: AppQueue | None = current_app.extensions.get(_NAME)
        if queue is not None and queue.app in apps:
            return queue
        raise NotInitializedError(
            f"the Flask application {current_app.name!r} has not this job queue: call init_app(app) of it"
        )
    here = [app.extensions[_NAME] for app in apps & _in_use]
    if len(here) == 1:
        return cast("AppQueue", here[0])
    if not here:
        raise NotInitializedError("no Flask application has this job queue yet: call init_app(app) of it")
    raise NotInitializedError(
        f"{len(here)} Flask applications have a job queue here: say which is meant, by `with app.app_context():`"
    )
