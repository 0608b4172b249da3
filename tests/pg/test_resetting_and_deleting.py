"""The service resets and deletes; rows that other programs have left in a state of their own."""

from uuid import uuid4

import pytest

from jobqueue import InvalidJobError, Job, JobNotFoundError
from jobqueue.outcomes import Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from tests.fixtures.listening import CHANNELS, Ear
from tests.fixtures.stores import (
    START,
    Connection,
    assert_counts_true,
    claim,
    claim_one,
    counts_of,
    insert_job,
    make_bundle,
    make_job,
)


def succeeded(workers: WorkerStore, job: Job) -> None:
    workers.save_outcomes([Outcome.finished(job, "1")])


def test_ids_of_several_are_checked(service: QueueService) -> None:
    """Nothing is reset when one of the ids is none."""
    with pytest.raises(InvalidJobError, match="str"):
        service.reset_jobs([uuid4(), "id"])  # type: ignore[list-item]


def test_what_an_older_program_left_uncounted(service: QueueService, db: Connection) -> None:
    """A member that stopped with a retry left was never counted: no reset, replay or deletion takes it off."""
    for act in (service.reset_job, lambda job_id: service.store.replay_jobs([job_id]), service.delete_job):
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


def test_a_claim_without_an_id(service: QueueService, db: Connection, queue: str) -> None:
    """A job that go-jobqueue runs can be cancelled, reset and deleted; its claim has no id that could be told."""
    with Ear(queue, (*CHANNELS, "claim_lost")) as ear:
        for act in (service.store.cancel_jobs, service.store.reset_jobs, service.store.delete_jobs):
            id = insert_job(db, started_at=START, worker_alive_at=START)
            ear.heard()
            assert act([id]) == {id}
            assert "claim_lost" not in {channel for channel, _ in ear.heard()}


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


def test_unknown_ids(service: QueueService) -> None:
    """What is not there cannot be reset or deleted alone; among several it is left out."""
    for act in (service.reset_job, service.delete_job):
        with pytest.raises(JobNotFoundError):
            act(uuid4())
    assert service.reset_jobs([uuid4(), uuid4()]) == 0


def test_what_the_service_returns(service: QueueService, worker_store: WorkerStore) -> None:
    """Whoever resets or deletes several learns how many there were; a single one has to be there."""
    first, second = service.add_jobs([make_job("a", origin="x"), make_job("b", origin="y")])
    assert service.reset_jobs(iter([first.id, uuid4(), second.id, first.id])) == 2
    assert service.delete_jobs_from_origin("x") == service.delete_jobs_of_type("b") == 1
    service.add_job(make_job())
    succeeded(worker_store, claim_one(worker_store))
    assert service.delete_finished_jobs() == 1
    service.add_bundle(make_bundle(2, origin="x"))
    service.add_bundle(make_bundle(2, type="y"))
    assert service.delete_job_bundles_from_origin("x") == service.delete_job_bundles_of_type("y") == 1
    bundle = service.add_bundle(make_bundle(2))
    service.delete_job_bundle(bundle.id)
    service.add_job(make_job())
    service.delete_all_jobs_and_bundles()
    assert service.get_status().is_zero


def test_the_lists_of_the_service(service: QueueService, worker_store: WorkerStore) -> None:
    """What is to do and what has an error is listed by the service, too."""
    waiting, failing = service.add_jobs([make_job(), make_job(priority=1)])
    worker_store.save_outcomes([Outcome.failed(claim_one(worker_store), RunError(message="broken"))])
    assert (service.get_all_jobs_to_do(), service.get_all_jobs_with_errors()) == ([waiting], [failing])
