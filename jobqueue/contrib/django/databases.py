"""The queue's database among a project's: how it is reached, and which other aliases lead to it."""

from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.connection import ConnectionDoesNotExist
from psycopg import pq
from psycopg.conninfo import make_conninfo

from jobqueue.contrib.django.configuration import NAME, Configuration, configuration

_LIBPQS: Final = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
_PLACE: Final = ("service", "host", "port", "dbname")


def queue_connection() -> BaseDatabaseWrapper:
    """Return this thread's connection of the alias that JOBQUEUE names. Raises ImproperlyConfigured."""
    return _connection_of(configuration().database, "DATABASE")


def conninfo() -> str:
    """Return how the queue's database is reached. Raises ImproperlyConfigured."""
    return conninfo_of(queue_connection())


def listen_conninfo() -> str | None:
    """Return how it is reached past a pooler, where the project says so. Raises ImproperlyConfigured."""
    alias = configuration().listen_database
    return None if alias is None else conninfo_of(_connection_of(alias, "LISTEN_DATABASE"))


def conninfo_of(connection: BaseDatabaseWrapper) -> str:
    """Return how the database of *connection* is reached by the driver psycopg 3, whichever Django itself uses."""
    given = {name: value for name, value in connection.get_connection_params().items() if name in _LIBPQS}
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        given["options"] = f"{given.get('options') or ''} -c role={_escaped(role)}".strip()
    return make_conninfo(**{name: value for name, value in given.items() if value is not None})


def place() -> tuple[object, ...]:
    """Return what tells the queue's database from another, such as the one that a test run has made."""
    return tuple(queue_connection().settings_dict[key] for key in ("HOST", "PORT", "NAME", "USER"))


def aliases() -> list[str]:
    """Return all aliases that lead to the queue's database, its own first. Raises ImproperlyConfigured."""
    said: Configuration = configuration()
    named = [said.database] if said.listen_database is None else [said.database, said.listen_database]
    ours = _place_of(queue_connection())
    return list(dict.fromkeys([*named, *(each for each in connections if _place_of(connections[each]) == ours)]))


def joined() -> BaseDatabaseWrapper | None:
    """Return this thread's connection to the queue's database while a transaction is open on it, else None."""
    connection = connections[configuration().database]
    if connection.in_atomic_block:
        return connection
    # Until there is a connection, it is its settings that say whether it will commit by itself.
    commits = connection.settings_dict["AUTOCOMMIT"] if connection.connection is None else connection.autocommit
    return None if commits else connection


def _connection_of(alias: str, key: str) -> BaseDatabaseWrapper:
    try:
        connection = connections[alias]
    except ConnectionDoesNotExist:
        known = ", ".join(map(repr, connections))
        raise ImproperlyConfigured(
            f'{NAME}["{key}"] is {alias!r}, which is no alias in DATABASES: there are {known}'
        ) from None
    if connection.vendor != "postgresql":
        raise ImproperlyConfigured(
            f'{NAME}["{key}"] is {alias!r}, whose ENGINE is {connection.settings_dict["ENGINE"]!r}: a job queue needs '
            "PostgreSQL, so name an alias of that, with the ENGINE 'django.db.backends.postgresql'"
        )
    return connection


def _escaped(value: str) -> str:
    """Return *value* as it is written in the options of a connection."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _place_of(connection: BaseDatabaseWrapper) -> Mapping[str, Any] | None:
    """Return where a PostgreSQL database is, None for another."""
    if connection.vendor != "postgresql":
        return None
    params = connection.get_connection_params()
    return {name: str(params[name]) for name in _PLACE if params.get(name)}
