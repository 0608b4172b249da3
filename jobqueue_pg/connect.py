"""Where the parts are put together: settings, store, notifier, service."""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypedDict, Unpack

import psycopg

from jobqueue.context import set_default_service
from jobqueue.health import Health
from jobqueue.known_types import UnknownTypes, check_unknown_types
from jobqueue.payload import MAX_PAYLOAD_BYTES
from jobqueue.queue_service import QueueService
from jobqueue.retention import KEEP_ALL, Retention, check_retention
from jobqueue.settings import WorkerSettings
from jobqueue.uniqueness import check_lock_timeout
from jobqueue_pg.errors import translate_errors
from jobqueue_pg.named_transactions import NO_TRANSACTIONS, Transactions
from jobqueue_pg.notifier import PostgresNotifier, SilentNotifier
from jobqueue_pg.pool import complete_conninfo
from jobqueue_pg.schema import check_schema, is_adopted
from jobqueue_pg.sessions import hears, is_lent
from jobqueue_pg.store import PostgresStore

logger = logging.getLogger(__name__)

_DEFAULT_SETTINGS: Final = WorkerSettings()
_LONGEST_DEAD_FOR: Final = timedelta(days=365)  # as in WorkerSettings
_REAPING_LOCK_TIMEOUT: Final = timedelta(seconds=2)
_UNIQUE_LOCK_TIMEOUT: Final = timedelta(seconds=2)


def connect(
    conninfo: str = "",
    *,
    schema: str = "worker",
    settings: WorkerSettings = _DEFAULT_SETTINGS,
    origin: str | None = None,
    pool_size: int = 4,
    retention: Retention | None = None,
    listen_conninfo: str | None = None,
    poll_only: bool = False,
    prepared_statements: bool | None = None,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    unique_lock_timeout: timedelta = _UNIQUE_LOCK_TIMEOUT,
    unknown_types: UnknownTypes = "warn",
    joins: Callable[[], object] | None = None,
    transactions: Transactions = NO_TRANSACTIONS,
) -> QueueService:
    """Open a service on the job queue in *schema* of the database *conninfo*.

    *conninfo* is a URL or ``name=value`` pairs; what it leaves open comes from libpq's environment variables.
    *origin* is for jobs that name none themselves; by default it is the program's name. *pool_size* bounds the
    connections for the calls of the application. *retention* says how long jobs are kept after they have stopped, for
    the worker pools of this service; None: as ``Retention()`` does, and for ever in a schema that was taken over from
    go-jobqueue. *listen_conninfo* leads past a pooler that does not pass
    notifications on; with *poll_only* nothing listens at all, and waiting jobs are found within
    ``settings.poll_interval``. So it is, with a warning, when nothing could be heard. With *prepared_statements* None
    they are used unless a pooler is before the database; True: even then, if it keeps track of them, as PgBouncer
    from 1.21 on with ``max_prepared_statements``; False: never. A job with a unique key waits no longer than
    *unique_lock_timeout* for an open transaction that has added one with the same key. *unknown_types* says what is
    done about jobs whose type has no handler in this process: ``"refuse"`` raises InvalidJobError, ``"warn"`` logs a
    warning, once, if one that has looks almost the same, ``"allow"`` does nothing.

    *joins* is called, without arguments and in the caller's thread, by each call that adds, reads, changes or deletes:
    what it returns is anything that ``connection=`` takes, and the call becomes part of the transaction that is open
    there; None: the call has a transaction of its own. Waiting, listening and worker pools never join. *transactions*
    are the application's own for ``@handler(atomic="name")``, by their names: each is called, in a worker's thread, for
    a context manager that opens a transaction and gives what ``connection=`` takes; it commits when its block is left,
    and rolls back when that is by an exception. They need none of ``settings.atomic_connections``.

    Raises:
        TypeError, ValueError: an argument is out of range, or *conninfo* is not a connection string.
        UnavailableError: the database does not answer.
        SchemaError: the queue's tables are missing, or of another version; the message names the command to run.
    """
    _check_arguments(settings, pool_size, max_payload_bytes, prepared_statements=prepared_statements)
    check_lock_timeout("unique_lock_timeout", unique_lock_timeout)
    check_retention(retention)
    check_unknown_types(unknown_types)
    _check_callables(joins, transactions)
    complete = complete_conninfo(conninfo)
    around = complete_conninfo(listen_conninfo) if listen_conninfo else None
    vitals = Health()
    listen_at, usual = _look_at(complete, schema, around, poll_only=poll_only)
    notifier = _notifier(listen_at, schema, vitals)
    store = PostgresStore(
        complete,
        schema=schema,
        pool_size=pool_size,
        prepared_statements=prepared_statements,
        unique_lock_timeout=unique_lock_timeout,
        retention=retention or usual,
        joins=joins,
        transactions=dict(transactions),
    )
    open_on = partial(QueueService, store=store, notifier=notifier, vitals=vitals, unknown_types=unknown_types)
    try:
        return open_on(settings=settings, origin=origin, max_payload_bytes=max_payload_bytes)
    except BaseException:
        store.close()
        raise


class ConnectOptions(TypedDict, total=False):
    """What ``connect`` takes by name."""

    schema: str
    settings: WorkerSettings
    origin: str | None
    pool_size: int
    retention: Retention | None
    listen_conninfo: str | None
    poll_only: bool
    prepared_statements: bool | None
    max_payload_bytes: int
    unique_lock_timeout: timedelta
    unknown_types: UnknownTypes
    joins: Callable[[], object] | None
    transactions: Transactions


def init_job_queue(conninfo: str = "", **options: Unpack[ConnectOptions]) -> QueueService:
    """Open a service like ``connect``, and make it the default one of the process. No job is reset.

    Raises:
        ValueError, UnavailableError, SchemaError: as ``connect``.
    """
    service = connect(conninfo, **options)
    set_default_service(service)
    return service


def init_job_queue_reset_interrupted_jobs(
    conninfo: str = "", *, dead_for: timedelta, **options: Unpack[ConnectOptions]
) -> QueueService:
    """Open a service like ``init_job_queue``, and take up the jobs of workers that have been silent for *dead_for*.

    That is done once, by the rules by which worker threads do it all the time: a claim is given the lease that its
    claimer asked for, and silence does not count for the time before the database server was started. A job that was
    taken up too often already (``settings.max_rescues``) is failed.

    Raises:
        ValueError: *dead_for* is not positive, or longer than a year, or, with heartbeats on, shorter than three of
            their intervals; this is found before anything is touched. Otherwise as ``connect``.
        UnavailableError, SchemaError: as ``connect``.
    """
    _check_dead_for(dead_for, options.get("settings", _DEFAULT_SETTINGS))
    service = connect(conninfo, **options)
    try:
        _reap(service, dead_for)
    except BaseException:
        service.close()
        raise
    set_default_service(service)
    return service


def _reap(service: QueueService, dead_for: timedelta) -> None:
    with closing(service.store.for_workers(lock_timeout=_REAPING_LOCK_TIMEOUT)) as store:
        rescues = store.reap_jobs(dead_for, service.settings.max_rescues)
    failed = sum(rescue.failed for rescue in rescues)
    if failed:
        logger.error("failed %d interrupted jobs, which had been taken up too often before", failed)
    if len(rescues) > failed:
        logger.info("took up %d interrupted jobs", len(rescues) - failed)


def _check_arguments(
    settings: WorkerSettings, pool_size: int, max_payload_bytes: int, *, prepared_statements: bool | None
) -> None:
    _check_settings(settings)
    for name, number in (("pool_size", pool_size), ("max_payload_bytes", max_payload_bytes)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, not {number}")
    if not isinstance(prepared_statements, bool | None):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise TypeError(f"prepared_statements must be True, False or None, not {prepared_statements!r}")


def _look_at(conninfo: str, schema: str, around: str | None, *, poll_only: bool) -> tuple[str | None, Retention]:
    """Return what to connect to for notifications, if anything, and how long jobs are usually kept in the schema.

    That is after a look at whether the schema is what we need.
    """
    with translate_errors(), psycopg.connect(conninfo, autocommit=True) as connection:
        check_schema(connection, schema)
        # What others have relied on to stay is not ours to remove.
        usual = KEEP_ALL if is_adopted(connection, schema) else Retention()
        return None if poll_only else _where_to_listen(connection, conninfo, around), usual


def _where_to_listen(connection: psycopg.Connection[Any], conninfo: str, around: str | None) -> str | None:
    """Return what to connect to for notifications: *around* a pooler, if that is given. None: none would be heard."""
    if around is None and not is_lent(connection):
        return conninfo
    listen_at = around or conninfo
    try:
        heard = hears(listen_at, connection)
    except psycopg.Error:
        # Nothing is known then, and the listener tries until it succeeds.
        return listen_at
    if heard:
        return listen_at
    logger.warning(
        "%s: jobs are found by polling only. Give listen_conninfo a way to the server itself, or have poll_only=True",
        "what is notified on conninfo is not heard on listen_conninfo"
        if around
        else "the pooler before the database does not pass notifications on",
    )
    return None


def _notifier(listen_at: str | None, schema: str, vitals: Health) -> PostgresNotifier | SilentNotifier:
    if listen_at is None:
        return SilentNotifier()
    return PostgresNotifier(listen_at, schema=schema, vital=vitals.vital("listener"))


def _check_callables(joins: object, transactions: object) -> None:
    if joins is not None and not callable(joins):
        raise TypeError(
            f"joins must be a function without parameters that returns a connection, or None, not {joins!r:.60}"
        )
    named: Mapping[Any, Any] = transactions if isinstance(transactions, Mapping) else {None: None}  # pyright: ignore[reportUnknownVariableType]
    if not all(isinstance(name, str) and callable(open_) for name, open_ in named.items()):
        raise TypeError(
            "transactions must be a mapping of names to functions, each of which returns a context manager, not "
            f"{transactions!r:.60}"
        )


def _check_settings(settings: WorkerSettings) -> None:
    if not isinstance(settings, WorkerSettings):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise TypeError(f"settings must be WorkerSettings(...), not {settings!r}")


def _check_dead_for(dead_for: timedelta, settings: WorkerSettings) -> None:
    _check_settings(settings)
    if not isinstance(dead_for, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise TypeError(f"dead_for must be a timedelta, not {dead_for!r}")
    if not timedelta(0) < dead_for <= _LONGEST_DEAD_FOR:
        raise ValueError(f"dead_for must be longer than zero and at most a year, not {dead_for}")
    interval = settings.heartbeat_interval
    if interval is not None and dead_for < 3 * interval:
        raise ValueError(
            f"dead_for is {dead_for}, but must be at least three times heartbeat_interval ({interval}), "
            "or jobs of workers that live are taken away from them"
        )
