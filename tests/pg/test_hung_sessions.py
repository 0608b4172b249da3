"""One session of a worker pool that hangs while all the others answer."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest

from jobqueue import Registry
from jobqueue.errors import UnavailableError
from jobqueue_pg.store import PostgresStore
from tests.fixtures.shift import Shift
from tests.fixtures.stores import Clock, Connection, add, claim_one, fetch_all, insert_job, make_job, row_of
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers

PATIENCE = 30
INTERVAL = timedelta(seconds=0.3)
DEAD_FOR = timedelta(seconds=3)
NAME = "beating"
SILENT_FOR = "select extract(epoch from now() - min(worker_alive_at))::float8 from worker.job where type = 'long'"
BEATERS = """
    select pid from pg_stat_activity
    where datname = current_database() and state = 'idle' and query like '%%touched as (%%'
"""
NEXT_TO_BEAT = f"{BEATERS} and application_name = %s order by state_change limit 1"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process of the server stand still, with its connection open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def clock() -> Clock:
    """What happens here takes its time."""
    return Clock(None)


def test_a_beat_that_hangs_is_given_up(store: PostgresStore, db: Connection):
    """After three times the lock timeout its connection is left, and the next beat gets through on another one."""
    add(store, make_job())
    with closing(store.for_workers(lock_timeout=timedelta(seconds=0.5))) as workers:
        job = claim_one(workers)
        assert workers.touch_jobs([job.fence]) == {job.id}
        # The sessions of a test before may not have ended quite.
        [pid] = wait_until(lambda: pids if len(pids := fetch_all(db, BEATERS)) == 1 else None)
        with stopped(pid):
            with pytest.raises(UnavailableError, match=r"no answer within 1\.[0-5]"):
                workers.touch_jobs([job.fence])
            before = row_of(db, job.id)["worker_alive_at"]
            assert workers.touch_jobs([job.fence]) == {job.id}
            assert row_of(db, job.id)["worker_alive_at"] > before


def test_the_jobs_of_a_process_whose_beats_hang_stay_its_own(
    workers: Workers, registry: Registry, store: PostgresStore, db: Connection
):
    """While the one session that beats stands still, no reaper takes the jobs for those of a dead process."""
    fast = {"heartbeat_interval": INTERVAL, "dead_for": DEAD_FOR}
    workers.start(Registry(), application_name="reaper", **fast)
    shift = Shift(workers, registry, application_name=NAME, **fast)
    try:
        _wait_for_a_rescue(db)
        with _hanging_beats(db):
            hung_at = fetch_all(db, "select now()")
            beaten = "select count(*) from worker.job where type = 'long' and worker_alive_at > %s + interval '3.5s'"
            wait_until(lambda: fetch_all(db, beaten, *hung_at) == [len(shift.jobs)], PATIENCE)
            _wait_for_a_rescue(db)
            runs = fetch_all(db, "select distinct rescue_count, run_count from worker.job where type = 'long'")
            assert runs == [(0, 0)]
    finally:
        shift.may_end.set()
    db.execute("delete from worker.job where type = 'silent'")
    shift.check(workers.conninfo)


def _wait_for_a_rescue(db: Connection) -> None:
    """Wait until somebody takes away a claim that is silent from the beginning."""
    [now] = fetch_all(db, "select now()")
    job_id = insert_job(
        db,
        type="silent",
        started_at=now,
        claim_id="00000000-0000-0000-0000-000000000001",
        worker_alive_at="2020-01-01",
    )
    wait_until(lambda: row_of(db, job_id)["rescue_count"] == 1, PATIENCE, message="a rescue")


@contextmanager
def _hanging_beats(db: Connection) -> Iterator[None]:
    """Stop sessions of the pool, one after the other, until it is a beat that hangs."""
    for _ in range(20):
        [pid] = wait_until(lambda: fetch_all(db, NEXT_TO_BEAT, NAME), PATIENCE)
        with stopped(pid):
            threading.Event().wait(3 * INTERVAL.total_seconds())
            if fetch_all(db, SILENT_FOR)[0] > 2 * INTERVAL.total_seconds():
                yield
                return
    raise AssertionError("no beat met a session that stood still")
