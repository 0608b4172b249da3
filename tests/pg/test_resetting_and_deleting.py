"""Jobs are reset and deleted, in whatever state they are: what they leave behind, their bundles' counters above all."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from jobqueue import InvalidJobError, Job, JobBundle, JobBundleNotFoundError, JobDesc, JobNotFoundError, State
from jobqueue.outcomes import Outcome, RunError, fence_of
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
    insert_job,
    make_bundle,
    make_job,
    row_of,
)

SECOND = timedelta(seconds=1)
ERROR = RunError(message="broken")
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)

Fate = Callable[[WorkerStore, Job], None]


def waits(workers: WorkerStore, job: Job) -> None:
    workers.save_outcomes([Outcome.released(job)])


def runs(workers: WorkerStore, job: Job) -> None:
    pass


def succeeded(workers: WorkerStore, job: Job) -> None:
    workers.save_outcomes([Outcome.finished(job, "1")])


def failed(workers: WorkerStore, job: Job) -> None:
    workers.save_outcomes([Outcome.failed(job, ERROR)])


def retries(workers: WorkerStore, job: Job) -> None:
    workers.save_outcomes([Outcome.retry(job, ERROR, delay=SECOND)])


def discarded(workers: WorkerStore, job: Job) -> None:
    workers.save_outcomes([Outcome.discarded(job, "no")])


FATES: list[Fate] = [waits, runs, succeeded, failed, retries, discarded]
STOPPED = {succeeded, failed, discarded}


@pytest.mark.parametrize("fate", FATES)
def test_reset(
    store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection, ear: Ear, fate: Fate
) -> None:
    """A reset makes a job in any state as good as new, keeps what describes it, and announces it if it had started."""
    (added,) = add(store, make_job(payload={"a": 1}, priority=3, max_retry_count=5))
    new = row_of(db, added.id)
    fate(worker_store, claim_one(worker_store))
    db.execute("update worker.job set progress = '0.5', rescue_count = 2")
    started = row_of(db, added.id)["started_at"] is not None
    before = row_of(db, added.id)
    now = clock.advance(SECOND)
    ear.heard()
    assert store.reset_jobs([added.id]) == {added.id}
    after = row_of(db, added.id)
    # Kept: when it was to start again, and how its runs went wrong.
    kept = {name: before[name] for name in ("start_at", "attempt_errors")}
    assert after == {**new, **kept, "updated_at": now}
    assert events(ear) == ([("job_available", added.id)] if started else [])


def test_reset_of_a_running_job(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """The claim on a job that is reset while it runs is lost; the job can be claimed again at once."""
    add(store, make_job())
    first = claim_one(worker_store)
    store.reset_jobs([first.id])
    second = claim_one(worker_store)
    assert worker_store.touch_jobs([fence_of(first)]) == frozenset()
    assert worker_store.save_outcomes([Outcome.finished(first, '"first"')]) == frozenset()
    assert worker_store.save_outcomes([Outcome.finished(second, '"second"')]) == {second.id}
    assert store.get_job(first.id).result == "second"


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("act", ["reset", "reset twice", "delete"])
def test_counters(service: QueueService, worker_store: WorkerStore, db: Connection, fate: Fate, act: str) -> None:
    """Resetting or deleting a member in any state takes it out of its bundle's counts as it was in them."""
    bundle = service.add_bundle(make_bundle(3))
    first, second = claim(worker_store, 2)
    succeeded(worker_store, second)
    fate(worker_store, first)
    assert_counts_true(db)
    if act == "delete":
        service.delete_job(first.id)
        assert counts_of(db, bundle.id) == (2, 1, False)
    else:
        for _ in act.split():
            service.reset_job(first.id)
        assert counts_of(db, bundle.id) == (3, 1, False)
    assert_counts_true(db)


def test_reset_of_several(service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """Several jobs of several bundles, loose ones, unknown ones and the same one twice are reset together."""
    bundles = [service.add_bundle(make_bundle(3)) for _ in range(3)]
    loose = service.add_jobs([make_job(), make_job()])
    for job in claim(worker_store, 20):
        succeeded(worker_store, job)
    assert all(counts_of(db, bundle.id) == (3, 3, True) for bundle in bundles)
    ids = [bundles[0].jobs[0].id, bundles[0].jobs[1].id, bundles[1].jobs[2].id, loose[0].id]
    assert service.reset_jobs([*ids, uuid4(), ids[0]]) == 4
    assert [counts_of(db, bundle.id) for bundle in bundles] == [(3, 1, False), (3, 2, False), (3, 3, True)]
    assert {job.id for job in service.get_all_jobs_to_do()} == set(ids)
    assert service.reset_jobs([]) == service.reset_jobs(iter([uuid4()])) == 0
    assert_counts_true(db)


def test_ids_of_several_are_checked(service: QueueService) -> None:
    """Nothing is reset when one of the ids is none."""
    with pytest.raises(InvalidJobError, match="str"):
        service.reset_jobs([uuid4(), "id"])  # type: ignore[list-item]


def test_reset_completes_anew(service: QueueService, worker_store: WorkerStore, db: Connection, ear: Ear) -> None:
    """A bundle whose member was reset and stops again completes again, is heard again, and adds its job again."""
    bundle = service.add_bundle(make_bundle(2, on_stopped=JobDesc(1, type="after")))
    for job in claim(worker_store, 2):
        succeeded(worker_store, job)
    service.reset_job(bundle.jobs[0].id)
    ear.heard()
    succeeded(worker_store, claim_one(worker_store, ["t"]))
    assert [id for channel, id in events(ear) if channel == "job_bundle_stopped"] == [bundle.id]
    assert len(service.list_jobs(type="after")) == 2
    assert_counts_true(db)


def test_what_an_older_program_left_uncounted(service: QueueService, db: Connection) -> None:
    """A member that stopped with a retry left was never counted: neither reset nor deletion takes it off the count."""
    for act in (service.reset_job, service.delete_job):
        bundle = service.add_bundle(make_bundle(3))
        counted, left, _ = (job.id for job in bundle.jobs)
        db.execute("update worker.job set started_at = now(), stopped_at = now() where id = %s", [counted])
        db.execute(
            "update worker.job set started_at = now(), stopped_at = now(), error_msg = 'x', max_retry_count = 1 "
            "where id = %s",
            [left],
        )
        db.execute("update worker.job_bundle set num_jobs_stopped = 1 where id = %s", [bundle.id])
        act(left)
        assert counts_of(db, bundle.id)[1] == 1
        assert_counts_true(db)


def test_counters_that_were_wrong_before(service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """A counter that somebody else has spoilt keeps no job from being saved, reset or deleted."""
    bundle = service.add_bundle(make_bundle(2))
    first, second = claim(worker_store, 2)
    db.execute("update worker.job_bundle set num_jobs_stopped = 2")
    succeeded(worker_store, first)
    assert counts_of(db, bundle.id)[:2] == (2, 2)
    db.execute("update worker.job_bundle set num_jobs_stopped = 0")
    service.reset_job(first.id)
    assert counts_of(db, bundle.id)[:2] == (2, 0)
    db.execute("update worker.job_bundle set num_jobs = 1")
    service.delete_job(first.id)
    service.delete_job(second.id)
    assert counts_of(db, bundle.id)[:2] == (0, 0)


# --- deleting jobs


@pytest.mark.parametrize("fate", FATES)
def test_delete(store: PostgresStore, worker_store: WorkerStore, ear: Ear, fate: Fate) -> None:
    """A job in any state can be deleted; the claim of one that runs is lost; nobody is told."""
    (added,) = add(store, make_job())
    job = claim_one(worker_store)
    fate(worker_store, job)
    ear.heard()
    assert store.delete_jobs([added.id, uuid4()]) == {added.id}
    assert worker_store.touch_jobs([fence_of(job)]) == frozenset()
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    assert store.get_status().is_zero
    assert ear.heard() == []


def test_deleting_the_last_open_member_completes(
    service: QueueService, worker_store: WorkerStore, db: Connection, ear: Ear
) -> None:
    """A bundle completes when the member that it still waited for is deleted, also when that was its only one."""
    for size in (2, 1):
        bundle = service.add_bundle(make_bundle(size, on_stopped=JobDesc(size, type="after")))
        *done, last = claim(worker_store, size, ["t"])
        for job in done:
            succeeded(worker_store, job)
        ear.heard()
        service.delete_job(last.id)
        assert ("job_bundle_stopped", bundle.id) in events(ear)
        assert counts_of(db, bundle.id) == (size - 1, size - 1, True)
        assert [job.payload for job in service.list_jobs(type="after")][:1] == [size]
        assert_counts_true(db)


def test_deleting_a_stopped_member_completes_nothing(
    service: QueueService, worker_store: WorkerStore, db: Connection, ear: Ear
) -> None:
    """Deleting a member of a bundle that is complete, or that waits for another one, is not a completion."""
    bundle = service.add_bundle(make_bundle(3, on_stopped=JobDesc(1, type="after")))
    first, second, third = claim(worker_store, 3, ["t"])
    succeeded(worker_store, first)
    ear.heard()
    service.delete_job(first.id)
    assert counts_of(db, bundle.id) == (2, 0, False)
    succeeded(worker_store, second)
    succeeded(worker_store, third)
    ear.heard()
    service.delete_job(second.id)
    assert counts_of(db, bundle.id) == (1, 1, True)
    assert ear.heard() == []
    assert len(service.list_jobs(type="after")) == 1
    assert_counts_true(db)


@pytest.mark.parametrize("by", ["origin", "type"])
def test_delete_by_origin_or_type(service: QueueService, worker_store: WorkerStore, db: Connection, by: str) -> None:
    """All jobs of an origin or type go, in whatever state, out of all bundles; how many is returned."""
    gone: dict[str, Any] = {by: "gone"}
    service.add_jobs([make_job(**gone), make_job(**gone, priority=9), make_job(), make_job(**{by: "gone%"})])
    desc = JobDesc(1, **{"type": "t", "origin": "o", **gone})
    mixed = service.add_bundle(JobBundle.new("b", [desc, JobDesc(2, type="t", origin="o"), desc]))
    whole = service.add_bundle(JobBundle.new("b", [desc], on_stopped=JobDesc(1, type="after")))
    job = claim_one(worker_store)
    delete = service.delete_jobs_from_origin if by == "origin" else service.delete_jobs_of_type
    assert delete("gone") == 5
    assert delete("gone") == delete("nothing") == 0
    assert worker_store.touch_jobs([fence_of(job)]) == frozenset()
    assert counts_of(db, mixed.id) == (1, 0, False)
    assert counts_of(db, whole.id) == (0, 0, True)
    assert len(service.list_jobs(type="after")) == 1
    assert service.get_status().num_jobs == 4
    assert_counts_true(db)


def test_delete_finished(service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """delete_finished_jobs takes what succeeded outside of bundles: failed, cancelled, bundled and open ones stay."""
    jobs = {fate.__name__: service.add_job(make_job(fate.__name__)) for fate in FATES}
    bundle = service.add_bundle(make_bundle(1, member_type="bundled"))
    future = service.enqueue("future", 1, delay=timedelta(hours=1))
    for fate in FATES:
        fate(worker_store, claim_one(worker_store, [fate.__name__]))
    succeeded(worker_store, claim_one(worker_store, ["bundled"]))
    empty_error = insert_job(db, stopped_at=START, error_msg="")
    assert service.delete_finished_jobs() == 1
    assert service.delete_finished_jobs() == 0
    left = {job.id for job in service.list_jobs()}
    del jobs["succeeded"]
    assert left == {*(job.id for job in jobs.values()), bundle.jobs[0].id, future.id, empty_error}
    assert_counts_true(db)


# --- deleting bundles


def test_delete_bundle(service: QueueService, worker_store: WorkerStore, ear: Ear) -> None:
    """A bundle goes with its members, the running ones too; nothing completes, nobody is told."""
    bundle = service.add_bundle(make_bundle(3, on_stopped=JobDesc(1, type="after")))
    kept = service.add_bundle(make_bundle(1))
    job, other, *_ = claim(worker_store, 3)
    succeeded(worker_store, other)
    ear.heard()
    service.delete_job_bundle(bundle.id)
    assert ear.heard() == []
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()
    assert [read.id for read in service.list_jobs()] == [kept.jobs[0].id]
    with pytest.raises(JobBundleNotFoundError):
        service.delete_job_bundle(bundle.id)


@pytest.mark.parametrize("by", ["origin", "type"])
def test_delete_bundles_by_origin_or_type(service: QueueService, db: Connection, by: str) -> None:
    """All bundles of an origin or type go with their members, whatever those members' are; loose jobs stay."""
    for _ in range(2):
        service.add_bundle(make_bundle(2, **{by: "gone"}))
    kept = service.add_bundle(make_bundle(2))
    service.add_job(make_job(**{by: "gone"}))
    delete = service.delete_job_bundles_from_origin if by == "origin" else service.delete_job_bundles_of_type
    assert delete("gone") == 2
    assert delete("gone") == 0
    assert (service.get_status().num_jobs, service.get_status().num_job_bundles) == (3, 1)
    assert service.get_job_bundle(kept.id).jobs == kept.jobs
    assert_counts_true(db)


def test_a_completion_job_outlives_its_bundle(service: QueueService, worker_store: WorkerStore) -> None:
    """The job that a completion added stays when the bundle is deleted, and can be worked off."""
    bundle = service.add_bundle(make_bundle(1, on_stopped=JobDesc(1, type="after")))
    succeeded(worker_store, claim_one(worker_store, ["t"]))
    service.delete_job_bundle(bundle.id)
    after = claim_one(worker_store, ["after"])
    assert after.completes_bundle_id == bundle.id
    succeeded(worker_store, after)
    assert service.get_job(after.id).state is State.SUCCEEDED


def test_delete_everything(service: QueueService, worker_store: WorkerStore) -> None:
    """delete_all_jobs_and_bundles leaves nothing, and is no error when there is nothing."""
    service.delete_all_jobs_and_bundles()
    service.add_jobs([make_job() for _ in range(3)])
    service.add_bundle(make_bundle(2, on_stopped=JobDesc(1, type="after")))
    job = claim_one(worker_store)
    service.delete_all_jobs_and_bundles()
    assert service.get_status().is_zero
    assert worker_store.save_outcomes([Outcome.finished(job)]) == frozenset()


def test_unknown_ids(service: QueueService) -> None:
    """What is not there cannot be reset or deleted alone; among several it is left out."""
    for act in (service.reset_job, service.delete_job):
        with pytest.raises(JobNotFoundError):
            act(uuid4())
    assert service.reset_jobs([uuid4(), uuid4()]) == 0


def test_a_retry_that_is_reset_runs_at_once(
    service: QueueService, store: PostgresStore, worker_store: WorkerStore, db: Connection
) -> None:
    """A reset job does not wait for the moment of a retry; one that was added for a later moment keeps that."""
    service.enqueue("t", 1, max_retry_count=1)
    job = claim_one(worker_store)
    worker_store.save_outcomes([Outcome.retry(job, RunError(message="x"), delay=timedelta(hours=1))])
    service.reset_job(job.id)
    assert service.get_job(job.id).state is State.AVAILABLE
    later = service.enqueue("t", 1, delay=timedelta(hours=1))
    service.reset_job(later.id)
    assert service.get_job(later.id).state is State.SCHEDULED
