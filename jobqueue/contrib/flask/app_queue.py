"""The queue of one application: its service, and the worker threads of the processes that serve it."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from flask import Flask

import jobqueue_pg
from jobqueue.contrib.flask.configuration import Configuration, ConfigurationError, read_configuration
from jobqueue.contrib.flask.contexts import InAppContext
from jobqueue.contrib.flask.database import check_same_database, conninfo_of
from jobqueue.contrib.flask.sessions import SESSION, Sessions
from jobqueue.contrib.lazy import LazyService
from jobqueue.contrib.serving import ServingThreads
from jobqueue.errors import SchemaError
from jobqueue.limits import MAX_NAME_LENGTH
from jobqueue.queue_service import QueueService
from jobqueue.registry import Registry
from jobqueue.service import Service
from jobqueue.worker import WorkerPool
from jobqueue.worker.lanes import Lanes

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

_USUAL_THREADS: Final = 4


class AppQueue:
    """What ``app.extensions["jobqueue"]`` is. Nothing is connected before it has to be.

    Raises:
        ConfigurationError: the application's configuration is not fit for it.
    """

    def __init__(self, app: Flask, registry: Registry, db: "SQLAlchemy | None") -> None:
        self.app: Final = app
        self.registry: Final = registry
        self.configuration: Final[Configuration] = read_configuration(app.config)
        self.conninfo: Final = conninfo_of(app.config, self.configuration)
        self._sessions = None if db is None else _sessions_of(app, db, self.conninfo)
        self._service = LazyService(self._connected)
        self._threads = ServingThreads(self._start_pool)
        self._pool: WorkerPool | None = None

    @property
    def service(self) -> Service:
        """The service of this process. Raises as ``jobqueue_pg.connect`` does."""
        return self._service()

    def arm(self) -> None:
        """Have threads start where the application is served, if it says that there are any."""
        if not self.configuration.threads or not self.configuration.start:
            return
        self._threads.arm()
        self.app.before_request(self._on_request)

    def start_threads(self) -> None:
        """Start the threads in this process, whatever it is, unless that was done."""
        self._threads.start()

    def pool(self) -> WorkerPool:
        """Return a worker pool as the configuration says, with 4 threads if it says none; it is not started."""
        return self.pool_on(self.service)

    def pool_on(
        self,
        service: Service,
        threads: int | None = None,
        lanes: Lanes | None = None,
        registry: Registry | None = None,
    ) -> WorkerPool:
        """Return a worker pool on *service* whose jobs run in contexts of the application; it is not started.

        None: as the configuration says, and all handlers.
        """
        pool = WorkerPool(
            service,
            self.registry if registry is None else registry,
            threads or self.configuration.threads or _USUAL_THREADS,
            lanes=self.configuration.lanes if lanes is None else lanes,
        )
        pool.use(InAppContext(self.app))
        return pool

    def connected_apart(self) -> Service:
        """Return a new service for a command of an operator, whose calls are transactions of their own."""
        self._import_handlers()  # a job of a type that is not known may be refused
        return self._connect(poll_only=True, pool_size=1)

    def close(self) -> None:
        """Finish the threads of this process, and close its service, if it has them."""
        self._threads.close()
        self._service.close()

    def end_threads(self) -> bool:
        """Close without waiting for jobs, which are released; return whether there were threads."""
        self._threads.close()
        pool = self._pool
        were_running = pool is not None and pool.is_running
        if pool is not None:
            pool.finish(0)
        self._service.close()
        return were_running

    def _start_pool(self) -> None:
        self._pool = self.pool()
        self._pool.start()

    def _on_request(self) -> None:
        # What a test asks for, nobody serves.
        if not self.app.testing and "flask.testing" not in sys.modules:
            self._threads.on_request()

    @property
    def _origin(self) -> str:
        return self.configuration.origin or self.app.name[:MAX_NAME_LENGTH]

    def _connected(self) -> QueueService:
        self._import_handlers()
        said = self.configuration
        options: dict[str, Any] = {}
        if self._sessions is not None:
            options = {"joins": self._sessions.joined, "transactions": {SESSION: self._sessions.transaction}}
        service = self._connect(
            pool_size=said.pool_size,
            retention=said.retention,
            listen_conninfo=said.listen_dsn,
            poll_only=said.poll_only,
            prepared_statements=said.prepared_statements,
            max_payload_bytes=said.max_payload_bytes,
            unique_lock_timeout=said.unique_lock_timeout,
            **options,
        )
        if self._sessions is not None:
            self._sessions.note_changes(service)
        return service

    def _import_handlers(self) -> None:
        for name in self.configuration.imports:
            _import(name)

    def _connect(self, **options: Any) -> QueueService:
        said = self.configuration
        try:
            return jobqueue_pg.connect(
                self.conninfo,
                schema=said.schema,
                settings=said.workers,
                origin=self._origin,
                unknown_types=said.unknown_types,
                **options,
            )
        except SchemaError as error:
            raise SchemaError(f"{error} (in this application: `flask jobqueue migrate`)") from error


def _sessions_of(app: Flask, db: "SQLAlchemy", conninfo: str) -> Sessions:
    with app.app_context():
        check_same_database(conninfo, db)
    return Sessions(app, db, conninfo)


def _import(name: str) -> None:
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"JOBQUEUE_IMPORTS names {name!r}, and there is no module {error.name!r}"
            ) from None
        raise
