"""Beats keep claims alive; the reaper frees those that fell silent; bundles that are done go by themselves."""

from datetime import datetime, timedelta
from typing import Any

from jobqueue import JobDesc
from jobqueue.outcomes import Claimant, Outcome, RunError, fence_of
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.listening import Ear
from tests.fixtures.stores import (
    START,
    Clock,
    Connection,
    add,
    assert_counts_true,
    claim,
    claim_one,
    counts_of,
    events,
    fetch_all,
    insert_job,
    make_bundle,
    make_job,
    row_of,
)

SECOND = timedelta(seconds=1)
ERROR = RunError(message="broken")

# The server of these tests may have been started a moment ago, and silence before its start does not count.
DEAD_FOR = timedelta(milliseconds=1)

UNCLAIMED = {"started_at": None, "claim_id": None, "lease": None, "claimed_by": None}


# --- beats


def test_touch(store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection) -> None:
    """A beat moves worker_alive_at of all claims that stand, and says which; nothing else of the row changes."""
    add(store, *(make_job() for _ in range(4)))
    jobs = claim(worker_store, 4)
    worker_store.save_outcomes([Outcome.finished(jobs[0])])
    store.reset_jobs([jobs[1].id])
    before = row_of(db, jobs[2].id)
    now = clock.advance(SECOND)
    assert worker_store.touch_jobs([fence_of(job) for job in jobs[:3]]) == {jobs[2].id}
    assert row_of(db, jobs[2].id) == {**before, "worker_alive_at": now, "updated_at": now}
    assert row_of(db, jobs[3].id)["worker_alive_at"] == START


def test_touch_is_not_heard(store: PostgresStore, worker_store: WorkerStore, ear: Ear) -> None:
    """Nobody hears of beats."""
    add(store, make_job())
    job = claim_one(worker_store)
    ear.heard()
    worker_store.touch_jobs([fence_of(job)])
    assert ear.heard() == []


def test_a_locked_row_silences_no_other(
    store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection, other_db: Connection
) -> None:
    """A row that somebody holds is passed over, and the others are alive."""
    add(store, *(make_job() for _ in range(3)))
    jobs = claim(worker_store, 3)
    now = clock.advance(SECOND)
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [jobs[0].id])
        worker_store.touch_jobs([fence_of(job) for job in jobs])
        assert [row_of(other_db, job.id)["worker_alive_at"] for job in jobs] == [START, now, now]
    assert worker_store.touch_jobs([fence_of(job) for job in jobs]) == {job.id for job in jobs}


def test_a_locked_row_is_still_owned(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, other_db: Connection
) -> None:
    """A claim whose row somebody else holds is not reported as lost: nobody can take it while it is locked."""
    add(store, make_job())
    job = claim_one(worker_store)
    with db.transaction():
        db.execute("select from worker.job for update")
        owned = worker_store.touch_jobs([fence_of(job)])
    assert owned == {job.id}


# --- reaping


def reap(worker_store: WorkerStore, max_rescues: int = 3) -> list[Any]:
    return worker_store.reap_jobs(DEAD_FOR, max_rescues)


SHORT = Claimant(name="dead:1:t", lease=DEAD_FOR)


def test_reap(store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection, ear: Ear) -> None:
    """A claim that was silent for long enough is freed: the job is as before, but for its count of rescues."""
    add(store, make_job(max_retry_count=3))
    db.execute("update worker.job set run_count = 2, current_retry_count = 1, attempt_errors = '[]'")
    (job,) = worker_store.claim_jobs(["*"], 1, SHORT)
    claimed = row_of(db, job.id)
    ear.heard()
    now = clock.advance(SECOND)
    (rescue,) = reap(worker_store)
    assert (rescue.job_id, rescue.job_type, rescue.claimed_by) == (job.id, "t", "dead:1:t")
    assert (rescue.rescue_count, rescue.failed) == (1, False)
    assert row_of(db, job.id) == {
        **claimed, **UNCLAIMED, "worker_alive_at": None, "updated_at": now, "rescue_count": 1,
    }  # fmt: skip
    assert events(ear) == [("job_available", job.id)]
    assert reap(worker_store) == []
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    assert claim(worker_store) == [job]


def test_claims_that_are_not_silent(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """What beat just now, what stopped, and what waits is not freed."""
    add(store, *(make_job() for _ in range(4)))
    dead, alive, done = worker_store.claim_jobs(["*"], 3, SHORT)
    worker_store.save_outcomes([Outcome.finished(done)])
    clock.advance(SECOND)
    worker_store.touch_jobs([fence_of(alive)])
    assert [rescue.job_id for rescue in reap(worker_store)] == [dead.id]


def test_silence_is_measured_to_the_microsecond(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """A claim may be silent for exactly as long as its lease."""
    add(store, make_job())
    worker_store.claim_jobs(["*"], 1, Claimant(name="n", lease=timedelta(hours=1)))
    clock.advance(timedelta(hours=1))
    assert reap(worker_store) == []
    clock.advance(timedelta(microseconds=1))
    assert len(reap(worker_store)) == 1


def test_the_longer_of_lease_and_dead_for_holds(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """A reaper that is stricter than a claimer waits for the claimer's lease; one that is laxer for its own time."""
    add(store, make_job(), make_job())
    (long,) = worker_store.claim_jobs(["*"], 1, Claimant(name="n", lease=timedelta(hours=1)))
    (short,) = worker_store.claim_jobs(["*"], 1, SHORT)
    clock.advance(timedelta(minutes=1))
    assert [rescue.job_id for rescue in reap(worker_store)] == [short.id]
    clock.advance(timedelta(hours=1))
    assert [rescue.job_id for rescue in reap(worker_store)] == [long.id]


def test_a_claim_without_beats_is_never_reaped(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """Who does not beat is not taken for dead."""
    add(store, make_job())
    worker_store.claim_jobs(["*"], 1, Claimant(name="n", lease=DEAD_FOR, beats=False))
    clock.advance(timedelta(days=1000))
    assert reap(worker_store) == []


def test_a_claim_without_lease(worker_store: WorkerStore, clock: Clock, db: Connection) -> None:
    """A claim of go-jobqueue, which knows no lease, is judged by the reaper's own time."""
    id = insert_job(db, started_at=START, worker_alive_at=START)
    assert reap(worker_store) == []
    clock.advance(SECOND)
    assert [rescue.job_id for rescue in reap(worker_store)] == [id]


def test_too_many_rescues(
    service: QueueService, worker_store: WorkerStore, clock: Clock, db: Connection, ear: Ear
) -> None:
    """A job that was rescued often enough is failed, with the evidence; its bundle counts it."""
    bundle = service.add_bundle(make_bundle(1, on_stopped=JobDesc(1, type="after")))
    for number in (1, 2):
        (job,) = worker_store.claim_jobs(["t"], 1, SHORT)
        clock.advance(SECOND)
        (rescue,) = reap(worker_store, max_rescues=2)
        assert (rescue.rescue_count, rescue.failed) == (number, False)
    (job,) = worker_store.claim_jobs(["t"], 1, SHORT)
    now = clock.advance(SECOND)
    ear.heard()
    (rescue,) = reap(worker_store, max_rescues=2)
    assert (rescue.failed, rescue.claimed_by, rescue.rescue_count) == (True, "dead:1:t", 2)
    failed = service.get_job(job.id)
    assert (failed.stopped_at, failed.started_at, failed.worker_alive_at) == (now, job.started_at, None)
    assert "2 times" in (failed.error_msg or "")
    assert failed.error_data["claimed_by"] == failed.claimed_by == "dead:1:t"
    assert failed.error_data["rescue_count"] == 2
    assert datetime.fromisoformat(failed.error_data["started_at"]) == job.started_at
    assert failed.is_finished
    assert counts_of(db, bundle.id) == (1, 1, True)
    assert {channel for channel, _ in events(ear)} == {"job_stopped", "job_bundle_stopped", "job_available"}
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    assert reap(worker_store, max_rescues=2) == []
    assert_counts_true(db)


def test_no_rescue_at_all(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """With max_rescues of zero, a job whose worker dies is failed at once."""
    add(store, make_job())
    worker_store.claim_jobs(["*"], 1, SHORT)
    clock.advance(SECOND)
    assert [rescue.failed for rescue in reap(worker_store, 0)] == [True]


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


def test_succeeded_bundles_go(service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """Of the bundles that asked for it, those go whose members have all succeeded; everything else stays."""
    gone = service.add_bundle(make_bundle(2, member_type="good", delete_when_succeeded=True))
    unasked = service.add_bundle(make_bundle(1, member_type="good"))
    failed = service.add_bundle(make_bundle(1, member_type="bad", delete_when_succeeded=True))
    discarded = service.add_bundle(make_bundle(1, member_type="discarded", delete_when_succeeded=True))
    unfinished = service.add_bundle(make_bundle(1, member_type="waits", delete_when_succeeded=True))
    outcomes = {
        "good": Outcome.finished,
        "bad": lambda job: Outcome.failed(job, ERROR),
        "discarded": lambda job: Outcome.discarded(job, "no"),
    }
    worker_store.save_outcomes([outcomes[job.type](job) for job in claim(worker_store, 10, list(outcomes))])
    assert worker_store.delete_succeeded_bundles() == 1
    assert worker_store.delete_succeeded_bundles() == 0
    assert sorted(fetch_all(db, "select id from worker.job_bundle")) == sorted(
        bundle.id for bundle in (unasked, failed, discarded, unfinished)
    )
    assert service.list_jobs(bundle_id=gone.id) == []


def test_a_bundle_waits_for_the_job_it_asked_for(service: QueueService, worker_store: WorkerStore) -> None:
    """A bundle stays until the job that its completion added has succeeded, or is gone; if that fails, it stays."""
    bundles = [
        service.add_bundle(make_bundle(1, delete_when_succeeded=True, on_stopped=JobDesc(number, type="after")))
        for number in range(3)
    ]
    worker_store.save_outcomes([Outcome.finished(job) for job in claim(worker_store, 3, ["t"])])
    assert worker_store.delete_succeeded_bundles() == 0
    good, bad, deleted = sorted(claim(worker_store, 3, ["after"]), key=lambda job: job.payload)
    assert worker_store.delete_succeeded_bundles() == 0
    worker_store.save_outcomes([Outcome.finished(good), Outcome.failed(bad, ERROR)])
    service.delete_job(deleted.id)
    assert worker_store.delete_succeeded_bundles() == 2
    assert service.get_job_bundle(bundles[1].id).has_error is False
    assert service.get_job(good.id).completes_bundle_id == bundles[0].id


def test_a_bundle_whose_member_is_locked_waits(
    service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """A bundle with a member that somebody holds is left to the next time, and keeps no other from going."""
    held, _ = (service.add_bundle(make_bundle(2, delete_when_succeeded=True)) for _ in range(2))
    worker_store.save_outcomes([Outcome.finished(job) for job in claim(worker_store, 4)])
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [held.jobs[0].id])
        assert worker_store.delete_succeeded_bundles() == 1
    with db.transaction():
        db.execute("select from worker.job_bundle where id = %s for update", [held.id])
        assert worker_store.delete_succeeded_bundles() == 0
    assert worker_store.delete_succeeded_bundles() == 1
    assert service.get_status().is_zero
