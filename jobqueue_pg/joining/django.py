"""Connections of Django: a wrapper, the proxy of one, or an alias."""

import sys
from importlib import import_module
from typing import Any, Final

import psycopg

from jobqueue.errors import InvalidJobError
from jobqueue_pg.errors import translated

_ONLY_OURS: Final = "the queue is in PostgreSQL, and so must be what joins it"


def wrapper_of(given: Any) -> Any | None:
    """Return Django's wrapper of a connection that *given* is, or stands for; None: it is nothing of Django's.

    Raises:
        TypeError: it is a str, and Django is not set up here.
        InvalidJobError: it is an alias that the settings do not have.
    """
    if isinstance(given, str):
        return _wrapper_called(given)
    if "django.db.utils" not in sys.modules:
        return None
    if isinstance(given, import_module("django.db.backends.base.base").BaseDatabaseWrapper):
        return given
    if isinstance(given, import_module("django.utils.connection").ConnectionProxy):
        # It stands for another wrapper in each thread.
        return _wrapper_called(given.alias)
    return None


def _wrapper_called(alias: str) -> Any:
    # What is no name may be a conninfo, with a password in it.
    shown = repr(alias) if alias.isidentifier() else "what was given"
    if "django.conf" not in sys.modules:
        raise TypeError(_no_alias(shown, "Django is not in use in this process"))
    connections = import_module("django.db").connections
    try:
        known = list(connections)
    except import_module("django.core.exceptions").ImproperlyConfigured as error:
        raise TypeError(_no_alias(shown, "Django has no settings in this process")) from error
    if alias not in known:
        names = ", ".join(map(repr, known))
        raise InvalidJobError(_no_alias(shown, f"settings.DATABASES has {names}"), field="connection")
    return connections[alias]


def _no_alias(shown: str, reason: str) -> str:
    return f"connection= takes no builtins.str but the alias of a database of Django, and {shown} is none: {reason}"


def driver_connection_of(wrapper: Any) -> Any:
    """Return the driver's connection of *wrapper*, ready for a statement of the transaction that is open on it.

    Raises:
        InvalidJobError: it is a connection to another kind of database.
        UnavailableError: it is lost, or there is none to be had.
        TransactionManagementError: Django's own: the atomic block is broken.
    """
    if wrapper.vendor != "postgresql":
        raise InvalidJobError(
            f"the database {wrapper.alias!r} of Django is {wrapper.display_name}: {_ONLY_OURS}", field="connection"
        )
    try:
        # As each statement of Django's own: it looks whose thread this is, connects at need, and lets tests forbid it.
        wrapper.cursor().close()
    except import_module("django.db").Error as error:
        if isinstance(error.__cause__, psycopg.Error):
            raise translated(error.__cause__) from error
        raise
    wrapper.validate_no_broken_transaction()
    return wrapper.connection


def note_undone(wrapper: Any) -> None:
    """Have *wrapper* know that what has broken the atomic block is undone, as after a savepoint of its own."""
    wrapper.needs_rollback = False
    wrapper.rollback_exc = None


def note_broken(wrapper: Any, error: BaseException) -> None:
    """Have *wrapper* know that the atomic block cannot go on, as a failed save() does: its end rolls back."""
    if wrapper.in_atomic_block:
        wrapper.needs_rollback = True
        wrapper.rollback_exc = error
