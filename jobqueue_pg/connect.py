"""Where the parts are put together: settings, store, notifier, service."""

from typing import Final

import psycopg

from jobqueue.context import set_default_service
from jobqueue.health import Health
from jobqueue.payload import MAX_PAYLOAD_BYTES
from jobqueue.queue_service import QueueService
from jobqueue.settings import WorkerSettings
from jobqueue_pg.errors import translate_errors
from jobqueue_pg.notifier import PostgresNotifier, SilentNotifier
from jobqueue_pg.pool import complete_conninfo
from jobqueue_pg.schema import check_schema
from jobqueue_pg.store import PostgresStore

_DEFAULT_SETTINGS: Final = WorkerSettings()


def connect(
    conninfo: str = "",
    *,
    schema: str = "worker",
    settings: WorkerSettings = _DEFAULT_SETTINGS,
    origin: str | None = None,
    pool_size: int = 4,
    listen_conninfo: str | None = None,
    poll_only: bool = False,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> QueueService:
    """Open a service on the job queue in *schema* of the database *conninfo*.

    *conninfo* is a URL or ``name=value`` pairs; what it leaves open comes from libpq's environment variables.
    *origin* is for jobs that name none themselves; by default it is the program's name. *pool_size* bounds the
    connections for the calls of the application. *listen_conninfo* leads past a pooler that does not pass LISTEN
    through; with *poll_only* nothing listens at all, and waiting jobs are found within ``settings.poll_interval``.

    Raises:
        ValueError: an argument is out of range, or *conninfo* is not a connection string.
        UnavailableError: the database does not answer.
        SchemaError: the queue's tables are missing, or of another version; the message names the command to run.
    """
    if pool_size < 1:
        raise ValueError(f"pool_size must be at least 1, not {pool_size}")
    if not isinstance(settings, WorkerSettings):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise TypeError(f"settings must be WorkerSettings(...), not {settings!r}")
    complete = complete_conninfo(conninfo)
    with translate_errors(), psycopg.connect(complete, autocommit=True) as connection:
        check_schema(connection, schema)
    vitals = Health()
    return QueueService(
        store=PostgresStore(complete, schema=schema, pool_size=pool_size),
        notifier=(
            SilentNotifier()
            if poll_only
            else PostgresNotifier(
                complete_conninfo(listen_conninfo) if listen_conninfo else complete,
                schema=schema,
                vital=vitals.vital("listener"),
            )
        ),
        settings=settings,
        origin=origin,
        max_payload_bytes=max_payload_bytes,
        vitals=vitals,
    )


def init_job_queue(
    conninfo: str = "",
    *,
    schema: str = "worker",
    settings: WorkerSettings = _DEFAULT_SETTINGS,
    origin: str | None = None,
    pool_size: int = 4,
    listen_conninfo: str | None = None,
    poll_only: bool = False,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> QueueService:
    """Open a service like ``connect``, and make it the default one of the process. No job is reset.

    Raises:
        ValueError, UnavailableError, SchemaError: as ``connect``.
    """
    service = connect(
        conninfo,
        schema=schema,
        settings=settings,
        origin=origin,
        pool_size=pool_size,
        listen_conninfo=listen_conninfo,
        poll_only=poll_only,
        max_payload_bytes=max_payload_bytes,
    )
    set_default_service(service)
    return service
