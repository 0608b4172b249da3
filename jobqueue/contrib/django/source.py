"""The service of a Django project: made when it is first needed, from JOBQUEUE and the settings of its alias."""

from typing import Final

import attrs

import jobqueue_pg
from jobqueue.contrib.django import databases
from jobqueue.contrib.django.cleaning_up import LikeARequest
from jobqueue.contrib.django.configuration import Configuration, configuration
from jobqueue.contrib.django.transactions import transactions
from jobqueue.contrib.lazy import LazyService
from jobqueue.errors import SchemaError
from jobqueue.queue_service import QueueService
from jobqueue.service import Service


@attrs.frozen(eq=False)
class _MadeFor:
    """What a service was made for; a test run changes both."""

    configuration: Configuration
    place: tuple[object, ...]


_made_for: _MadeFor | None = None


def service() -> Service:
    """Return the service of this process.

    Raises:
        ImproperlyConfigured: the settings are wrong; the message names what is.
        SchemaError: the queue's tables are missing, or not up to date.
        UnavailableError: the database does not answer.
    """
    made_for = _made_for
    if made_for is not None and not _holds(made_for):
        close()
    return _lazy()


def close() -> None:
    """Close the service of this process, if there is one; the next call makes another."""
    _lazy.close()


def is_made() -> bool:
    """Whether this process has a service."""
    return _lazy.is_made


def _holds(made_for: _MadeFor) -> bool:
    return made_for.configuration is configuration() and made_for.place == databases.place()


def _make() -> Service:
    global _made_for  # noqa: PLW0603 - there is one service in a process
    said = configuration()
    _made_for = _MadeFor(said, databases.place())
    made = _connect(said)
    made.use_in_workers(LikeARequest())
    return made


def try_out() -> None:
    """Connect, and find out whether the queue is there. Raises as ``service`` does."""
    _connect(configuration()).close()


def _connect(said: Configuration) -> QueueService:
    try:
        return jobqueue_pg.connect(databases.conninfo(), **_options(said))
    except SchemaError as error:
        raise SchemaError(
            f"{error} (in this project: `python manage.py migrate --database={said.database}`)"
        ) from error


def _options(said: Configuration) -> jobqueue_pg.ConnectOptions:
    options = jobqueue_pg.ConnectOptions(
        schema=said.schema,
        settings=said.workers,
        origin=said.origin,
        unknown_types=said.unknown_types or ("warn" if said.autodiscover is None else "refuse"),
        pool_size=said.pool_size,
        retention=said.retention,
        listen_conninfo=databases.listen_conninfo(),
        poll_only=said.poll_only,
        prepared_statements=said.prepared_statements,
        joins=databases.joined,
        transactions=transactions(),
    )
    if said.max_payload_bytes is not None:
        options["max_payload_bytes"] = said.max_payload_bytes
    if said.unique_lock_timeout is not None:
        options["unique_lock_timeout"] = said.unique_lock_timeout
    return options


_lazy: Final = LazyService(_make)
