"""Rows added to the library's own table by bare psycopg: with the columns that it fills, and every value ready."""

import argparse
import time
from typing import Any, Final
from uuid import UUID

import psycopg

import jobqueue_pg
from jobqueue.models import new_id
from tests.benchmarks.contestants.handlers import JOB_TYPE
from tests.benchmarks.contestants.ours_adding import IN_TRANSACTION

INSERT: Final = """
insert into worker.job (id, "type", payload, priority, origin, max_retry_count, start_at, created_at, updated_at)
values (%s, %s, %s::jsonb, %s, %s, %s, %s, now(), now())
"""
# created_at and updated_at are now() by default.
_COPY: Final = 'copy worker.job (id, "type", payload, priority, origin, max_retry_count, start_at) from stdin'

Row = tuple[UUID, str, str, int, str, int, None]


def enqueue(options: argparse.Namespace) -> dict[str, Any]:
    """Insert rows one by one, prepared: autocommitted, or, joined, a hundred in a transaction."""
    jobqueue_pg.migrate(options.dsn)
    rows = [row_of(number) for number in range(options.jobs)]
    with psycopg.connect(options.dsn, autocommit=not options.joined) as connection:
        connection.execute(INSERT, row_of(-1), prepare=True)
        connection.commit()
        began_at, cpu = time.perf_counter(), time.process_time()
        for number, row in enumerate(rows, start=1):
            connection.execute(INSERT, row, prepare=True)
            if options.joined and number % IN_TRANSACTION == 0:
                connection.commit()
        connection.commit()
        seconds, cpu = time.perf_counter() - began_at, time.process_time() - cpu
    return {"seconds": seconds, "jobs": options.jobs, "cpu_seconds": cpu}


def bulk(options: argparse.Namespace) -> dict[str, Any]:
    """Copy rows, in one transaction."""
    jobqueue_pg.migrate(options.dsn)
    rows = [row_of(number) for number in range(options.jobs)]
    with psycopg.connect(options.dsn) as connection:
        connection.execute(INSERT, row_of(-1), prepare=True)
        connection.commit()
        began_at = time.perf_counter()
        with connection.cursor().copy(_COPY) as copy:
            for row in rows:
                copy.write_row(row)
        connection.commit()
        seconds = time.perf_counter() - began_at
    return {"seconds": seconds, "jobs": options.jobs}


def row_of(number: int) -> Row:
    """Return the values of a job's row."""
    return (new_id(), JOB_TYPE, f'{{"number":{number}}}', 0, "floor", 0, None)
