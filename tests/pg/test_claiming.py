"""Workers claim jobs from rows that others have locked, or have written in their own way."""

from datetime import timedelta

import psycopg
import pytest

from jobqueue import LockTimeoutError, RefusedError
from jobqueue.outcomes import Outcome
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import (
    CLAIMANT,
    START,
    Connection,
    add,
    claim,
    claim_one,
    insert_job,
    make_bundle,
    make_job,
    row_of,
)

SECOND = timedelta(seconds=1)


# --- when


@pytest.mark.parametrize("moment", ["infinity", "294276-12-31 23:59:59Z", "10000-01-01 00:00:00Z"])
def test_a_job_that_is_never_due_stops_nobody(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, moment: str
) -> None:
    """A start time beyond the calendar, which another program wrote, leaves all other jobs claimable."""
    insert_job(db, start_at=moment, priority=99)
    insert_job(db, created_at=moment, priority=99)
    trip = worker_store.make_trip([], ["*"], 5, CLAIMANT)
    assert trip.claimed == ()
    assert trip.next_due_in is None or trip.next_due_in > timedelta(days=365_000)
    (job,) = add(store, make_job(start_at=START + SECOND))
    assert worker_store.make_trip([], ["*"], 5, CLAIMANT).next_due_in == SECOND
    (job,) = add(store, make_job())
    assert claim(worker_store, 5) == [job]


@pytest.mark.parametrize("moment", ["-infinity", "4713-01-01 00:00:00Z BC", "0001-01-01 00:00:00Z"])
def test_a_job_that_was_always_due(worker_store: WorkerStore, db: Connection, moment: str) -> None:
    """A start time before the calendar is due, and can be claimed and finished."""
    ids = {insert_job(db, start_at=moment), insert_job(db, created_at=moment)}
    claimed = claim(worker_store, 5)
    assert {job.id for job in claimed} == ids
    assert worker_store.save_outcomes([Outcome.finished(job) for job in claimed]) == ids


# --- locks


def test_a_locked_head_blocks_nobody(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """A row that somebody has locked is passed over: neither its own nor any other type or priority waits for it."""
    locked, *others = add(
        store,
        make_job("a", priority=9),
        make_job("a", priority=9),
        make_job("b", priority=9),
        make_job("a", priority=1),
        make_job("c", priority=0),
    )
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [locked.id])
        assert set(claim(worker_store, 10)) == set(others)
    assert claim(worker_store, 10) == [locked]


def test_locked_levels_are_passed_over(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """When all jobs of the highest priorities are locked, the next ones are claimed."""
    jobs = add(store, *(make_job(f"t{number % 2}", priority=-number) for number in range(10)))
    with db.transaction():
        db.execute("select from worker.job where priority > -9 for update")
        assert claim(worker_store, 3) == [jobs[-1]]


def test_a_locked_bundle_blocks_no_claim(
    store: PostgresStore, worker_store: WorkerStore, service: QueueService, db: Connection
) -> None:
    """Members can be claimed while somebody holds the row of their bundle."""
    bundle = service.add_bundle(make_bundle(3))
    with db.transaction():
        db.execute("select from worker.job_bundle for update")
        assert set(claim(worker_store, 10)) == set(bundle.jobs)


# --- rows that other programs wrote


def test_a_row_that_stopped_without_starting(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """A row with stopped_at but no started_at, as a late result of Go's leaves it, is not run until it is reset."""
    id = insert_job(db, stopped_at="2001-01-01 00:00:00Z")
    assert claim(worker_store, 1) == []
    assert not store.reschedule_job(id, None)
    assert store.cancel_jobs([id]) == frozenset()
    store.reset_jobs([id])
    assert claim_one(worker_store).id == id


@pytest.mark.parametrize("payload", ["9" * 5000, "1e5000", "[" * 3000 + "]" * 3000])
def test_one_odd_row_spoils_no_batch(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, payload: str
) -> None:
    """A payload that Python cannot hold is claimed with the others, and fails only where it is looked at."""
    odd = insert_job(db, payload=payload)
    jobs = add(store, make_job(), make_job())
    claimed = claim(worker_store, 10)
    assert {job.id for job in claimed} == {odd, *(job.id for job in jobs)}


# --- trips


def test_a_trip_is_one_transaction(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """When an outcome is refused, the whole trip is: nothing saved, nothing claimed."""
    add(store, *(make_job() for _ in range(3)))
    good, bad = claim(worker_store, 2)
    with pytest.raises(RefusedError):
        worker_store.make_trip([Outcome.finished(good), Outcome.finished(bad, r'"\u0000"')], ["*"], 5, CLAIMANT)
    assert row_of(db, good.id)["stopped_at"] is None
    assert len(claim(worker_store, 5)) == 1


def test_a_trip_waits_for_no_lock_long(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """An outcome whose row is locked ends the trip with a LockTimeoutError after two seconds."""
    add(store, make_job())
    job = claim_one(worker_store)
    with db.transaction():
        db.execute("select from worker.job for update")
        with pytest.raises(LockTimeoutError) as caught:
            worker_store.save_outcomes([Outcome.finished(job)])
    assert isinstance(caught.value.__cause__, psycopg.errors.LockNotAvailable)
    assert worker_store.save_outcomes([Outcome.finished(job)]) == {job.id}
