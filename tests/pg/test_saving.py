"""Outcomes are saved while their claims hold; beats keep claims alive; the reaper frees those that fell silent."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from psycopg.conninfo import make_conninfo

from jobqueue import Job, JobDesc, RefusedError
from jobqueue.models import new_id
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind, RunError, fence_of
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
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
ERROR = RunError(message="broken", type="app.Error", traceback="Traceback: ...", data_json='{"code": 7}')

# The server of these tests may have been started a moment ago, and silence before its start does not count.
DEAD_FOR = timedelta(milliseconds=1)

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
    for message in ("", "\"quoted\" \\ '; %s {x} \n\x01 \U0001f40d", "x" * 100_000):
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
    """A row that somebody holds is waited for last and for two seconds at most; meanwhile the others are alive."""
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
    outcomes = {"good": "finished", "bad": "failed", "discarded": "discarded"}
    claimed = claim(worker_store, 10, list(outcomes))
    worker_store.save_outcomes([OUTCOMES[OutcomeKind(outcomes[job.type])](job) for job in claimed])
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
    held, free = (service.add_bundle(make_bundle(2, delete_when_succeeded=True)) for _ in range(2))
    worker_store.save_outcomes([Outcome.finished(job) for job in claim(worker_store, 4)])
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [held.jobs[0].id])
        assert worker_store.delete_succeeded_bundles() == 1
    with db.transaction():
        db.execute("select from worker.job_bundle where id = %s for update", [held.id])
        assert worker_store.delete_succeeded_bundles() == 0
    assert worker_store.delete_succeeded_bundles() == 1
    assert service.get_status().is_zero
