"""Connections and sessions of SQLAlchemy."""

import sys
from importlib import import_module
from typing import Any, Final

from jobqueue.errors import InvalidJobError, UnavailableError

_DRIVERS: Final = frozenset({"psycopg", "psycopg2"})


def connection_of(given: Any) -> Any | None:
    """Return SQLAlchemy's connection that *given* is, or has for its transaction; None: it is nothing of the kind.

    A session begins its transaction by that, as it does with the first statement of its own. Nothing is flushed.

    Raises:
        InvalidJobError: the session has several engines, and does not say which.
        SQLAlchemyError: its own: the session has to be rolled back first.
    """
    if "sqlalchemy.engine" not in sys.modules:
        return None
    if "sqlalchemy.orm" in sys.modules:
        orm = import_module("sqlalchemy.orm")
        if isinstance(given, orm.scoped_session):
            given = given()
        if isinstance(given, orm.Session):
            return _connection_of_session(given)
    return given if isinstance(given, import_module("sqlalchemy.engine").Connection) else None


def _connection_of_session(session: Any) -> Any:
    try:
        return session.connection()
    except import_module("sqlalchemy.exc").UnboundExecutionError as error:
        raise InvalidJobError(
            "the session has no engine that is meant when none is named: give the connection itself, by "
            'session.connection(bind_arguments={"bind": engine})',
            field="connection",
        ) from error


def driver_connection_of(connection: Any) -> Any:
    """Return the driver's connection of *connection*, whose transaction SQLAlchemy takes to have begun.

    Raises:
        InvalidJobError: it is a connection to another kind of database, or by another driver.
        UnavailableError: it is closed.
    """
    dialect = connection.dialect
    if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
        raise InvalidJobError(
            f"this connection of SQLAlchemy is to {dialect.name} by {dialect.driver}: the queue is in PostgreSQL, and "
            "is joined by postgresql+psycopg:// or postgresql+psycopg2://",
            field="connection",
        )
    if connection.closed:
        raise UnavailableError("the connection of SQLAlchemy is closed")
    if not connection.in_transaction():
        # Each statement of its own begins one; it would not commit what it knows nothing of.
        connection.begin()
    return connection.connection.driver_connection
