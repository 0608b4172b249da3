"""Beats, the reaper and the deletion of bundles, beside locks, other programs and restarts of the server."""

from datetime import timedelta
from typing import Any

from jobqueue.outcomes import Claimant, Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import (
    START,
    Clock,
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
ERROR = RunError(message="broken")

# The server of these tests may have been started a moment ago, and silence before its start does not count.
DEAD_FOR = timedelta(milliseconds=1)


# --- beats


def test_a_locked_row_silences_no_other(
    store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection, other_db: Connection
) -> None:
    """A row that somebody holds is passed over, and the others are alive."""
    add(store, *(make_job() for _ in range(3)))
    jobs = claim(worker_store, 3)
    now = clock.advance(SECOND)
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [jobs[0].id])
        worker_store.touch_jobs([job.fence for job in jobs])
        assert [row_of(other_db, job.id)["worker_alive_at"] for job in jobs] == [START, now, now]
    assert worker_store.touch_jobs([job.fence for job in jobs]) == {job.id for job in jobs}


def test_a_locked_row_is_still_owned(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, other_db: Connection
) -> None:
    """A claim whose row somebody else holds is not reported as lost: nobody can take it while it is locked."""
    add(store, make_job())
    job = claim_one(worker_store)
    with db.transaction():
        db.execute("select from worker.job for update")
        owned = worker_store.touch_jobs([job.fence])
    assert owned == {job.id}


# --- reaping


def reap(worker_store: WorkerStore, max_rescues: int = 3) -> list[Any]:
    return worker_store.reap_jobs(DEAD_FOR, max_rescues)


SHORT = Claimant(name="dead:1:t", lease=DEAD_FOR)


def test_a_claim_without_lease(worker_store: WorkerStore, clock: Clock, db: Connection) -> None:
    """A claim of go-jobqueue, which knows no lease, is judged by the reaper's own time."""
    id = insert_job(db, started_at=START, worker_alive_at=START)
    assert reap(worker_store) == []
    clock.advance(SECOND)
    assert [rescue.job_id for rescue in reap(worker_store)] == [id]


def test_what_an_older_program_left(worker_store: WorkerStore, clock: Clock, db: Connection) -> None:
    """A job that stopped with an error and a retry left, long ago, is freed; it is no rescue, and has no limit."""
    long_ago = START - timedelta(hours=1)
    common: dict[str, Any] = {"started_at": long_ago, "error_msg": "broken", "rescue_count": 9}
    left = insert_job(db, **common, stopped_at=long_ago, max_retry_count=2, current_retry_count=1)
    for kept in (
        {"stopped_at": START, "max_retry_count": 2, "current_retry_count": 1},
        {"stopped_at": long_ago, "max_retry_count": 2, "current_retry_count": 2},
        {"stopped_at": long_ago, "max_retry_count": 2, "current_retry_count": 1, "cancelled_at": long_ago},
        {"stopped_at": long_ago, "max_retry_count": 2, "error_msg": None},
    ):
        insert_job(db, **{**common, **kept})
    (rescue,) = reap(worker_store, 3)
    assert (rescue.job_id, rescue.failed, rescue.rescue_count) == (left, False, 9)
    row = row_of(db, left)
    assert (row["started_at"], row["stopped_at"], row["error_msg"], row["current_retry_count"]) == (None, None, None, 1)


def test_silence_before_the_server_was_started(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """As long as the server has not been up for dead_for, nobody is taken for dead: who could have beaten?"""
    add(store, make_job())
    worker_store.claim_jobs(["*"], 1, SHORT)
    clock.advance(timedelta(days=10_000))
    assert worker_store.reap_jobs(timedelta(days=1000), 3) == []
    assert len(reap(worker_store)) == 1


def test_a_locked_row_is_not_reaped(
    store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection
) -> None:
    """What somebody is working on right now is left to the next time; nothing waits."""
    add(store, make_job(), make_job())
    held, free = worker_store.claim_jobs(["*"], 2, SHORT)
    clock.advance(SECOND)
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [held.id])
        assert [rescue.job_id for rescue in reap(worker_store)] == [free.id]
    assert [rescue.job_id for rescue in reap(worker_store)] == [held.id]


# --- bundles that go by themselves


def test_a_bundle_whose_member_is_locked_waits(
    service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """A bundle with a member that somebody holds is left to the next time, and keeps no other from going."""
    held, _ = (service.add_bundle(make_bundle(2, delete_when_succeeded=True)) for _ in range(2))
    worker_store.save_outcomes([Outcome.finished(job) for job in claim(worker_store, 4)])
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [held.jobs[0].id])
        assert worker_store.delete_succeeded_bundles(timedelta(0)) == 1
    with db.transaction():
        db.execute("select from worker.job_bundle where id = %s for update", [held.id])
        assert worker_store.delete_succeeded_bundles(timedelta(0)) == 0
    assert worker_store.delete_succeeded_bundles(timedelta(0)) == 1
    assert service.get_status().is_zero
