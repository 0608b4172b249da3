"""Claims from a large table, one after the other, through the worker store that the threads of a pool use."""

import argparse
import time
from contextlib import closing
from datetime import timedelta
from typing import Any, Final

import psycopg

import jobqueue_pg
from jobqueue.outcomes import Claimant
from tests.benchmarks.contestants.handlers import JOB_TYPE
from tests.benchmarks.contestants.scenes import RARE_TYPES
from tests.benchmarks.contract import percentiles

_WARM_UP: Final = 20
_LOCK_TIMEOUT: Final = timedelta(seconds=2)
_CLAIMANT: Final = Claimant(name="bench", lease=timedelta(seconds=60))
_UNDO: Final = """
update worker.job set started_at = null, claim_id = null, lease = null, claimed_by = null, worker_alive_at = null
where started_at is not null and stopped_at is null
"""


def claim(options: argparse.Namespace) -> dict[str, Any]:
    """Make ``options.jobs`` claims of ``options.batch`` jobs each, and undo them in the end."""
    types = [f"rare-{number}" for number in range(RARE_TYPES)] if options.rare else [JOB_TYPE]
    limit = options.batch or 1
    took: list[float] = []
    with (
        jobqueue_pg.connect(options.dsn) as service,
        closing(service.store.for_workers(lock_timeout=_LOCK_TIMEOUT)) as store,
    ):
        for _ in range(_WARM_UP + options.jobs):
            began_at = time.perf_counter()
            trip = store.make_trip([], types, limit, _CLAIMANT)
            took.append(time.perf_counter() - began_at)
            if len(trip.claimed) != limit:
                raise RuntimeError(f"a claim of {limit} brought {len(trip.claimed)}")
    _undo(options.dsn)
    return percentiles(took[_WARM_UP:])


def _undo(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set jobqueue.notify = 'off'")
        connection.execute(_UNDO)
        connection.execute("vacuum worker.job")
