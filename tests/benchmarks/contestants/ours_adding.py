"""Jobs added by the library's public API: one by one, a hundred to a transaction of the caller's, and all at once."""

import argparse
import time
from typing import Any, Final

import psycopg

import jobqueue
import jobqueue_pg
from tests.benchmarks.contestants.handlers import JOB_TYPE

IN_TRANSACTION: Final = 100
"""How many jobs one transaction of the caller's adds."""


def enqueue(options: argparse.Namespace) -> dict[str, Any]:
    """Add jobs one by one: each in a transaction of its own, or, joined, a hundred in one of the caller's."""
    jobqueue_pg.migrate(options.dsn)
    with jobqueue_pg.connect(options.dsn) as service, psycopg.connect(options.dsn) as connection:
        service.enqueue(JOB_TYPE, {"number": -1})
        service.enqueue(JOB_TYPE, {"number": -1}, connection=connection)
        connection.commit()
        began_at, cpu = time.perf_counter(), time.process_time()
        for number in range(options.jobs):
            if options.joined:
                service.enqueue(JOB_TYPE, {"number": number}, connection=connection)
                if number % IN_TRANSACTION == IN_TRANSACTION - 1:
                    connection.commit()
            else:
                service.enqueue(JOB_TYPE, {"number": number})
        connection.commit()
        seconds, cpu = time.perf_counter() - began_at, time.process_time() - cpu
    return {"seconds": seconds, "jobs": options.jobs, "cpu_seconds": cpu}


def bulk(options: argparse.Namespace) -> dict[str, Any]:
    """Add jobs all at once: on a connection of the library's, or, joined, in a transaction of the caller's."""
    jobqueue_pg.migrate(options.dsn)
    with jobqueue_pg.connect(options.dsn) as service, psycopg.connect(options.dsn) as connection:
        service.enqueue(JOB_TYPE, {"number": -1})
        making_at = time.perf_counter()
        jobs = [jobqueue.Job.new(JOB_TYPE, {"number": number}) for number in range(options.jobs)]
        began_at = time.perf_counter()
        if options.joined:
            service.add_jobs(jobs, connection=connection)
            connection.commit()
        else:
            service.add_jobs(jobs)
        ended_at = time.perf_counter()
    return {"seconds": ended_at - began_at, "jobs": options.jobs, "seconds_with_models": ended_at - making_at}
