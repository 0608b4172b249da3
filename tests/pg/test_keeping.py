"""What becomes of jobs and outcomes that no worker is running: the keeper sees to them, or whoever hears of them."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest

from jobqueue import Registry
from jobqueue.events import ClaimLost
from jobqueue.outcomes import Outcome
from jobqueue.store import WorkerStore
from jobqueue.worker.crew import Crew
from jobqueue_pg.store import PostgresStore
from tests.fixtures.parts import INTERVAL, Parts, hold_ahead, wanted_job
from tests.fixtures.stores import Clock, Connection, add, claim, fetch_all, make_bundle, make_job, row_of
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers

PATIENCE = 20
STARTED = "select count(*) from worker.job where started_at is not null and stopped_at is null"
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
SILENT = "update worker.job set worker_alive_at = '2020-01-01' where started_at is not null and stopped_at is null"
ALIVE = "select id from worker.job where worker_alive_at > '2021-01-01'"


@pytest.fixture
def clock() -> Clock:
    """Threads run by the time of this machine, and so does all else here."""
    return Clock(None)


@pytest.fixture
def parts(store: PostgresStore) -> Iterator[Parts]:
    """A pool that holds nothing yet, and waits for no lock long."""
    with closing(store.for_workers(lock_timeout=timedelta(milliseconds=200))) as workers:
        yield Parts(workers)


def test_what_waits_is_beaten_for(store: PostgresStore, parts: Parts, db: Connection, other_db: Connection):
    """Claims show that they are alive while they wait for a worker, for a trip, or for a bundle that is locked."""
    store.add_bundle(make_bundle(1))
    add(store, *(make_job() for _ in range(8)))
    with other_db.transaction():
        other_db.execute("select from worker.job_bundle for update")
        waiting = hold_ahead(parts.dispatcher)
    assert [len(waiting), len(parts.dispatcher._outbox.locked)] == [8, 1]
    parts.dispatcher.hand_in(Outcome.finished(wanted_job(parts.dispatcher)), seconds=0.001)
    parts.dispatcher._retry_at = time.monotonic() + PATIENCE  # as after a trip that broke off
    parts.keeper.tick()
    seen_at = time.monotonic()
    wait_until(lambda: time.monotonic() - seen_at > INTERVAL.total_seconds())
    db.execute(SILENT)
    parts.keeper.tick()
    # The job that was asked for before the last, and not handed in, is its worker's to beat for.
    assert fetch_all(db, STARTED) == [9]
    assert set(fetch_all(db, ALIVE)) == {fence.job_id for fence in waiting}


def test_trips_leave_a_connection_to_the_beats(store: PostgresStore, db: Connection, other_db: Connection):
    """However many outcomes wait for locked rows, in as many trips as there may be, claims are beaten for."""
    add(store, *(make_job() for _ in range(4)))
    with closing(store.for_workers(lock_timeout=timedelta(seconds=PATIENCE))) as workers, ThreadPoolExecutor(5) as pool:
        dispatcher = Parts(workers).dispatcher

        def trips_of(num_workers: int) -> list[int]:
            with dispatcher._lock:
                return [dispatcher._trips] if dispatcher.desks[0].idle == num_workers else []

        jobs = [wanted_job(dispatcher) for _ in range(4)]
        with other_db.transaction():
            other_db.execute("select from worker.job for update")
            for number, job in enumerate(jobs, start=1):
                dispatcher.hand_in(Outcome.finished(job), seconds=60)
                pool.submit(dispatcher.next_job)
                wait_until(lambda number=number: trips_of(number) == fetch_all(db, WAITING), PATIENCE)
            beating = pool.submit(workers.touch_jobs, [job.fence for job in jobs])
            wait_until(beating.done, PATIENCE)
        dispatcher.close()
        assert dispatcher.wait_until_saved(PATIENCE)
        assert beating.result() == {job.id for job in jobs}


def test_an_outcome_that_no_worker_carries_is_saved(store: PostgresStore, parts: Parts, db: Connection):
    """What was handed in is saved soon, although no worker comes to carry it."""
    [job] = add(store, make_job())
    parts.dispatcher.hand_in(Outcome.finished(wanted_job(parts.dispatcher), "1"), seconds=60)
    with parts.keeper:
        wait_until(lambda: row_of(db, job.id)["result"] == 1, PATIENCE)


def test_what_is_held_for_too_long_is_for_others(
    store: PostgresStore, worker_store: WorkerStore, parts: Parts, db: Connection
):
    """Jobs that are held behind one that takes long are handed back at no cost, and whoever has time may claim them."""
    add(store, *(make_job() for _ in range(8)))
    held = hold_ahead(parts.dispatcher)
    assert (len(held), fetch_all(db, STARTED)) == (6, [7])
    with parts.keeper:
        wait_until(lambda: fetch_all(db, STARTED) == [1], PATIENCE)
    others = claim(worker_store, 10)
    assert {job.id for job in others} == {fence.job_id for fence in held}
    assert {(job.run_count, job.rescue_count, job.current_retry_count) for job in others} == {(0, 0, 0)}
    assert parts.counts() == (0, 0)


def test_what_is_held_and_lost_is_not_started(store: PostgresStore, parts: Parts, db: Connection):
    """A beat finds that held jobs were taken away, of which nobody has told: they are dropped, and counted."""
    add(store, *(make_job() for _ in range(8)))
    held = hold_ahead(parts.dispatcher)
    db.execute("delete from worker.job where id = any(%s)", [[fence.job_id for fence in held]])

    def beaten() -> bool:
        parts.keeper._beat(held, 0.0)
        return parts.counts() == (6, 0)

    wait_until(beaten, PATIENCE)
    assert parts.dispatcher.kept_fences() == []


def test_what_is_held_and_told_to_be_lost_is_not_started(workers: Workers, registry: Registry, store: PostgresStore):
    """Who hears that a job which it holds was cancelled drops it at once, and no other."""
    registry.register_func_for_job_type("t", lambda n: n)
    service = workers.service(batch_size=64, heartbeat_interval=timedelta(seconds=1))
    add(store, *(make_job() for _ in range(8)))
    crew = Crew(service, registry, 1)
    with closing(crew._store):
        held = hold_ahead(crew._dispatcher)
        crew._hear(ClaimLost(id=held[0].job_id, claim_id=held[0].claim_id))
        assert crew._dispatcher.kept_fences() == held[1:]
    assert service.health()["lost_claims"] == 1


def test_a_pool_that_has_stopped_touches_nothing_more(store: PostgresStore, parts: Parts, db: Connection):
    """The trip that saves the last outcome does not claim, not even to give back what it has claimed."""
    done, waiting = add(store, make_job(), make_job())
    parts.dispatcher.hand_in(Outcome.finished(wanted_job(parts.dispatcher)), seconds=60)
    parts.dispatcher.close()
    assert parts.dispatcher.next_job() is None
    assert row_of(db, done.id)["stopped_at"] is not None
    row = row_of(db, waiting.id)
    assert (row["started_at"], row["updated_at"]) == (None, row["created_at"])


def test_what_was_claimed_by_hand_and_is_lost_is_known_soon(workers: Workers, store: PostgresStore):
    """A beat finds that a claim was taken away, long before it would have run out without beats."""
    service = workers.service(heartbeat_interval=timedelta(seconds=0.1), dead_for=timedelta(hours=1))
    add(store, *(make_job() for _ in range(2)))
    lost, kept = service.claim("t", 2)
    store.reset_jobs([lost.job.id])
    wait_until(lambda: lost.is_lost, PATIENCE)
    assert not kept.is_lost
