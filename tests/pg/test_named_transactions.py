"""Atomic handlers in transactions of the application's own: their work commits with the job's completion, or not."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from jobqueue import Discard, Fixed, JobContext, Snooze, State
from tests.fixtures.effects import EFFECTS
from tests.fixtures.named_transactions import WAYS, Open, Opens, affect, execute
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

SOON = Fixed(timedelta(milliseconds=10))
pytestmark = pytest.mark.usefixtures("effects")


@pytest.fixture(params=list(WAYS))
def begin(request: pytest.FixtureRequest, queue: str) -> Iterator[Open]:
    """How the application begins a transaction: by each driver, or a session."""
    with WAYS[request.param](make_conninfo(queue, application_name="own")) as begin:
        yield begin


@pytest.fixture
def opens(queue: str, workers: Workers) -> Iterator[Opens]:
    """Services, closed when no pool works on them any more."""
    made = Opens(queue)
    yield made
    workers.end()
    made.close()


# --- what commits, and what does not


def test_all_of_a_run_commits_together(begin, opens, workers, registry, db):
    """Effect, follow-up job and completion are seen by others in one moment, and the handler has what was given."""
    service = opens(begin)
    arrived, leave = threading.Event(), threading.Event()

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> int:
        affect(ctx, number)
        service.enqueue("next", number, connection=ctx.connection)
        arrived.set()
        assert leave.wait(10)
        return number + 1

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    assert arrived.wait(10)
    seen = "select (select count(*) from effect), (select count(*) from worker.job where type = 'next')"
    assert fetch_all(db, seen) == [(0, 0)]
    leave.set()
    ended = wait_for_end(service, job)
    assert (ended.state, ended.result, ended.run_count) == (State.SUCCEEDED, 2, 1)
    assert fetch_all(db, seen) == [(1, 1)]


@pytest.mark.parametrize(
    ("steer", "state"), [(Snooze(timedelta(hours=1)), State.RETRYING), (Discard("enough"), State.CANCELLED)]
)
def test_what_a_handler_returns_to_steer_commits_too(begin, opens, workers, registry, db, steer, state):
    """Put off and discarded runs keep their effects."""
    service = opens(begin)

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> object:
        affect(ctx, number)
        return steer

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    wait_until(lambda: fetch_all(db, EFFECTS))
    assert service.get_job(job.id).state in (state, State.SCHEDULED)


def test_a_failed_run_leaves_nothing(begin, opens, workers, registry, db):
    """What a handler has done before it raised is rolled back; its retry counts."""
    service = opens(begin)

    @registry.handler("t", atomic="own", retry=SOON)
    def work(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        if not ctx.job.run_count:
            raise ValueError("the first time it fails")

    job = service.enqueue("t", 1, max_retry_count=1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, job)
    assert (ended.state, ended.run_count, ended.current_retry_count) == (State.SUCCEEDED, 2, 1)
    assert [attempt.error_msg for attempt in ended.attempt_errors] == ["the first time it fails"]
    assert fetch_all(db, EFFECTS) == [1]


def test_a_lost_claim_rolls_all_back(begin, opens, workers, registry, db):
    """A job that was reset while it ran: the late run leaves nothing, and the second one counts."""
    service = opens(begin)
    arrived, leave = threading.Event(), threading.Event()

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> str:
        affect(ctx, number)
        if arrived.is_set():
            return "second"
        arrived.set()
        assert leave.wait(10)
        return "first"

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 2)
    assert arrived.wait(10)
    service.reset_job(job.id)
    ended = wait_for_end(service, job)
    leave.set()
    wait_until(lambda: service.health()["refused_outcomes"] == 1)
    assert (ended.result, ended.run_count) == ("second", 1)
    assert fetch_all(db, EFFECTS) == [1]


def test_a_lost_connection_is_a_rescue(begin, opens, workers, registry, db):
    """A run whose connection is cut costs no retry: the job is taken up again, and its effect is there once."""
    service = opens(begin)

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        if not ctx.job.rescue_count:
            db.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'own'")

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, job)
    assert (ended.state, ended.rescue_count, ended.current_retry_count) == (State.SUCCEEDED, 1, 0)
    assert fetch_all(db, EFFECTS) == [1]


# --- what spoils it


def end(ctx: JobContext) -> None:
    """End the transaction, whoever holds it."""
    if isinstance(ctx.connection, psycopg.Connection):
        ctx.connection.execute("rollback")
    else:
        ctx.connection.rollback()


def fail_and_go_on(ctx: JobContext) -> None:
    """Have a statement fail, and say nothing of it."""
    with suppress(Exception):
        execute(ctx.connection, "select 1 / 0")


SPOILS: dict[str, tuple[Callable[[JobContext], object], str]] = {
    "isolation": (
        lambda ctx: execute(ctx.connection, "set transaction isolation level repeatable read"),
        "must be READ COMMITTED",
    ),
    "read only": (lambda ctx: execute(ctx.connection, "set transaction read only"), "read only"),
    "ended": (end, "transaction"),
    "broken": (fail_and_go_on, "put what may fail into a savepoint"),
}


@pytest.mark.parametrize("spoil", list(SPOILS))
def test_a_transaction_that_cannot_be_completed_fails_the_run(begin, opens, workers, registry, db, spoil):
    """It is not for the handler to end, break or change."""
    service = opens(begin)
    act, words = SPOILS[spoil]

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> None:
        if spoil != "isolation":  # which is for the first statement to say
            affect(ctx, number)
        act(ctx)

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, job)
    assert ended.state is State.FAILED
    assert words in (ended.error_msg or "")
    assert fetch_all(db, EFFECTS) == []


def test_a_constraint_that_is_checked_at_the_end(begin, opens, workers, registry, db):
    """What the database will not commit fails the run in the driver's own words, and all is rolled back."""
    service = opens(begin)
    db.execute("alter table effect add constraint once unique (number) deferrable initially deferred")

    @registry.handler("t", atomic="own")
    def work(ctx: JobContext, number: int) -> None:
        affect(ctx, number)
        affect(ctx, number)

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    ended = wait_for_end(service, job)
    assert ended.state is State.FAILED
    assert "unique constraint" in (ended.error_msg or "")
    assert fetch_all(db, EFFECTS) == []
