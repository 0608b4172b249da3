"""One queue for go-jobqueue and this library: each enqueues for, works for, resets and hears the other."""

from datetime import UTC, datetime, timedelta

import pytest

from jobqueue import JobDesc, State
from jobqueue.events import Connected, JobAvailable
from jobqueue.health import Health
from jobqueue.outcomes import Claimant, Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.notifier import PostgresNotifier
from tests.fixtures.go_client import GoClient
from tests.fixtures.listening import Ear
from tests.fixtures.stores import (
    CLAIMANT,
    Clock,
    Connection,
    assert_counts_true,
    claim,
    claim_one,
    counts_of,
    events,
    make_bundle,
    make_job,
    row_of,
)
from tests.fixtures.waiting import wait_until

SECOND = timedelta(seconds=1)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
ERROR = RunError(message="broken", type="app.Error")


@pytest.fixture
def clock() -> Clock:
    """Go knows no clock but the database's."""
    return Clock(None)


def test_we_work_for_go(go: GoClient, worker_store: WorkerStore, ear: Ear) -> None:
    """A job that Go added is claimed and finished here; Go hears of it and reads the result."""
    id = go.add_job("t", {"to": "you"}, origin="go", priority=2, max_retry_count=1)
    job = claim_one(worker_store)
    assert (job.id, job.payload, job.origin, job.priority, job.max_retry_count) == (id, {"to": "you"}, "go", 2, 1)
    ear.heard()
    assert worker_store.save_outcomes([Outcome.finished(job, '{"n": 1}')]) == {id}
    assert ear.heard() == [("job_stopped", {"id": str(id), "type": "t", "origin": "go", "willRetry": False})]
    row = go.get_job(id)
    assert row is not None
    assert (row["result"], row["error_msg"], row["worker_alive_at"]) == ({"n": 1}, None, None)
    assert row["started_at"] <= row["stopped_at"]


def test_go_works_for_us(go: GoClient, service: QueueService, worker_store: WorkerStore, ear: Ear) -> None:
    """A job that was added here is claimed, kept alive and finished by Go; it is read here with its result."""
    job = service.enqueue("t", [1, 2], priority=5)
    assert events(ear) == [("job_available", job.id)]
    row = go.start_next_job_or_nil(["t"])
    assert row is not None
    assert (row["id"], row["payload"], row["origin"]) == (job.id, [1, 2], "tests")
    assert service.get_job(job.id).state is State.RUNNING
    assert claim(worker_store) == []
    go.set_job_worker_alive(job.id)
    go.set_job_result(job.id, "done")
    assert (service.get_job(job.id).state, service.get_job(job.id).result) == (State.SUCCEEDED, "done")
    assert service.delete_finished_jobs() == 1


def test_a_failure_of_either_is_read_by_the_other(
    go: GoClient, service: QueueService, worker_store: WorkerStore
) -> None:
    """Errors have the same columns and the same end of retries on both sides."""
    ours, theirs = service.enqueue("ours", 1, max_retry_count=2), service.enqueue("theirs", 1, max_retry_count=2)
    worker_store.save_outcomes([Outcome.failed(claim_one(worker_store, ["ours"]), ERROR)])
    go.start_next_job_or_nil(["theirs"])
    go.set_job_error(theirs.id, "kaputt", {"line": 3})
    failed = {job.id: job for job in service.get_all_jobs_with_errors()}
    assert (failed[theirs.id].error_msg, failed[theirs.id].error_data) == ("kaputt", {"line": 3})
    assert failed[theirs.id].is_finished
    assert [row["id"] for row in go.get_all_jobs_with_errors()] == [ours.id, theirs.id]
    row = go.get_job(ours.id)
    assert row is not None
    assert row["current_retry_count"] == row["max_retry_count"]


def test_claims_exclude_each_other(
    go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """While one side is in the middle of claiming a job, the other passes it over."""
    first, second = service.add_jobs([make_job(), make_job()])
    with db.transaction():
        row = go.start_next_job_or_nil(["t"])
        assert row is not None
        (job,) = claim(worker_store, 5)
    assert {row["id"], job.id} == {first.id, second.id}


def test_a_bundle_of_both(
    go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection, ear: Ear
) -> None:
    """A bundle whose members are worked off by both sides completes once, whoever ends its last job."""
    for last in ("go", "ours"):
        bundle = service.add_bundle(make_bundle(2, on_stopped=JobDesc(1, type=f"after-{last}")))
        ours = claim_one(worker_store, ["t"])
        theirs = go.start_next_job_or_nil(["t"])
        assert theirs is not None
        ear.heard()
        acts = [
            lambda ours=ours: worker_store.save_outcomes([Outcome.finished(ours)]),
            lambda theirs=theirs: go.set_job_result(theirs["id"]),
        ]
        for act in acts if last == "go" else reversed(acts):
            act()
        assert [id for channel, id in events(ear) if channel == "job_bundle_stopped"] == [bundle.id]
        assert counts_of(db, bundle.id) == (2, 2, True)
        assert len(service.list_jobs(type=f"after-{last}")) == 1
    assert_counts_true(db)


def test_a_bundle_of_go(go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """A bundle that Go added is read, worked off, reset and deleted here."""
    bundle_id, ids = go.add_job_bundle("b", jobs=[{"type": "t"}, {"type": "t"}])
    bundle = service.get_job_bundle(bundle_id)
    assert (bundle.on_stopped, bundle.delete_when_succeeded, {job.id for job in bundle.jobs}) == (None, False, set(ids))
    worker_store.save_outcomes([Outcome.finished(job) for job in claim(worker_store, 2)])
    assert counts_of(db, bundle_id) == (2, 2, True)
    service.reset_job(ids[0])
    service.delete_job(ids[1])
    assert counts_of(db, bundle_id) == (1, 0, False)
    assert_counts_true(db)
    service.delete_job_bundle(bundle_id)
    assert go.get_status() == (0, 0)


def test_go_resets_what_we_run(go: GoClient, service: QueueService, worker_store: WorkerStore) -> None:
    """Once Go has reset a job that runs here, its outcome and its beats here are refused."""
    service.enqueue("t", 1)
    job = claim_one(worker_store)
    go.reset_job(job.id)
    assert worker_store.touch_jobs([job.fence]) == frozenset()
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    again = claim_one(worker_store)
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    assert worker_store.save_outcomes([Outcome.finished(again)]) == {job.id}


def test_go_takes_what_it_reset(go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """When Go has claimed the job anew, the old claim here is refused although its claim_id is still in the row."""
    service.enqueue("t", 1)
    job = claim_one(worker_store)
    go.reset_job(job.id)
    assert go.start_next_job_or_nil(["t"]) is not None
    assert row_of(db, job.id)["claim_id"] == job.claim_id
    for outcome in (Outcome.finished(job), Outcome.released(job), Outcome.retry(job, ERROR)):
        assert worker_store.save_outcomes([outcome]) == frozenset()
    assert worker_store.touch_jobs([job.fence]) == frozenset()
    go.set_job_result(job.id, "go's")
    assert service.get_job(job.id).result == "go's"


def test_go_takes_what_we_run_by_a_retry(go: GoClient, service: QueueService, worker_store: WorkerStore) -> None:
    """Go's reschedule of a job that runs here takes the claim away as well."""
    service.enqueue("t", 1, max_retry_count=3)
    job = claim_one(worker_store)
    go.schedule_retry(job.id, FUTURE, 2)
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    read = service.get_job(job.id)
    assert (read.start_at, read.current_retry_count) == (FUTURE, 2)


def test_go_reaps_what_we_run(go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """Go's reaper frees a job that fell silent here; ours knows that the claim is gone."""
    service.enqueue("t", 1)
    job = claim_one(worker_store)
    db.execute("update worker.job set worker_alive_at = now() - interval '1 hour'")
    assert go.reset_interrupted_jobs(timedelta(minutes=1)) == 1
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    assert claim_one(worker_store) == job


def test_we_reap_what_go_ran(go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """A job whose Go process fell silent is freed here, and Go can take it again; one that does not beat is not."""
    silent, unbeaten = service.enqueue("a", 1), service.enqueue("b", 1)
    assert go.start_next_job_or_nil(["a"]) is not None
    assert go.start_next_job_or_nil(["b"], heartbeats=False) is not None
    db.execute("update worker.job set worker_alive_at = now() - interval '1 hour' where worker_alive_at is not null")
    (rescue,) = worker_store.reap_jobs(timedelta(milliseconds=1), 3)
    assert (rescue.job_id, rescue.claimed_by) == (silent.id, None)
    row = go.start_next_job_or_nil(["a", "b"])
    assert row is not None
    assert row["id"] == silent.id
    assert service.get_job(unbeaten.id).state is State.RUNNING


def test_go_finishes_a_job_that_we_reset(go: GoClient, service: QueueService, db: Connection) -> None:
    """Go's late result of a job that was reset here stands, as it fences nothing: the job is counted as stopped."""
    bundle = service.add_bundle(make_bundle(2))
    row = go.start_next_job_or_nil(["t"])
    assert row is not None
    service.reset_job(row["id"])
    go.set_job_result(row["id"], "late")
    job = service.get_job(row["id"])
    assert (job.state, job.result, job.started_at) == (State.SUCCEEDED, "late", None)
    assert counts_of(db, bundle.id) == (2, 1, False)
    assert_counts_true(db)


def test_go_finishes_a_job_that_we_reset_and_claimed(
    go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """When Go's late result comes while the job runs here again, ours is refused: the bundle counts the job once."""
    bundle = service.add_bundle(make_bundle(2))
    row = go.start_next_job_or_nil(["t"])
    assert row is not None
    service.reset_job(row["id"])
    job = next(job for job in claim(worker_store, 2) if job.id == row["id"])
    go.set_job_result(job.id, "late")
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    assert counts_of(db, bundle.id) == (2, 1, False)
    assert_counts_true(db)


def test_go_deletes_and_we_go_on(
    go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """What Go deletes while it runs here is lost, and nothing else suffers; its counters stay as Go leaves them."""
    bundle = service.add_bundle(make_bundle(1))
    loose = service.enqueue("t", 1)
    jobs = claim(worker_store, 2)
    go.delete_job_bundle(bundle.id)
    assert worker_store.save_outcomes([Outcome.finished(job) for job in jobs]) == {loose.id}
    assert go.get_status() == (1, 0)


def test_go_reads_what_we_wrote(go: GoClient, service: QueueService, worker_store: WorkerStore) -> None:
    """Go's lists and numbers hold our jobs, delayed and retrying ones included."""
    delayed = service.enqueue("t", 1, delay=timedelta(hours=1))
    retrying = service.enqueue("t", 1, max_retry_count=1)
    worker_store.save_outcomes([Outcome.retry(claim_one(worker_store), ERROR, delay=timedelta(hours=2))])
    service.add_bundle(make_bundle(2))
    assert go.get_status() == (4, 1)
    assert {row["id"] for row in go.get_all_jobs_to_do()} >= {delayed.id, retrying.id}
    assert go.start_next_job_or_nil(["nothing"]) is None
    row = go.get_job(retrying.id)
    assert row is not None
    assert (row["error_msg"], row["stopped_at"], row["current_retry_count"]) == (None, None, 1)


def test_our_notifier_hears_go(go: GoClient, queue: str) -> None:
    """The events of a Go process reach the subscribers here."""
    heard: list[object] = []
    notifier = PostgresNotifier(queue, schema="worker", vital=Health().vital("listener"))
    try:
        notifier.subscribe(heard.append, JobAvailable)
        wait_until(lambda: any(isinstance(event, Connected) for event in heard))
        id = go.add_job("t", origin="go")
        wait_until(lambda: len(heard) > 1)
    finally:
        notifier.close()
    assert heard[1:] == [JobAvailable(id=id, type="t", origin="go", count=1)]


def test_ours_after_gos_reset_of_a_discarded_job(
    go: GoClient, service: QueueService, worker_store: WorkerStore
) -> None:
    """A job that was discarded here and reset by Go, which knows nothing of that, runs and succeeds."""
    service.enqueue("t", 1)
    worker_store.save_outcomes([Outcome.discarded(claim_one(worker_store), "no")])
    (job,) = service.get_all_jobs_with_errors()
    go.reset_job(job.id)
    again = claim_one(worker_store)
    assert again.state is State.RUNNING
    worker_store.save_outcomes([Outcome.finished(again)])
    assert service.get_job(job.id).state is State.SUCCEEDED


def test_gos_claim_has_no_lease_of_ours(
    go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """A job that was released here carries nothing of our claim into Go's."""
    service.enqueue("t", 1)
    (job,) = worker_store.claim_jobs(["*"], 1, Claimant(name="ours", lease=timedelta(days=9)))
    worker_store.save_outcomes([Outcome.released(job)])
    row = go.start_next_job_or_nil(["t"])
    assert row is not None
    assert (row["lease"], row["claim_id"], row["claimed_by"]) == (None, None, None)
    assert CLAIMANT.lease != row["lease"]


def test_a_late_result_of_gos_is_counted_once(
    go: GoClient, service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """Go's late result of a job that was reset here counts; the job is not run, and counted, again."""
    bundle = service.add_bundle(make_bundle(2))
    row = go.start_next_job_or_nil(["t"])
    assert row is not None
    service.reset_job(row["id"])
    go.set_job_result(row["id"], "late")
    assert counts_of(db, bundle.id) == (2, 1, False)
    assert row["id"] not in {job.id for job in claim(worker_store, 2)}
    assert_counts_true(db)
