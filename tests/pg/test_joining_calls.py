"""With `joins`, every call of the application becomes part of the transaction that it holds, if it holds one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import JobContext, JobNotFoundError, JobQueueError, LockTimeoutError, Registry, State, UnavailableError
from jobqueue.queue_service import QueueService
from tests.fixtures.joining import CALLERS, Caller
from tests.fixtures.stores import Connection, fetch_all, insert_job, make_bundle, make_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers

HOUR = timedelta(hours=1)


class Holder:
    """What the application holds at the moment."""

    def __init__(self) -> None:
        self.connection: object = None
        self.times_asked = 0

    def __call__(self) -> object:
        self.times_asked += 1
        return self.connection


@pytest.fixture
def holder() -> Holder:
    """What the service is to join: nothing, until a test says so."""
    return Holder()


@pytest.fixture
def joining(queue: str, holder: Holder) -> Iterator[QueueService]:
    """A service that joins."""
    with closing(jobqueue_pg.connect(queue, origin="tests", joins=holder)) as service:
        yield service


@pytest.fixture(params=["psycopg", "psycopg2", "session on psycopg2", "Django"])
def caller(request: pytest.FixtureRequest, queue: str, holder: Holder) -> Iterator[Caller]:
    """The application's transaction, which the service joins."""
    with CALLERS[request.param](queue) as caller:
        holder.connection = caller.given
        yield caller
        holder.connection = None


@pytest.fixture
def plain(queue: str, holder: Holder) -> Iterator[Connection]:
    """The application's transaction on a connection of psycopg, which the service joins."""
    with closing(psycopg.connect(queue)) as connection:
        holder.connection = connection
        yield connection
        holder.connection = None


def rows(connection: Connection) -> list[Any]:
    """Return all that there is, as somebody else sees it."""
    return [
        fetch_all(connection, statement)
        for statement in (
            "select j::text from worker.job j order by id",
            "select b::text from worker.job_bundle b order by id",
            "select p::text from worker.paused_type p order by type",
            "select s::text from worker.schedule s order by name",
        )
    ]


def test_whatever_is_done_is_part_of_it(joining: QueueService, caller: Caller, db: Connection) -> None:
    """Every act is seen by the next call of the same transaction, by nobody else, and is gone after a rollback."""
    failed = insert_job(db, error_msg="e", stopped_at="now", unique_key_spent="k", unique_for="until_succeeded")
    others = [insert_job(db, type=name) for name in ("cancelled", "moved", "deleted", "left")]
    before = rows(db)

    job = joining.enqueue("new", 1)
    bundle = joining.add_bundle(make_bundle(3))
    jobs = joining.add_jobs([make_job(type="many") for _ in range(120)])
    joining.replay_job(failed)
    joining.cancel_job(others[0])
    joining.reschedule_job(others[1], datetime(2100, 1, 1, tzinfo=UTC))
    joining.delete_job(others[2])
    joining.reset_job(others[3])
    joining.pause("new", reason="r")
    joining.add_schedule("s", "t", 1, every=HOUR)
    joining.pause_schedule("s")
    assert joining.run_schedule_now("s").type == "t"

    assert rows(db) == before
    assert joining.get_job(job.id).payload == 1
    assert joining.get_job(job.id).created_at.utcoffset() == timedelta(0)
    assert joining.get_job(failed).state is State.AVAILABLE
    assert joining.get_job(failed).unique_key == "k"
    assert joining.get_job(others[0]).state is State.CANCELLED
    assert joining.get_job(others[1]).state is State.SCHEDULED
    assert [each.payload for each in joining.get_job_bundle(bundle.id).jobs] == [0, 1, 2]
    assert [each.name for each in joining.get_schedules() if each.paused_at] == ["s"]
    assert [each.type for each in joining.paused_types()] == ["new"]
    assert joining.get_status().num_jobs == joining.count_jobs().num_jobs == 1 + 3 + len(jobs) + 4 + 1
    assert len(joining.list_jobs(type="many", limit=200, newer_than=HOUR)) == len(jobs)
    assert joining.delete_jobs(type="many", batch_size=50) == len(jobs)
    assert joining.resume("new")
    assert joining.remove_schedule("s")
    joining.delete_all_jobs_and_bundles()
    assert joining.get_status().is_zero

    caller.rollback()
    assert rows(db) == before
    joining.enqueue("t", 2)
    joining.cancel_job(others[0])
    caller.commit()
    assert joining.get_job(others[0]).state is State.CANCELLED
    assert fetch_all(db, "select count(*) from worker.job") == [6]


def test_where_nothing_is_held_calls_have_transactions_of_their_own(
    joining: QueueService, holder: Holder, db: Connection
) -> None:
    """None stands for the service's own connections; an error of the function that is asked is raised as it is."""
    job = joining.enqueue("t", 1)
    assert fetch_all(db, "select id from worker.job") == [job.id]
    assert holder.times_asked > 0
    with pytest.raises(JobNotFoundError):
        joining.get_job(make_job().id)


def test_what_is_given_goes_before(joining: QueueService, plain: Connection, db: Connection) -> None:
    """`connection=` is joined, whatever else the application holds."""
    joining.enqueue("t", 1, connection=db)
    plain.rollback()
    assert fetch_all(db, "select count(*) from worker.job") == [1]


def test_what_cannot_be_joined_is_refused(joining: QueueService, holder: Holder) -> None:
    """A function that returns something else is told so by every call."""
    holder.connection = object()
    for call in (lambda: joining.enqueue("t", 1), joining.get_status, lambda: joining.cancel_job(make_job().id)):
        with pytest.raises(TypeError, match=r"builtins\.object"):
            call()


@pytest.mark.parametrize("joins", ["default", 1, [lambda: None]])
def test_joins_must_be_a_function(queue: str, joins: Any) -> None:
    """Anything else is refused before there is a service."""
    with pytest.raises(TypeError, match="joins"):
        jobqueue_pg.connect(queue, joins=joins)


def test_who_waits_does_not_join(joining: QueueService, plain: Connection, db: Connection) -> None:
    """A transaction with an old snapshot would never see the end of a job; who waits for one sees it all the same."""
    plain.execute("set transaction isolation level repeatable read")
    job = insert_job(db)
    assert joining.get_job(job).state is State.AVAILABLE
    db.execute("update worker.job set stopped_at = now(), started_at = now() where id = %s", [job])
    assert joining.wait_for_job(job, 10).state is State.SUCCEEDED
    assert joining.get_job(job).state is State.AVAILABLE
    own = joining.enqueue("t", 1)
    with pytest.raises(JobNotFoundError, match="not committed"):
        joining.wait_for_job(own.id, 10)


def test_neither_workers_nor_listeners_join(queue: str, workers: Workers, registry: Registry) -> None:
    """Only the application's own calls ask what they are part of: no thread of the queue's own does."""
    asking: set[str] = set()
    stopped = threading.Event()

    def joins() -> None:
        asking.add(threading.current_thread().name)

    registry.handler("t")(lambda number: number)
    with closing(jobqueue_pg.connect(queue, joins=joins)) as service:
        service.add_job_stopped_listener(lambda _job, _will_retry: stopped.set())
        workers.start_on(service, registry, 1)
        job = service.enqueue("t", 1)
        assert service.wait_for_job(job.id, 10).state is State.SUCCEEDED
        assert stopped.wait(10)
        assert service.claim("other") == []
        workers.end()
    assert asking == {threading.current_thread().name}


def test_progress_is_seen_at_once(
    queue: str, workers: Workers, registry: Registry, db: Connection, other_db: Connection
) -> None:
    """What a handler says of its progress does not wait for the transaction that its calls join."""
    told, leave = threading.Event(), threading.Event()
    service = jobqueue_pg.connect(queue, joins=lambda: other_db)

    @registry.handler("t")
    def work(ctx: JobContext, number: int) -> None:
        with other_db.transaction(force_rollback=True):
            service.enqueue("other", 1)
            ctx.set_progress(0.5)
            told.set()
            assert leave.wait(10)

    with closing(service):
        job = insert_job(db)
        workers.start_on(service, registry, 1)
        assert told.wait(10)
        progress = fetch_all(db, "select progress ->> 'fraction' from worker.job where id = %s", job)
        leave.set()
        wait_until(lambda: fetch_all(db, "select 1 from worker.job where id = %s and stopped_at is not null", job))
        workers.end()
    assert progress == ["0.5"]
    assert fetch_all(db, "select count(*) from worker.job where type = 'other'") == [0]


def test_no_setting_is_left_changed(joining: QueueService, caller: Caller, db: Connection) -> None:
    """A reset that takes a key back waits less long for it; the caller's next statement waits as it did before."""
    job = insert_job(db, error_msg="e", stopped_at="now", unique_key_spent="k", unique_for="until_succeeded")
    caller.execute("set local lock_timeout to '12345ms'")
    joining.reset_job(job)
    assert joining.get_job(job).unique_key == "k"
    caller.execute("select 1 / (current_setting('lock_timeout') = '12345ms')::int")
    caller.rollback()


def test_what_takes_several_statements_leaves_the_transaction_usable(
    joining: QueueService, caller: Caller, db: Connection, other_db: Connection
) -> None:
    """When one of them fails, none of them counts, and the caller goes on."""
    job = insert_job(db, error_msg="e", stopped_at="now")
    kept = joining.enqueue("t", 1)
    caller.execute("set local lock_timeout to '20ms'")
    with other_db.transaction():
        other_db.execute("select from worker.job where id = %s for update", [job])
        for act in (lambda: joining.reset_job(job), lambda: joining.replay_jobs([job])):
            with pytest.raises(LockTimeoutError):
                act()
    joining.reset_job(job)
    caller.commit()
    assert joining.get_job(job).state is State.AVAILABLE
    assert joining.get_job(kept.id).payload == 1


def test_nothing_is_tried_again(joining: QueueService, plain: Connection, holder: Holder, db: Connection) -> None:
    """What the server rolls back is the caller's transaction: its own doing again is the caller's to begin."""
    job = insert_job(db)
    plain.execute("set transaction isolation level repeatable read")
    plain.execute("select 1")
    db.execute("update worker.job set priority = 1 where id = %s", [job])
    holder.times_asked = 0
    with pytest.raises(UnavailableError, match="serialize"):
        joining.cancel_job(job)
    assert holder.times_asked == 1
    assert plain.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    plain.rollback()
    joining.cancel_job(job)
    plain.commit()
    assert joining.get_job(job).state is State.CANCELLED


@pytest.mark.parametrize("kind", ["psycopg", "psycopg2", "SQLAlchemy on psycopg2", "Django"])
def test_a_connection_that_is_lost(
    joining: QueueService, queue: str, holder: Holder, db: Connection, kind: str
) -> None:
    """It is an UnavailableError, whoever's connection it is, and nothing stays."""
    named = make_conninfo(queue, application_name="to be cut")
    was_zero: list[bool] = []
    with suppress(Exception), CALLERS[kind](named) as caller:  # it may say at its end that it is lost
        caller.execute("set application_name to 'to be cut'")
        holder.connection = caller.given
        joining.enqueue("t", 1)
        db.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'to be cut'")
        for call in (lambda: joining.enqueue("t", 1), joining.get_status):
            with pytest.raises(UnavailableError):
                call()
        holder.connection = None
        was_zero.append(joining.get_status().is_zero)
        caller.rollback()
    holder.connection = None
    assert was_zero == [True]
    assert fetch_all(db, "select count(*) from worker.job") == [0]


def test_each_thread_joins_its_own(queue: str, db: Connection) -> None:
    """The function is asked in the thread that calls: what another holds is not joined."""
    local = threading.local()
    failures: list[BaseException] = []
    both = threading.Barrier(2, timeout=10)

    def work(end: Callable[[Connection], object]) -> None:
        try:
            with closing(psycopg.connect(queue)) as connection:
                local.connection = connection
                service.enqueue("t", 1)
                both.wait()
                assert service.get_status().num_jobs == 1
                both.wait()
                end(connection)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    with closing(jobqueue_pg.connect(queue, joins=lambda: getattr(local, "connection", None))) as service:
        ends: list[Callable[[Connection], object]] = [lambda one: one.commit(), lambda one: one.rollback()]
        threads = [threading.Thread(target=work, args=[end]) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert failures == []
        assert service.get_status().num_jobs == 1
    with pytest.raises(JobQueueError):
        service.get_status()
