"""What makes a worker process of a chaos run one of a Django project: its settings, its service, and a handler."""

import threading
from contextlib import suppress
from typing import Any

import attrs
import django
from django.conf import settings
from django.db import connection, transaction

import jobqueue
from jobqueue import JobContext, Service
from tests.fixtures.django import database_settings
from tests.integration.chaos_parts.settings import RETENTION, worker_settings

_NEVER = threading.Event()
_ADD_EFFECT = "insert into evidence.effect (job_id, claim_id) values (%s, %s)"


def connect(conninfo: str, batch_size: int) -> Service:
    """Return the service of a project whose default database is *conninfo*. Raises BackendError."""
    if not settings.configured:
        keys: dict[str, Any] = attrs.asdict(worker_settings(batch_size), recurse=False)
        settings.configure(
            USE_TZ=True,
            DATABASES={"default": {**database_settings(conninfo), "CONN_MAX_AGE": 1}},
            INSTALLED_APPS=["django.contrib.contenttypes", "jobqueue.contrib.django"],
            JOBQUEUE={
                **{name.upper(): value for name, value in keys.items()},
                "ORIGIN": "worker",
                "RETENTION": RETENTION,
                "UNKNOWN_TYPES": "allow",
            },
        )
        django.setup()
    return jobqueue.current_service()


def atomic(ctx: JobContext, seconds: float, times: int) -> None:
    """Have an effect by Django, and another job, in the transaction of the run; undo what is done in a savepoint."""
    _add_effect(ctx)
    _NEVER.wait(seconds / 2)
    with suppress(ZeroDivisionError), transaction.atomic():
        _add_effect(ctx)
        raise ZeroDivisionError
    payload = {"seconds": 0, "times": 0, "of_job": str(ctx.job.id), "of_claim": str(ctx.job.claim_id)}
    jobqueue.enqueue("follow-up", payload)
    _NEVER.wait(seconds / 2)


def _add_effect(ctx: JobContext) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_ADD_EFFECT, [ctx.job.id, ctx.job.claim_id])
