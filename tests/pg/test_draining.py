"""Draining in the test's own transaction: on every kind of connection, all of it is undone in the end."""

import threading
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.pq import TransactionStatus

import jobqueue
import jobqueue_pg
from jobqueue import Job, JobBundle, JobContext, JobDesc, JobQueueError
from jobqueue.queue_service import QueueService
from jobqueue.retry import Fixed
from jobqueue.testing import Clock, drain, enqueued_jobs
from tests.fixtures.joining import CALLERS, Caller
from tests.fixtures.stores import events
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of

HOUR = timedelta(hours=1)
NAME = "draining"


FEW = ["psycopg", "psycopg2's cursor", "SQLAlchemy on psycopg", "session on psycopg2", "Django's alias"]


@pytest.fixture(params=list(CALLERS))
def caller(request: pytest.FixtureRequest, queue: str) -> Iterator[Caller]:
    """The test's own connection, by every driver and framework."""
    with CALLERS[request.param](queue) as caller:
        caller.execute("create table worker.effect (what text primary key)")
        yield caller
        caller.rollback()


@pytest.fixture
def service(queue: str) -> Iterator[QueueService]:
    """The current service, which names one transaction that is never opened."""
    opened: list[str] = []
    with (
        jobqueue_pg.connect(
            psycopg.conninfo.make_conninfo(queue, application_name=NAME),
            origin="tests",
            transactions={"app": lambda: opened.append("app")},
        ) as service,
        jobqueue.use_service(service),
    ):
        yield service
    assert opened == []


def test_all_of_it_is_in_the_callers_transaction(service, caller, registry, db, ear):
    """Enqueueing, claims, retries, delays, ticks, keys, progress, bundles, and what handlers enqueue: rolled back."""
    ran: list[object] = []

    @registry.handler("fails", retry=Fixed(HOUR), max_retry_count=1)
    def fail() -> None:
        ran.append("fails")
        raise ValueError("no")

    @registry.handler("step")
    def step(ctx: JobContext, name: str) -> str:
        ran.append(name)
        ctx.set_progress(0.5)
        if name == "first":
            jobqueue.enqueue("step", "by a handler", delay=2 * HOUR)
            assert jobqueue.get_job(ctx.job.id).progress["fraction"] == 0.5
        return name.upper()

    @registry.scheduled("hourly", every=HOUR)
    def hourly() -> None:
        ran.append("hourly")

    given = caller.given
    with Clock() as clock:
        jobqueue.enqueue(fail, {}, connection=given)
        first = jobqueue.enqueue("step", "first", connection=given, unique_key="k")
        assert jobqueue.enqueue("step", "again", connection=given, unique_key="k") == first
        jobqueue.add_bundle(
            JobBundle.new("b", [JobDesc("member", type="step")], on_stopped=JobDesc("end", type="step")),
            connection=given,
        )
        drained = drain(given, registry=registry, raise_errors=False)
        assert ran == ["fails", "first", "member", "end"] == [run.payload or "fails" for run in drained]
        assert [run.result for run in drained.succeeded] == ["FIRST", "MEMBER", "END"]
        assert len(drain(given, registry=registry)) == 0
        clock.advance(hours=3)
        assert drain(given, registry=registry, raise_errors=False).types == [
            "fails",
            "hourly",
            "step",
            "hourly",
            "hourly",
        ]
        assert enqueued_jobs(connection=given) == []
    # What looked at the schema when the service was made; those of tests before may take the server a moment to end.
    wait_until(lambda: connections_of(db, NAME) <= 1)
    caller.rollback()
    assert service.get_status().is_zero
    assert service.get_schedules() == []
    assert events(ear) == []


@pytest.mark.parametrize("caller", FEW, indirect=True)
@pytest.mark.parametrize("atomic", [True, "app"])
def test_atomic_handlers_work_in_a_savepoint(service, caller, registry, atomic):
    """They are given the test's connection; what they do stays if they succeed, and is undone if they fail."""
    seen: list[object] = []

    @registry.handler("t", atomic=atomic, retry=Fixed(HOUR), max_retry_count=1)
    def work(ctx: JobContext, what: str) -> None:
        seen.append(ctx.connection)
        caller.execute(f"insert into worker.effect values ('{what}')")
        if what == "fails":
            raise ValueError("no")

    for what in ("succeeds", "fails"):
        jobqueue.enqueue(work, what, connection=caller.given)
    drained = drain(caller.given, registry=registry, raise_errors=False)
    assert [run.kind for run in drained] == ["finished", "retry"]
    assert effects(service, caller) == ["succeeds"]
    assert len({id(each) for each in seen}) == 1


@pytest.mark.parametrize("caller", FEW, indirect=True)
@pytest.mark.parametrize("atomic", [False, True, "app"])
def test_broken_transactions_are_mended(service, caller, registry, atomic):
    """A statement of a handler that fails leaves the test's transaction usable, and its job's failure is saved."""

    @registry.handler("t", atomic=atomic)
    def work(ctx: JobContext, what: str) -> None:
        caller.execute(f"insert into worker.effect values ('{what}')")

    for what in ("one", "one", "two"):
        jobqueue.enqueue("t", what, connection=caller.given)
    drained = drain(caller.given, registry=registry, raise_errors=False)
    assert [run.kind for run in drained] == ["finished", "failed", "finished"]
    assert "unique" in str(drained.failed[0].error)
    assert effects(service, caller) == ["one", "two"]


@pytest.mark.parametrize("caller", FEW, indirect=True)
def test_a_refused_outcome_does_not_break_the_transaction(service, caller, registry, db):
    """What the database refuses to save is undone alone; the job fails, and says why."""
    caller.execute("alter table worker.job add constraint short_results check (length(result::text) < 100) not valid")
    registry.handler("t")(lambda size: "x" * size)
    for size in (200, 2):
        jobqueue.enqueue("t", size, connection=caller.given)
    drained = drain(caller.given, registry=registry, raise_errors=False)
    assert [run.kind for run in drained] == ["failed", "finished"]
    assert "could not be stored" in str(drained.failed[0].error)


def effects(service: QueueService, caller: Caller) -> list[str]:
    """Read what handlers have done, in the test's transaction."""
    with service.store.within(caller.given):
        return [row[0] for row in service.store._own.fetch("select what from worker.effect order by what", {})]


def test_only_this_thread_joins(service, queue):
    """Other threads, those of a context that was copied within the block too, and this one after it, use the pool."""
    with psycopg.connect(queue) as connection:
        with service.store.within(connection):
            service.enqueue("t", 1)
            kept = copy_context()
            thread = threading.Thread(target=lambda: kept.run(service.enqueue, "of a thread", 1))
            thread.start()
            thread.join()
        kept.run(service.enqueue, "after", 1)
        connection.rollback()
    assert sorted(job.type for job in service.get_all_jobs_to_do()) == ["after", "of a thread"]


@pytest.mark.parametrize("caller", ["Django"], indirect=True)
def test_django_goes_on_after_a_failed_save(service, caller, registry):
    """What marks the atomic block as broken, as a failed save() does, ends with what has failed."""
    from django.db import transaction

    @registry.handler("t")
    def save() -> None:
        with transaction.mark_for_rollback_on_error(using="default"):
            raise ValueError

    service.enqueue("t", {}, connection="default")
    assert [run.kind for run in drain("default", registry=registry, raise_errors=False)] == ["failed"]
    assert effects(service, caller) == []


def test_commits_where_nothing_is_joined(service, registry, db):
    """Without a connection, and without one that calls join, each step is committed: the service's own rows are run."""
    seen: list[object] = []

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext) -> None:
        ctx.connection.execute("update worker.job set progress = '1' where id = %s", [ctx.job.id])
        seen.append(ctx.connection)

    job = service.enqueue("t", {})
    assert drain(registry=registry).types == ["t"]
    assert db.execute("select progress, stopped_at is not null from worker.job").fetchall() == [(1, True)]
    assert service.get_job(job.id).succeeded


@pytest.mark.parametrize("given", [object(), 3, "alias"])
def test_what_cannot_be_joined_is_refused(service, registry, given):
    """It is named, and nothing is run elsewhere instead."""
    service.enqueue("t", {})
    registry.register("t", lambda ctx, job: pytest.fail("ran"))
    with pytest.raises((TypeError, JobQueueError), match="connection="):
        drain(given, registry=registry)


def test_autocommit_goes_step_by_step(service, registry, db):
    """On a connection that is in no transaction, as the caller has it, each step is one."""
    registry.handler("t")(lambda: None)
    service.enqueue("t", {}, connection=db)
    assert drain(db, registry=registry).types == ["t"]
    assert service.get_status().num_jobs == 1
    assert db.info.transaction_status == TransactionStatus.IDLE


def test_adding_many_goes_by_the_clock(service, queue):
    """COPY adds at the clock's moment, as INSERT does."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    with psycopg.connect(queue) as connection, Clock(start):
        service.add_jobs([Job.new("t", number) for number in range(200)], connection=connection)
        assert {job.created_at for job in enqueued_jobs(connection=connection)} == {start}
        connection.rollback()
