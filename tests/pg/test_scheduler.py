"""The thread that sees to schedules: when it looks, what wakes it, and what it survives."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from jobqueue import JobContext, Registry, UnavailableError
from jobqueue.queue_service import QueueService
from jobqueue_pg.database import Database
from jobqueue_pg.queries.scheduling import LOOK_AT_SCHEDULES, TICK
from jobqueue_pg.store import PostgresStore
from tests.fixtures.shift import lines
from tests.fixtures.stores import Connection, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
PATIENCE = 30


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements about ticks that run in this process."""
    seen: list[str] = []
    execute = Database.execute

    def executing(self: Database, connection: Any, statement: LiteralString, *arguments: Any) -> Any:
        if statement in {LOOK_AT_SCHEDULES, TICK}:
            seen.append(statement)
        return execute(self, connection, statement, *arguments)

    monkeypatch.setattr(Database, "execute", executing)
    return seen


def number_of_jobs(service: QueueService, job_type: str) -> int:
    return len(service.list_jobs(type=job_type))


def latenesses(service: QueueService, job_type: str) -> list[timedelta]:
    jobs = service.list_jobs(type=job_type)
    return [job.created_at - job.start_at for job in jobs if job.created_at and job.start_at]


def state_of(service: QueueService) -> object:
    return service.health()["parts"]["scheduler"]["state"]


# --- what it does


def test_a_declared_schedule_runs(workers: Workers, registry: Registry) -> None:
    """When a pool starts, the schedule is in the database; its ticks are enqueued on time, and run."""
    ticks: list[datetime | None] = []

    @registry.scheduled("s", every=SECOND)
    def note(ctx: JobContext) -> None:
        ticks.append(ctx.job.start_at)

    service = workers.service()
    workers.start_on(service, registry)
    wait_until(lambda: len(ticks) >= 3, PATIENCE)
    schedule = service.get_schedule("s")
    assert (schedule.type, schedule.every, schedule.origin) == ("s", SECOND, "tests")
    ran = [tick for tick in ticks if tick]
    assert sorted(ran) == sorted(job.start_at for job in service.list_jobs(type="s") if job.start_at in ran)
    # By the database's clock. Once on time is enough here: the machine may be slow, but it does not cheat.
    wait_until(lambda: any(lateness < SECOND / 2 for lateness in latenesses(service, "s")), PATIENCE)


def test_what_is_added_at_run_time_wakes_it(workers: Workers, registry: Registry, looks: list[str]) -> None:
    """A pool that sleeps until a far tick, or for a minute, hears of a schedule that another process adds."""
    hearing, other = workers.service(), workers.service()
    workers.start_on(hearing, registry)
    wait_until(lambda: hearing.notifier.is_listening and looks, PATIENCE)
    before = len(looks)
    other.add_schedule("far", "t", every=HOUR)
    wait_until(lambda: len(looks) > before, PATIENCE)
    other.add_schedule("s", "t", every=SECOND)
    wait_until(lambda: number_of_jobs(other, "t") >= 2, PATIENCE)
    other.remove_schedule("s")
    other.change_schedule("far", every=SECOND)
    before = number_of_jobs(other, "t")
    wait_until(lambda: number_of_jobs(other, "t") > before, PATIENCE)


@pytest.mark.parametrize("poll_only", [False, True])
def test_who_has_no_schedules_hardly_looks(
    workers: Workers, registry: Registry, looks: list[str], *, poll_only: bool
) -> None:
    """Where there is none, a look at the start, and one when it can hear, are all for a minute."""
    registry.handler("t")(lambda number: number)
    service = workers.service(poll_only=poll_only, poll_interval=SECOND / 10)
    workers.start_on(service, registry)
    for number in range(3):
        service.wait_for_job(service.enqueue("t", number).id, PATIENCE)
    began_at = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) - began_at > 2 * SECOND)
    assert 1 <= len(looks) <= 2


@pytest.mark.parametrize("poll_only", [False, True])
def test_who_would_hear_of_the_first_schedule_does_not_look_each_minute(
    workers: Workers, registry: Registry, looks: list[str], monkeypatch: pytest.MonkeyPatch, *, poll_only: bool
) -> None:
    """Where there is none, a pool that only polls goes on to look after the longest pause, and no other."""
    monkeypatch.setattr("jobqueue.worker.scheduler._LONGEST_PAUSE", 0.2)
    service = workers.service(poll_only=poll_only)
    workers.start_on(service, registry)
    if not poll_only:
        wait_until(lambda: service.notifier.is_listening, PATIENCE)
    looks.clear()
    if poll_only:
        wait_until(lambda: len(looks) >= 4, PATIENCE)
    else:
        began_at = datetime.now(UTC)
        wait_until(lambda: datetime.now(UTC) - began_at > 1.5 * SECOND)
        assert len(looks) <= 2  # one that had begun, and one since it hears


def test_who_hears_nothing_looks_now_and_then(workers: Workers, registry: Registry, looks: list[str]) -> None:
    """Where there are schedules, a pool that only polls looks each poll interval whether they were changed."""
    service = workers.service(poll_only=True, poll_interval=SECOND / 5)
    service.add_schedule("s", "t", every=HOUR)
    workers.start_on(service, registry)
    wait_until(lambda: len(looks) >= 3, PATIENCE)
    service.change_schedule("s", every=SECOND)
    wait_until(lambda: number_of_jobs(service, "t") >= 1, PATIENCE)


# --- what it survives


@contextmanager
def renamed(connection: psycopg.Connection) -> Iterator[None]:
    """Have all statements about schedules refused within the block."""
    connection.execute("alter table worker.schedule rename to hidden")
    try:
        yield
    finally:
        connection.execute("alter table worker.hidden rename to schedule")


def test_it_goes_on_after_the_database_has_refused(
    migrated: str, connection: Connection, registry: Registry, caplog: Any
) -> None:
    """It says so once, shows in the health of the service, tries again, and says when it succeeds."""
    workers = Workers(migrated)
    try:
        service = workers.service()
        service.add_schedule("s", "t", every=SECOND)
        workers.start_on(service, registry)
        wait_until(lambda: number_of_jobs(service, "t") >= 1, PATIENCE)
        with renamed(connection):
            wait_until(lambda: state_of(service) == "down", PATIENCE)
        before = number_of_jobs(service, "t")
        wait_until(lambda: state_of(service) == "up", PATIENCE)
        wait_until(lambda: number_of_jobs(service, "t") > before, PATIENCE)
        wait_until(lambda: lines(caplog, "schedules tick again"))
        assert (len(lines(caplog, "schedules do not tick")), len(lines(caplog, "schedules tick again"))) == (1, 1)
    finally:
        workers.end()


def test_one_that_cannot_tick_is_told_of_once(
    db: Connection, workers: Workers, registry: Registry, caplog: Any
) -> None:
    """A time zone that this machine does not know keeps one schedule from ticking, and no other."""
    service = workers.service()
    service.add_schedule("bad", "bad", every=SECOND)
    db.execute("update worker.schedule set every = null, cron = '* * * * * *', tz = 'Mars/Olympus' where name = 'bad'")
    service.add_schedule("good", "good", every=SECOND)
    workers.start_on(service, registry)
    wait_until(lambda: number_of_jobs(service, "good") >= 3, PATIENCE)
    assert number_of_jobs(service, "bad") == 0
    assert len(lines(caplog, "schedule 'bad' does not tick")) == 1
    assert state_of(service) == "up"
    service.change_schedule("bad", tz="UTC")
    wait_until(lambda: number_of_jobs(service, "bad") >= 1, PATIENCE)
    assert len(wait_until(lambda: lines(caplog, "schedule 'bad' ticks again"))) == 1


def test_a_row_that_somebody_holds_keeps_no_other(queue: str, workers: Workers, registry: Registry) -> None:
    """A schedule that is locked by an open transaction is passed over in time; the others tick."""
    service = workers.service(dead_for=timedelta(seconds=3), heartbeat_interval=SECOND)  # a lock is waited for 0.4 s
    service.add_schedule("a", "held", every=SECOND)
    service.add_schedule("b", "free", every=SECOND)
    with closing(psycopg.connect(queue)) as holder:
        holder.execute("select from worker.schedule where name = 'a' for update")
        workers.start_on(service, registry)
        wait_until(lambda: number_of_jobs(service, "free") >= 2, PATIENCE)
        assert number_of_jobs(service, "held") == 0
    wait_until(lambda: number_of_jobs(service, "held") >= 1, PATIENCE)


def test_a_look_is_refused_where_nothing_can_be_written(queue: str) -> None:
    """A server that takes no writes is none to be in contact with, though a look that finds nothing writes nothing."""
    with (
        closing(PostgresStore(make_conninfo(queue, options="-c default_transaction_read_only=on"))) as store,
        pytest.raises(UnavailableError),
    ):
        store.schedules.look(1)


def test_ticks_write_no_index_of_schedules(db: Connection, service: QueueService) -> None:
    """A tick updates its row in place (HOT)."""
    service.add_schedule("s", "t", every=SECOND, start_at=datetime.now(UTC))
    with db.transaction():
        for _ in range(20):
            db.execute("update worker.schedule set next_tick_at = next_tick_at - interval '1 s', version = version + 1")
        counts = fetch_all(
            db,
            "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relid = 'worker.schedule'::regclass",
        )
    assert counts == [(20, 20)]
