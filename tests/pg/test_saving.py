"""What outcomes write in rows, beyond what a job shows; and what PostgreSQL refuses of them."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import pytest
from psycopg.conninfo import make_conninfo

from jobqueue import Job, RefusedError
from jobqueue.outcomes import Claimant, Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.listening import CHANNELS, Ear
from tests.fixtures.stores import (
    START,
    Connection,
    add,
    assert_counts_true,
    claim,
    claim_one,
    counts_of,
    fetch_all,
    make_bundle,
    make_job,
    row_of,
)

SECOND = timedelta(seconds=1)
ERROR = RunError(message="broken", type="app.Error", traceback="Traceback: ...", data_json='{"code": 7}')


# --- what is written


def test_stale_columns_are_cleared(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """What an earlier run, or another program, left in result, error and cancellation does not outlive a good run."""
    (job,) = add(store, make_job())
    db.execute("update worker.job set result = '1', error_msg = 'old', error_data = '2', cancelled_at = now()")
    worker_store.save_outcomes([Outcome.finished(claim_one(worker_store))])
    row = row_of(db, job.id)
    assert (row["result"], row["error_msg"], row["error_data"], row["cancelled_at"]) == (None, None, None, None)


def test_result_of_null(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """A result that is the JSON null is SQL's NULL in its row."""
    add(store, make_job())
    worker_store.save_outcomes([Outcome.finished(claim_one(worker_store), "null")])
    assert fetch_all(db, "select count(*) from worker.job where result is null") == [1]


@pytest.mark.parametrize(
    "outcome",
    [Outcome.released, lambda job: Outcome.snoozed(job, SECOND), lambda job: Outcome.retry(job, ERROR)],
    ids=["released", "snoozed", "retry"],
)
def test_a_lease_goes_with_its_claim(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, outcome: Callable[[Job], Outcome]
) -> None:
    """The lease stands in the row as long as the claim that it belongs to."""
    add(store, make_job())
    claimant = Claimant(name="n", lease=timedelta(seconds=90, microseconds=1))
    (job,) = worker_store.claim_jobs(["*"], 1, claimant)
    assert row_of(db, job.id)["lease"] == claimant.lease
    worker_store.save_outcomes([outcome(job)])
    assert row_of(db, job.id)["lease"] is None


def test_a_delay_out_of_the_calendar(store: PostgresStore, worker_store: WorkerStore) -> None:
    """A delay that no interval can hold is stored as a century."""
    add(store, make_job())
    job = claim_one(worker_store)
    worker_store.save_outcomes([Outcome.snoozed(job, timedelta.max)])
    assert store.get_job(job.id).start_at == START + timedelta(days=36500)


@pytest.mark.parametrize("result", ['"%s {schema} \\u2028"', "[" * 90 + "]" * 90, "9" * 5000, '"' + "x" * 10**6 + '"'])
def test_results_of_every_kind(store: PostgresStore, worker_store: WorkerStore, db: Connection, result: str) -> None:
    """Whatever JSON a result is, it is stored as it is."""
    (job,) = add(store, make_job())
    worker_store.save_outcomes([Outcome.finished(claim_one(worker_store), result)])
    assert fetch_all(db, "select result = %s::jsonb from worker.job", result) == [True]
    assert store.get_job(job.id).result_json is not None


@pytest.mark.parametrize("result", [r'"\u0000"', r'"\ud800"', "1e200000", "nonsense"])
def test_refused_outcome(store: PostgresStore, worker_store: WorkerStore, db: Connection, result: str) -> None:
    """What PostgreSQL cannot store is a RefusedError; the claim is as it was."""
    add(store, make_job())
    job = claim_one(worker_store)
    before = row_of(db, job.id)
    with pytest.raises(RefusedError):
        worker_store.save_outcomes([Outcome.finished(job, result)])
    assert row_of(db, job.id) == before


# --- fencing


def test_a_job_that_was_not_claimed_has_no_fence() -> None:
    """A job that was read or made, but not claimed, cannot have an outcome."""
    with pytest.raises(ValueError, match="not claimed"):
        Outcome.finished(make_job())


# --- bundles


def test_counters_of_several_bundles_in_one_set(
    service: QueueService, worker_store: WorkerStore, db: Connection
) -> None:
    """Members of several bundles in one set: each bundle's row is written once, by as many as stopped."""
    bundles = [service.add_bundle(make_bundle(size)) for size in (1, 3, 5)]
    service.add_jobs([make_job(), make_job()])
    db.execute("create table bundle_write (id uuid)")
    db.execute(
        "create function note() returns trigger language plpgsql as "
        "'begin insert into public.bundle_write values (new.id); return null; end'"
    )
    db.execute("create trigger note after update on worker.job_bundle for each row execute function note()")
    try:
        outcomes = [
            (Outcome.released if job.payload == 4 else Outcome.finished)(job) for job in claim(worker_store, 20)
        ]
        worker_store.save_outcomes(outcomes)
        assert sorted(fetch_all(db, "select id from bundle_write")) == sorted(bundle.id for bundle in bundles)
    finally:
        db.execute("drop trigger note on worker.job_bundle")
        db.execute("drop function note")
        db.execute("drop table bundle_write")
    assert [counts_of(db, bundle.id) for bundle in bundles] == [(1, 1, True), (3, 3, True), (5, 4, False)]
    assert_counts_true(db)


# --- who hears of it


def test_a_database_that_keeps_quiet(migrated: str) -> None:
    """Where jobqueue.notify is off, retries, lost claims and new times are not heard either."""
    quiet = make_conninfo(migrated, options="-c jobqueue.notify=off")
    channels = (*CHANNELS, "claim_lost")
    with (
        Ear(migrated, channels) as ear,
        closing(PostgresStore(quiet)) as store,
        closing(store.for_workers()) as workers,
    ):
        add(store, make_job(max_retry_count=3), make_job())
        first, second = claim(workers, 2)
        workers.save_outcomes([Outcome.retry(first, ERROR), Outcome.finished(second)])
        assert store.reschedule_job(first.id, None)
        store.reset_jobs([first.id, second.id])
        assert len(claim(workers, 2)) == 2
        store.cancel_jobs([first.id])
        store.delete_jobs([second.id])
        assert ear.heard() == []
