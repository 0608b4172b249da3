"""Atomic handlers: their work commits together with their job's completion, or not at all."""

import threading
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

import jobqueue
from jobqueue import (
    Discard,
    Fixed,
    Job,
    JobBundle,
    JobContext,
    JobDesc,
    JobQueueError,
    LostClaimError,
    RegistrationError,
    Snooze,
    State,
    WorkerPool,
)
from tests.fixtures.effects import EFFECTS, affect
from tests.fixtures.stores import assert_counts_true, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

SOON = Fixed(timedelta(milliseconds=10))
pytestmark = pytest.mark.usefixtures("effects")


# --- what commits


def test_all_of_a_run_commits_together(workers, registry, db, other_db):
    """Effect, result, follow-up job and the bundle's count are seen by others in one moment."""
    service = workers.service()
    arrived, leave = threading.Event(), threading.Event()

    @registry.handler("charge", atomic=True)
    def charge(ctx: JobContext, number: int) -> dict[str, int]:
        affect(ctx, number)
        service.enqueue("mail", number, connection=ctx.connection)
        arrived.set()
        assert leave.wait(10)
        return {"charged": number}

    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(5, type="charge")], on_stopped=JobDesc(1, type="done")))
    workers.start_on(service, registry)
    assert arrived.wait(10)
    picture = (
        "select (select count(*) from effect), (select count(*) from worker.job where type = 'mail'),"
        " (select count(*) from worker.job where type = 'done'),"
        " (select num_jobs_stopped from worker.job_bundle),"
        " (select count(*) from worker.job where stopped_at is not null)"
    )
    assert other_db.execute(picture).fetchone() == (0, 0, 0, 0, 0)
    leave.set()
    seen = set()
    wait_until(lambda: seen.add(other_db.execute(picture).fetchone()) or (1, 1, 1, 1, 1) in seen)
    assert seen <= {(0, 0, 0, 0, 0), (1, 1, 1, 1, 1)}
    ended = wait_for_end(service, bundle.jobs[0])
    assert (ended.state, ended.result, ended.run_count) == (State.SUCCEEDED, {"charged": 5}, 1)
    assert_counts_true(db)
    assert service.health()["lost_claims"] == 0


@pytest.mark.parametrize(
    ("steer", "state"), [(Snooze(timedelta(hours=1)), State.RETRYING), (Discard("no"), State.CANCELLED)]
)
def test_what_a_handler_returns_to_steer_commits_too(workers, registry, db, steer, state):
    """With Snooze or Discard the work is kept, and the job is as the handler said."""
    service = workers.service()

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> object:
        affect(ctx, number)
        return steer

    job = service.enqueue("t", 1)
    workers.start_on(service, registry)
    wait_until(lambda: service.get_job(job.id).state == state)
    assert fetch_all(db, EFFECTS) == [1]


def test_plain_handlers_and_payload_parameters_work_beside(workers, registry, db):
    """Atomic and other handlers share a pool; what one did to its connection's rows, the next one does not see."""
    service = workers.service(atomic_connections=1)

    @registry.handler("atomic", atomic=True)
    def atomic(ctx: JobContext, *, number: int) -> list[str]:
        kind = type(ctx.connection.execute("select 1 as one").fetchone()).__name__
        ctx.connection.row_factory = dict_row
        affect(ctx, number)
        return [kind]

    registry.register_func_for_job_type("plain", lambda number: number)
    jobs = [service.enqueue("atomic", {"number": number}) for number in range(3)]
    others = [service.enqueue("plain", number) for number in range(3)]
    workers.start_on(service, registry)
    assert [wait_for_end(service, job).result for job in jobs] == [["tuple"]] * 3
    assert [wait_for_end(service, job).result for job in others] == [0, 1, 2]
    assert fetch_all(db, EFFECTS) == [0, 1, 2]


# --- what is rolled back


def test_a_failed_run_leaves_nothing(workers, registry, db):
    """What a run did before it failed is rolled back; the retry's work is there once."""
    service = workers.service()

    @registry.handler("t", atomic=True, max_retry_count=1, retry=SOON)
    def work(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        service.enqueue("mail", number, connection=ctx.connection)
        if ctx.job.current_retry_count == 0:
            raise ValueError("the first time it fails")

    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t", max_retry_count=1)]))
    workers.start_on(service, registry)
    ended = wait_for_end(service, bundle.jobs[0])
    assert (ended.state, ended.run_count, ended.current_retry_count) == (State.SUCCEEDED, 2, 1)
    assert [attempt.error_msg for attempt in ended.attempt_errors] == ["the first time it fails"]
    assert fetch_all(db, EFFECTS) == [1]
    assert fetch_all(db, "select count(*) from worker.job where type = 'mail'") == [1]
    assert_counts_true(db)


def test_a_lost_claim_rolls_all_back(workers, registry, db, caplog):
    """A job that was reset while it ran: the late run leaves nothing, is told of once, and the second one counts."""
    service = workers.service(poll_interval=timedelta(seconds=0.1))
    arrived, leave = threading.Event(), threading.Event()

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> str:
        affect(ctx, number)
        if arrived.is_set():
            return "second"
        arrived.set()
        assert leave.wait(10)
        wait_until(lambda: ctx.is_lost)
        with pytest.raises(LostClaimError):
            ctx.check()
        return "first"

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    assert arrived.wait(10)
    service.reset_job(job.id)
    leave.set()
    ended = wait_for_end(service, job)
    assert (ended.result, ended.run_count) == ("second", 1)
    assert fetch_all(db, EFFECTS) == [1]
    health = service.health()
    assert (health["lost_claims"], health["refused_outcomes"]) == (1, 1)
    assert len([record for record in caplog.records if "lost the claim" in record.getMessage()]) <= 1


def change_isolation(ctx: JobContext) -> None:
    ctx.connection.execute("set transaction isolation level repeatable read")


def make_it_read_only(ctx: JobContext) -> None:
    ctx.connection.execute("set transaction read only")


def end_the_transaction(ctx: JobContext) -> None:
    ctx.connection.execute("rollback")


def begin_another_transaction(ctx: JobContext) -> None:
    ctx.connection.execute("rollback")
    ctx.connection.execute("begin")


def chain_another_transaction(ctx: JobContext) -> None:
    ctx.connection.execute("rollback and chain")
    affect(ctx, 99)


def use_the_drivers_commit(ctx: JobContext) -> None:
    ctx.connection.commit()


def swallow_an_error(ctx: JobContext) -> None:
    with suppress(psycopg.Error):
        ctx.connection.execute("select 1/0")


def break_a_late_constraint(ctx: JobContext) -> None:
    ctx.connection.execute("create temp table late (n int unique deferrable initially deferred) on commit drop")
    ctx.connection.execute("insert into late values (1), (1)")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (change_isolation, "must be READ COMMITTED, not REPEATABLE READ"),
        (make_it_read_only, "has made its transaction read only"),
        (end_the_transaction, "has ended its transaction"),
        (begin_another_transaction, "has ended its transaction"),
        (chain_another_transaction, "has ended its transaction"),
        (use_the_drivers_commit, "commit"),
        (swallow_an_error, "savepoint"),
        (break_a_late_constraint, "duplicate key value violates unique constraint"),
    ],
)
def test_a_transaction_that_cannot_be_completed_fails_the_run(workers, registry, db, spoil, words):
    """All is rolled back, the job fails with words that say why, and the next run has a sound connection."""
    service = workers.service(atomic_connections=1)

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> int:
        if number == 1 and spoil is change_isolation:
            spoil(ctx)
        affect(ctx, number)
        if number == 1 and spoil is not change_isolation:
            spoil(ctx)
        return number

    first, second = service.enqueue("t", 1), service.enqueue("t", 2)
    workers.start_on(service, registry, 1)
    failed = wait_for_end(service, first)
    assert failed.state == State.FAILED
    assert words in failed.error_msg
    assert wait_for_end(service, second).succeeded
    assert fetch_all(db, EFFECTS) == [2]


def test_a_statement_that_may_fail_goes_into_a_savepoint(workers, registry, db):
    """An error within `ctx.connection.transaction()` takes only that back."""
    service = workers.service()

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        try:
            with ctx.connection.transaction():
                affect(ctx, 99)
                ctx.connection.execute("select 1/0")
        except psycopg.Error:
            affect(ctx, number + 1)

    job = service.enqueue("t", 1)
    workers.start_on(service, registry)
    assert wait_for_end(service, job).succeeded
    assert fetch_all(db, EFFECTS) == [1, 2]


@pytest.mark.parametrize("result", [float("nan"), 13])
def test_a_result_that_cannot_be_stored_rolls_back(migrated, registry, connection, result):
    """The job fails with words that say so, and its work is gone with its result."""
    connection.execute("alter table worker.job add constraint not_13 check (result is distinct from '13')")
    connection.execute("create table effect (number int, job_id uuid)")

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> object:
        affect(ctx, number)
        return result

    workers = Workers(migrated)
    try:
        service = workers.service()
        job = service.enqueue("t", 1)
        workers.start_on(service, registry)
        ended = wait_for_end(service, job)
    finally:
        workers.end()
    assert (ended.state, ended.run_count, fetch_all(connection, EFFECTS)) == (State.FAILED, 1, [])
    assert "the result c" in ended.error_msg


# --- where there is no connection


def test_memory_cannot_run_them(registry):
    """A pool over memory:// does not start with an atomic handler, and says why."""
    registry.register_func_for_job_type("plain", lambda number: number)

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> None: ...

    with jobqueue.connect("memory://") as service:
        with pytest.raises(RegistrationError, match="cannot run atomic handlers"):
            WorkerPool(service, registry).start()
        registry.unregister("t")
        WorkerPool(service, registry).start()


def test_other_handlers_have_no_connection(workers, registry):
    """What a handler that is not atomic gets for its connection is an error that says what to do."""
    service = workers.service()

    @registry.handler("t")
    def work(ctx: JobContext, number: int) -> None:
        ctx.connection.execute("select 1")

    job = service.enqueue("t", 1)
    workers.start_on(service, registry)
    assert "atomic=True" in wait_for_end(service, job).error_msg


def test_a_run_that_has_ended_has_no_connection(workers, registry, db):
    """A thread that a handler has left behind cannot meddle with the transaction of the next one."""
    service = workers.service(atomic_connections=1)
    contexts = []

    @registry.handler("t", atomic=True, max_retry_count=0)
    def work(ctx: JobContext, number: int) -> None:
        contexts.append(ctx)
        affect(ctx, number)
        for earlier in contexts[:-1]:
            with pytest.raises(JobQueueError, match="no connection"):
                affect(earlier, 99)
        if number == 2:
            raise ValueError("no luck")

    workers.start_on(service, registry, 1)
    states = [wait_for_end(service, service.enqueue("t", number)).state for number in (1, 2, 3)]
    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    assert fetch_all(db, EFFECTS) == [1, 3]


def test_do_job_lends_a_connection(registry, db):
    """An application's test runs an atomic handler on a connection of its own, whose transaction it keeps."""

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> int:
        affect(ctx, number)
        return number

    job = Job.new("t", 1)
    with pytest.raises(JobQueueError, match="do_job"):
        jobqueue.do_job(job, registry)
    with db.transaction(force_rollback=True):
        assert jobqueue.do_job(job, registry, connection=db) == 1
        assert fetch_all(db, EFFECTS) == [1]
    assert fetch_all(db, EFFECTS) == []


@pytest.mark.parametrize("atomic", [1, "", b"yes", None])
def test_atomic_is_yes_or_no(registry, atomic):
    """Anything but a bool or a name is refused, by name."""
    with pytest.raises(RegistrationError, match="atomic of"):
        registry.handler("t", atomic=atomic)(lambda number: number)
