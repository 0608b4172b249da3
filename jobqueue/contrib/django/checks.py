"""What ``manage.py check`` says of the queue."""

import sys
from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from jobqueue.contrib.django import databases, source
from jobqueue.contrib.django.configuration import NAME, configuration
from jobqueue.errors import BackendError, SchemaError
from jobqueue.registry import default_registry


def register() -> None:
    """Have the checks run with those of Django."""
    checks.register(check_settings)
    checks.register(check_atomic_handlers)
    checks.register(check_database, checks.Tags.database)


def check_settings(**_: Any) -> Sequence[checks.CheckMessage]:
    """Find out whether JOBQUEUE says what it may, and names a database of PostgreSQL."""
    try:
        configuration()
        databases.conninfo()
        databases.listen_conninfo()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="jobqueue.E001")]
    return []


def check_atomic_handlers(**_: Any) -> Sequence[checks.CheckMessage]:
    """Find out whether atomic handlers work in the database that holds the queue."""
    try:
        ours = databases.aliases()
    except ImproperlyConfigured:
        return []
    handlers = [handler for name in default_registry.patterns() if (handler := default_registry.find(name))]
    return [
        checks.Error(
            f"the handler of {handler.type!r} is atomic in {handler.atomic!r}, {_what(handler.atomic)}",
            hint=f"Its completion can only be committed with what it does in {' or '.join(map(repr, ours))}.",
            obj=handler.function,
            id="jobqueue.E002",
        )
        for handler in handlers
        if isinstance(handler.atomic, str) and handler.atomic not in ours
    ]


def _what(alias: str) -> str:
    if alias not in connections:
        return "which is no alias in DATABASES"
    return f"which is another database than that of the queue ({configuration().database!r})"


def check_database(*, databases: Sequence[str] | None = None, **_: Any) -> Sequence[checks.CheckMessage]:
    """Find out whether the database of the queue answers, and is migrated."""
    alias = ""
    try:
        alias = configuration().database
        # What is about to be migrated need not be told so.
        if alias not in (databases or ()) or sys.argv[1:2] == ["migrate"]:
            return []
        source.try_out()
    except ImproperlyConfigured:
        return []
    except SchemaError as error:
        return [checks.Error(str(error), id="jobqueue.E003")]
    except BackendError as error:
        message = f'the database of the job queue, {NAME}["DATABASE"] {alias!r}, cannot be used: {error}'
        return [checks.Error(message, id="jobqueue.E004")]
    return []
