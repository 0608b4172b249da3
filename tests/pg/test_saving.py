"""Outcomes are saved, each while its claim holds: what they write, whom they count for, who hears of it."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from psycopg.conninfo import make_conninfo

from jobqueue import Job, JobDesc, RefusedError
from jobqueue.models import new_id
from jobqueue.outcomes import Outcome, OutcomeKind, RunError, fence_of
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
    fetch_all,
    make_bundle,
    make_job,
    row_of,
)

SECOND = timedelta(seconds=1)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
ERROR = RunError(message="broken", type="app.Error", traceback="Traceback: ...", data_json='{"code": 7}')

OUTCOMES: dict[OutcomeKind, Callable[[Job], Outcome]] = {
    OutcomeKind.FINISHED: lambda job: Outcome.finished(job, '{"ok": true}'),
    OutcomeKind.FAILED: lambda job: Outcome.failed(job, ERROR),
    OutcomeKind.RETRY: lambda job: Outcome.retry(job, ERROR, delay=timedelta(minutes=1)),
    OutcomeKind.SNOOZED: lambda job: Outcome.snoozed(job, timedelta(hours=1)),
    OutcomeKind.RELEASED: Outcome.released,
    OutcomeKind.DISCARDED: lambda job: Outcome.discarded(job, "not worth it"),
}

UNCLAIMED = {"started_at": None, "claim_id": None, "lease": None, "claimed_by": None}


def effects(kind: OutcomeKind, now: datetime, claim: Job) -> dict[str, Any]:
    """Return the columns that an outcome changes; every other one stays as it was."""
    attempt = {"at": now, "run": 4, "error_msg": "broken", "error_type": "app.Error", "traceback": "Traceback: ..."}
    match kind:
        case OutcomeKind.FINISHED:
            return {"stopped_at": now, "result": {"ok": True}, "run_count": 4}
        case OutcomeKind.FAILED:
            return {
                "stopped_at": now, "error_msg": "broken", "error_data": {"code": 7}, "run_count": 4,
                "current_retry_count": 5, "attempt_errors": [attempt],
            }  # fmt: skip
        case OutcomeKind.RETRY:
            return {
                **UNCLAIMED, "start_at": now + timedelta(minutes=1), "run_count": 4,
                "current_retry_count": 2, "attempt_errors": [attempt],
            }  # fmt: skip
        case OutcomeKind.SNOOZED:
            return {**UNCLAIMED, "start_at": now + timedelta(hours=1), "run_count": 4}
        case OutcomeKind.RELEASED:
            return UNCLAIMED
        case OutcomeKind.DISCARDED:
            return {
                "stopped_at": now, "cancelled_at": now, "error_msg": "not worth it", "run_count": 4,
                "current_retry_count": 5,
            }  # fmt: skip


# --- what is written


@pytest.mark.parametrize("kind", OUTCOMES)
def test_effect_of_each_outcome(
    store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection, kind: OutcomeKind
) -> None:
    """Each kind of outcome changes the columns that it should, and no other."""
    (added,) = add(store, make_job(start_at=START - SECOND, max_retry_count=5))
    db.execute("update worker.job set run_count = 3, rescue_count = 2, current_retry_count = 1, progress = '0.5'")
    job = claim_one(worker_store)
    before = row_of(db, added.id)
    now = clock.advance(SECOND)
    assert worker_store.save_outcomes([OUTCOMES[kind](job)]) == {added.id}
    after = row_of(db, added.id)
    for attempt in after["attempt_errors"] or []:
        attempt["at"] = datetime.fromisoformat(attempt["at"])
    assert after == {**before, "worker_alive_at": None, "updated_at": now, **effects(kind, now, job)}


def test_stale_columns_are_cleared(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """What an earlier run, or another program, left in result, error and cancellation does not outlive a good run."""
    (job,) = add(store, make_job())
    db.execute("update worker.job set result = '1', error_msg = 'old', error_data = '2', cancelled_at = now()")
    worker_store.save_outcomes([Outcome.finished(claim_one(worker_store))])
    row = row_of(db, job.id)
    assert (row["result"], row["error_msg"], row["error_data"], row["cancelled_at"]) == (None, None, None, None)


def test_result_of_none(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """A run without a result leaves SQL's NULL, not the JSON null."""
    add(store, make_job(), make_job())
    first, second = claim(worker_store, 2)
    worker_store.save_outcomes([Outcome.finished(first), Outcome.finished(second, "null")])
    assert fetch_all(db, "select count(*) from worker.job where result is null") == [2]


@pytest.mark.parametrize("result", ['"%s {schema} \\u2028"', "[" * 90 + "]" * 90, "9" * 5000, '"' + "x" * 10**6 + '"'])
def test_results_of_every_kind(store: PostgresStore, worker_store: WorkerStore, db: Connection, result: str) -> None:
    """Whatever JSON a result is, it is stored as it is."""
    (job,) = add(store, make_job())
    worker_store.save_outcomes([Outcome.finished(claim_one(worker_store), result)])
    assert fetch_all(db, "select result = %s::jsonb from worker.job", result) == [True]
    assert store.get_job(job.id).result_json is not None


def test_message_of_every_kind(store: PostgresStore, worker_store: WorkerStore) -> None:
    """Whatever text an error has, it is stored as it is, an empty one too."""
    for message in ("", '"quoted" \\ \'; %s {x} \n\x01 \U0001f40d', "x" * 100_000):
        (job,) = add(store, make_job())
        error = RunError(message=message, type=message, traceback=message)
        worker_store.save_outcomes([Outcome.failed(claim_one(worker_store), error)])
        read = store.get_job(job.id)
        (attempt,) = read.attempt_errors
        assert (read.error_msg, attempt.error_msg, attempt.error_type, attempt.traceback) == (message,) * 4


@pytest.mark.parametrize(
    ("delay", "start_at"),
    [
        (timedelta(0), START),
        (timedelta(microseconds=1), START + timedelta(microseconds=1)),
        (timedelta.max, START + timedelta(days=36500)),
        (-timedelta(days=1), START - timedelta(days=1)),
    ],
    ids=str,
)
def test_delays(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, delay: timedelta, start_at: datetime
) -> None:
    """A delay counts from the moment of saving by the database's clock; a huge one is a century."""
    for outcome in (
        lambda job: Outcome.retry(job, ERROR, delay=delay),
        lambda job: Outcome.snoozed(job, delay),
    ):
        (job,) = add(store, make_job())
        worker_store.save_outcomes([outcome(claim_one(worker_store))])
        assert row_of(db, job.id)["start_at"] == start_at
        store.delete_jobs([job.id])


def test_delay_of_all_negative_time(store: PostgresStore, worker_store: WorkerStore) -> None:
    """A delay so negative that it leads out of the calendar means: at once."""
    (job,) = add(store, make_job())
    worker_store.save_outcomes([Outcome.retry(claim_one(worker_store), ERROR, delay=timedelta.min)])
    assert claim(worker_store) == [job]


@pytest.mark.parametrize(
    "start_at",
    [FUTURE, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC),
     datetime.fromisoformat("2100-01-01T00:00:00.000001+05:45")],
    ids=str,
)  # fmt: skip
def test_retry_at_a_moment(store: PostgresStore, worker_store: WorkerStore, db: Connection, start_at: datetime) -> None:
    """A retry may name its moment instead of a delay; without either the job is due as it was."""
    (job,) = add(store, make_job())
    worker_store.save_outcomes([Outcome.retry(claim_one(worker_store), ERROR, start_at=start_at)])
    assert fetch_all(db, "select start_at = %s from worker.job", start_at) == [True]
    store.reset_jobs([job.id])
    db.execute("update worker.job set start_at = %s", [START])
    worker_store.save_outcomes([Outcome.retry(claim_one(worker_store), ERROR)])
    assert row_of(db, job.id)["start_at"] == START


def test_the_last_attempts_are_kept(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """attempt_errors holds the last 20 failed runs, the newest last; runs that were released are none."""
    (job,) = add(store, make_job(max_retry_count=100))
    for run in range(1, 26):
        worker_store.save_outcomes([Outcome.released(claim_one(worker_store))])
        clock.advance(SECOND)
        error = RunError(message=f"run {run}")
        worker_store.save_outcomes([Outcome.retry(claim_one(worker_store), error)])
    read = store.get_job(job.id)
    assert [attempt.run for attempt in read.attempt_errors] == list(range(6, 26))
    assert [attempt.error_msg for attempt in read.attempt_errors] == [f"run {run}" for run in range(6, 26)]
    assert read.attempt_errors[-1].at == clock.moment
    assert (read.run_count, read.current_retry_count, read.error_msg) == (25, 25, None)


def test_mixed_outcomes_in_one_set(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """One set carries outcomes of all kinds, each to its own row."""
    jobs = add(store, *(make_job(payload=number, max_retry_count=1) for number in range(60)))
    claimed = claim(worker_store, 60)
    kinds = [list(OUTCOMES)[job.payload % 6] for job in claimed]
    saved = worker_store.save_outcomes([OUTCOMES[kind](job) for kind, job in zip(kinds, claimed, strict=True)])
    assert saved == {job.id for job in jobs}
    rows = [row_of(db, job.id) for job in jobs]
    assert [row["stopped_at"] is not None for row in rows] == [number % 6 in {0, 1, 5} for number in range(60)]
    assert [row["result"] is not None for row in rows] == [number % 6 == 0 for number in range(60)]
    assert [row["cancelled_at"] is not None for row in rows] == [number % 6 == 5 for number in range(60)]
    assert [row["run_count"] for row in rows] == [int(number % 6 != 4) for number in range(60)]


def test_no_outcomes(worker_store: WorkerStore) -> None:
    """An empty set costs nothing."""
    assert worker_store.save_outcomes([]) == worker_store.touch_jobs([]) == frozenset()


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


def reset(store: PostgresStore, worker_store: WorkerStore, job: Job) -> None:
    store.reset_jobs([job.id])


def reclaimed(store: PostgresStore, worker_store: WorkerStore, job: Job) -> None:
    store.reset_jobs([job.id])
    claim_one(worker_store)


def finished(store: PostgresStore, worker_store: WorkerStore, job: Job) -> None:
    worker_store.save_outcomes([Outcome.finished(job, '"the other one"')])


def released(store: PostgresStore, worker_store: WorkerStore, job: Job) -> None:
    worker_store.save_outcomes([Outcome.released(job)])


def deleted(store: PostgresStore, worker_store: WorkerStore, job: Job) -> None:
    store.delete_jobs([job.id])


@pytest.mark.parametrize("meanwhile", [reset, reclaimed, finished, released, deleted])
@pytest.mark.parametrize("kind", OUTCOMES)
def test_lost_claims(
    store: PostgresStore,
    worker_store: WorkerStore,
    db: Connection,
    kind: OutcomeKind,
    meanwhile: Callable[[PostgresStore, WorkerStore, Job], None],
) -> None:
    """Once a claim was taken away or spent, no outcome and no beat of it changes the row; neither is acknowledged."""
    add(store, make_job(max_retry_count=1))
    job = claim_one(worker_store)
    meanwhile(store, worker_store, job)
    before = fetch_all(db, "select j::text from worker.job j")
    assert worker_store.save_outcomes([OUTCOMES[kind](job)]) == frozenset()
    assert worker_store.touch_jobs([fence_of(job)]) == frozenset()
    assert fetch_all(db, "select j::text from worker.job j") == before


@pytest.mark.parametrize("change", ["started_at", "claim_id", "job_id"])
def test_fences(store: PostgresStore, worker_store: WorkerStore, db: Connection, change: str) -> None:
    """A fence that differs in any part, by a microsecond even, opens nothing."""
    add(store, make_job(), make_job())
    job, _ = claim(worker_store, 2)
    fence = fence_of(job)
    wrong = {
        "started_at": fence._replace(started_at=fence.started_at + timedelta(microseconds=1)),
        "claim_id": fence._replace(claim_id=new_id()),
        "job_id": fence._replace(job_id=new_id()),
    }[change]
    assert worker_store.save_outcomes([attrs.evolve(Outcome.finished(job), fence=wrong)]) == frozenset()
    assert worker_store.touch_jobs([wrong]) == frozenset()
    assert worker_store.save_outcomes([Outcome.finished(job)]) == {job.id}


def test_an_outcome_counts_once(service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """An outcome that is sent again, as after a lost answer, changes nothing and counts for nothing."""
    bundle = service.add_bundle(make_bundle(2))
    outcome = Outcome.finished(claim(worker_store, 1)[0])
    assert len(worker_store.save_outcomes([outcome])) == 1
    assert worker_store.save_outcomes([outcome]) == frozenset()
    assert counts_of(db, bundle.id) == (2, 1, False)


def test_lost_claims_keep_nothing_back(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """In a set, what was lost is left out, and everything else is saved."""
    add(store, *(make_job() for _ in range(10)))
    jobs = claim(worker_store, 10)
    store.reset_jobs(job.id for job in jobs[:5])
    saved = worker_store.save_outcomes([Outcome.finished(job) for job in jobs])
    assert saved == {job.id for job in jobs[5:]}


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
            (Outcome.released if job.payload == 4 else OUTCOMES[list(OUTCOMES)[(0, 1, 5)[number % 3]]])(job)
            for number, job in enumerate(claim(worker_store, 20))
        ]
        worker_store.save_outcomes(outcomes)
        assert sorted(fetch_all(db, "select id from bundle_write")) == sorted(bundle.id for bundle in bundles)
    finally:
        db.execute("drop trigger note on worker.job_bundle")
        db.execute("drop function note")
        db.execute("drop table bundle_write")
    assert [counts_of(db, bundle.id) for bundle in bundles] == [(1, 1, True), (3, 3, True), (5, 4, False)]
    assert_counts_true(db)


@pytest.mark.parametrize("kind", OUTCOMES)
def test_which_outcomes_count(
    service: QueueService, worker_store: WorkerStore, db: Connection, ear: Ear, kind: OutcomeKind
) -> None:
    """Outcomes that end a job complete its bundle, and are heard; those that do not are not counted."""
    bundle = service.add_bundle(make_bundle(1, on_stopped=JobDesc(1, type="after")))
    (member,) = claim(worker_store)
    ear.heard()
    worker_store.save_outcomes([OUTCOMES[kind](member)])
    stops = kind in {OutcomeKind.FINISHED, OutcomeKind.FAILED, OutcomeKind.DISCARDED}
    assert counts_of(db, bundle.id) == (1, int(stops), stops)
    assert len(service.list_jobs(type="after")) == int(stops)
    heard = [channel for channel, told in ear.heard() if told["type"] != "after"]
    expected = {OutcomeKind.RETRY: ["job_stopped"], OutcomeKind.SNOOZED: [], OutcomeKind.RELEASED: ["job_available"]}
    assert sorted(heard) == expected.get(kind, ["job_bundle_stopped", "job_stopped"])
    assert_counts_true(db)


def test_completion_is_recorded_at_the_time_of_saving(
    service: QueueService, worker_store: WorkerStore, clock: Clock
) -> None:
    """A bundle stops when its last member does; a member that is reset opens it again, and it can stop anew."""
    bundle = service.add_bundle(make_bundle(2, on_stopped=JobDesc(1, type="after")))
    for expected in (None, START + 2 * SECOND):
        now = clock.advance(SECOND)
        worker_store.save_outcomes([Outcome.finished(claim_one(worker_store, ["t"]))])
        assert service.get_job_bundle(bundle.id).stopped_at == expected
    service.reset_job(bundle.jobs[0].id)
    assert service.get_job_bundle(bundle.id).stopped_at is None
    now = clock.advance(SECOND)
    worker_store.save_outcomes([Outcome.failed(claim_one(worker_store, ["t"]), ERROR)])
    assert service.get_job_bundle(bundle.id).stopped_at == now
    assert len(service.list_jobs(type="after")) == 2


# --- who hears of it


def test_a_retry_is_heard(store: PostgresStore, worker_store: WorkerStore, ear: Ear, db: Connection) -> None:
    """A run that failed and will be run again says so at once, with willRetry; other outcomes say it is over."""
    (job,) = add(store, make_job("type", origin="from", max_retry_count=1))
    claimed = claim_one(worker_store)
    ear.heard()
    worker_store.save_outcomes([Outcome.retry(claimed, ERROR, delay=SECOND)])
    told = {"id": str(job.id), "type": "type", "origin": "from"}
    assert ear.heard() == [("job_stopped", {**told, "willRetry": True})]
    db.execute("update worker.job set start_at = null")
    worker_store.save_outcomes([Outcome.failed(claim_one(worker_store), ERROR)])
    assert ear.heard() == [("job_stopped", {**told, "willRetry": False})]


def test_a_retry_that_was_lost_is_not_heard(store: PostgresStore, worker_store: WorkerStore, ear: Ear) -> None:
    """An outcome whose claim was lost tells nobody anything."""
    add(store, make_job(max_retry_count=1))
    claimed = claim_one(worker_store)
    store.reset_jobs([claimed.id])
    ear.heard()
    worker_store.save_outcomes([Outcome.retry(claimed, ERROR), Outcome.finished(claimed)])
    assert ear.heard() == []


def test_a_database_that_keeps_quiet(migrated: str) -> None:
    """Where jobqueue.notify is off, a retry is not heard either."""
    quiet = make_conninfo(migrated, options="-c jobqueue.notify=off")
    with Ear(migrated) as ear, closing(PostgresStore(quiet)) as store, closing(store.for_workers()) as workers:
        add(store, make_job(max_retry_count=3), make_job())
        first, second = claim(workers, 2)
        workers.save_outcomes([Outcome.retry(first, ERROR), Outcome.finished(second)])
        store.reset_jobs([first.id, second.id])
        assert ear.heard() == []
