"""What empties, copies and drops the project's database, in test runs above all, and what that means for the queue."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.models.signals import post_migrate

import jobqueue_pg
from jobqueue.contrib.django import databases, source
from jobqueue.contrib.django.configuration import configuration
from jobqueue.errors import SchemaError


def watch(app: AppConfig, connection: BaseDatabaseWrapper) -> None:
    """Have the service closed before the database of a test run is copied or dropped, and the queue flushed with it."""
    creation, operations = connection.creation, connection.ops
    creation.destroy_test_db = _closing_first(creation.destroy_test_db)  # type: ignore[method-assign]
    creation.clone_test_db = _closing_first(creation.clone_test_db)  # type: ignore[method-assign]
    flush = operations.execute_sql_flush

    def execute_sql_flush(sql_list: Any) -> None:
        flush(sql_list)
        _empty(app, connection.alias)

    # All that flushes comes here: post_migrate is not sent for a database without tables of others, nor by some tests.
    operations.execute_sql_flush = execute_sql_flush  # type: ignore[method-assign]
    post_migrate.connect(_after_migrate, sender=app, dispatch_uid="jobqueue.migrate")


def _closing_first(act: Callable[..., Any]) -> Callable[..., Any]:
    def closing_first(*args: Any, **kwargs: Any) -> Any:
        source.close()
        return act(*args, **kwargs)

    return closing_first


def _after_migrate(*, using: str, **told: Any) -> None:
    if (
        using == configuration().database
        and "plan" in told  # which there is none of where a flush sends this
        and MigrationLoader.migrations_module("jobqueue")[0] is None
    ):
        # Tables are made without migrations in this run, of which the queue has no others.
        jobqueue_pg.migrate(databases.conninfo(), schema=configuration().schema)


def _empty(app: AppConfig, alias: str) -> None:
    """Delete all that is in the queue's tables, if there are any in the database that was flushed."""
    if alias != configuration().database:
        return
    with suppress(SchemaError):
        source.service().delete_all_jobs_and_bundles()
        for name in ("ScheduleTick", "Schedule", "PausedType", "ArchivedJob"):
            rows: models.QuerySet[Any] = models.QuerySet(app.get_model(name), using=alias)
            rows._raw_delete(alias)  # noqa: SLF001 - they refer to nothing
