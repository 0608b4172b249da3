"""What kinds of connections can be joined, and what is said of all others."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import psycopg

from jobqueue.errors import InvalidJobError
from jobqueue_pg.joining import django, psycopg2, sqlalchemy
from jobqueue_pg.joining.joined import Joined
from jobqueue_pg.joining.port import Lent

# By what the names of types begin with.
_WAYS_OUT: Final[Mapping[str, str]] = {
    "sqlalchemy.ext.asyncio.": "give what is not asynchronous, such as the argument of AsyncSession.run_sync()",
    "sqlalchemy.orm.session.sessionmaker": "give a session that it has made",
    "sqlalchemy.engine.base.Engine": "give a Session or a Connection, whose transaction the job is to become part of",
    "flask_sqlalchemy.": "give db.session",
    "psycopg.connection_async.": "the queue is synchronous: give a psycopg.Connection",
    "psycopg.cursor_async.": "the queue is synchronous: give a psycopg.Connection",
    "psycopg.AsyncConnection": "the queue is synchronous: give a psycopg.Connection",
    "psycopg.AsyncCursor": "the queue is synchronous: give a psycopg.Connection",
    "psycopg_pool.": "give one of its connections",
    "psycopg2.pool.": "give one of its connections",
    "asyncpg.": "the queue is joined by psycopg or psycopg2",
    "pg8000.": "the queue is joined by psycopg or psycopg2",
}
_NO_ENCODING: Final = frozenset({"SQL_ASCII", "SQLASCII"})
"""As psycopg2 may call it."""


def joined(given: object) -> Joined:
    """Return what *given* is as a connection to execute on, in whatever transaction is open on it.

    It may be a connection of psycopg or psycopg2 or a cursor of one, a connection of Django or its alias, a connection
    or session of SQLAlchemy, or what stands for one in each thread (``scoped_session``, ``db.session``).

    Raises:
        TypeError: it is something whose transaction cannot be joined; the message names it.
        InvalidJobError: it is a connection to another kind of database, or without an encoding, or Django has no such
            alias.
        UnavailableError: it is closed.
    """
    if isinstance(given, psycopg.Connection):
        return Joined(_of_driver(given))  # pyright: ignore[reportUnknownArgumentType]
    wrapper = django.wrapper_of(given)
    if wrapper is not None:
        lent = _of_driver(django.driver_connection_of(wrapper))
        return Joined(lent, partial(django.note_broken, wrapper))
    connection = sqlalchemy.connection_of(given)
    return Joined(_of_driver(given if connection is None else sqlalchemy.driver_connection_of(connection)))


def _of_driver(given: object) -> Lent:
    if isinstance(given, psycopg.Cursor):
        given = given.connection
    if isinstance(given, psycopg.Connection):
        found: psycopg.Connection[Any] = given  # pyright: ignore[reportUnknownVariableType]
        if not found.closed and found.pgconn.parameter_status(b"client_encoding") == b"SQL_ASCII":
            raise _of_no_encoding("`set client_encoding to 'UTF8'`")
        return found
    foreign = psycopg2.connection_of(given)
    if foreign is None:
        raise TypeError(_refusal(given))
    if foreign.original.encoding in _NO_ENCODING:
        raise _of_no_encoding('call its set_client_encoding("UTF8")')
    return foreign


def _of_no_encoding(way_out: str) -> InvalidJobError:
    return InvalidJobError(
        "connection= has the client_encoding SQL_ASCII, in which text is bytes of nobody knows which encoding: connect "
        f"with client_encoding=utf8, or {way_out}, also where the database itself is SQL_ASCII",
        field="connection",
    )


def _refusal(given: object) -> str:
    kind = type(given)
    name = f"{kind.__module__}.{kind.__qualname__}"
    way_out = next((way for start, way in _WAYS_OUT.items() if name.startswith(start)), None)
    return f"connection= takes a connection of psycopg, psycopg2, Django or SQLAlchemy, or a session, not {name}: " + (
        way_out or "without it the job is added in a transaction of its own"
    )
