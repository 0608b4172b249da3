"""The caller's connection: what can be joined, so that adding a job is part of the caller's transaction."""

from typing import Any

import psycopg


def joined(connection: object) -> psycopg.Connection[Any]:
    """Return the psycopg connection behind *connection*, which may be one, or a cursor of one.

    Raises:
        TypeError: it is something whose transaction cannot be joined; the message names it.
    """
    if isinstance(connection, psycopg.Cursor):
        connection = connection.connection
    if isinstance(connection, psycopg.Connection):
        found: psycopg.Connection[Any] = connection  # pyright: ignore[reportUnknownVariableType]
        return found
    kind = type(connection)
    raise TypeError(
        f"connection= takes a psycopg.Connection (or a cursor of one), not {kind.__module__}.{kind.__qualname__}: "
        "without it the job is added in a transaction of its own"
    )
