"""Retention in PostgreSQL: rows that cannot go, rows that are locked, pools that do it, and the archive's columns."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest

import jobqueue_pg
from jobqueue import JobContext, JobNotFoundError, Registry, Retention, WorkerPool, WorkerSettings
from jobqueue.cleaner import Cleaner
from jobqueue.cleaning import CleanResult
from jobqueue.errors import BackendError
from jobqueue.queue_service import QueueService
from jobqueue.retention import KEEP_ALL
from jobqueue_pg.queries.cleaning import ARCHIVED_COLUMNS
from jobqueue_pg.store import PostgresStore
from tests.fixtures.go_schema import create_go_schema
from tests.fixtures.listeners import Everything
from tests.fixtures.parts import Parts
from tests.fixtures.stores import Connection, add, fetch_all, insert_job, make_bundle, make_job
from tests.fixtures.waiting import wait_until

DAY: Final = timedelta(days=1)
PATIENCE: Final = 20
AT_ONCE: Final = Retention(succeeded=timedelta(0))
NOT_ARCHIVED: Final = {
    "claim_id",
    "lease",
    "worker_alive_at",
    "unique_key",
    "unique_key_spent",
    "unique_for",
    "unique_until",
}


def stopped(db: Connection, number: int = 1) -> list[Any]:
    """Insert jobs that have stopped ten days ago, one after the other."""
    return [
        insert_job(db, created_at="2020-01-01", started_at="2020-01-01", stopped_at=f"2020-01-01 00:00:{second:02}")
        for second in range(number)
    ]


def left(db: Connection) -> set[Any]:
    return set(fetch_all(db, "select id from worker.job"))


@pytest.fixture
def refer(db: Connection) -> Any:
    """Have a row of an application's table refer to jobs."""
    db.execute("create table worker.mine (job_id uuid references worker.job (id))")
    yield lambda *ids: [db.execute("insert into worker.mine values (%s)", [each]) for each in ids]
    db.execute("drop table worker.mine")


@pytest.mark.parametrize("mode", ["delete", "archive"])
def test_what_cannot_go_holds_nothing_up(
    service: QueueService, db: Connection, refer: Callable[..., Any], mode: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that others refer to are left and logged once each; all others go, now and in the next rounds."""
    jobs = stopped(db, 50)
    refer(jobs[3], jobs[40])
    cleaner = Cleaner(service.store.cleaning, Retention(mode=mode))
    assert cleaner.clean_all(None) == CleanResult(jobs=48)
    assert left(db) == {jobs[3], jobs[40]}
    assert len(fetch_all(db, "select id from worker.job_archive")) == (48 if mode == "archive" else 0)
    assert len([record for record in caplog.records if "cannot be" in record.getMessage()]) == 2
    more = stopped(db, 2)
    caplog.clear()
    assert service.clean(Retention(mode=mode)) == CleanResult(jobs=2)
    assert not left(db) & set(more)


def test_a_bundle_that_cannot_go_holds_nothing_up(
    service: QueueService, db: Connection, refer: Callable[..., Any]
) -> None:
    """A bundle with a member that others refer to stays whole, and the next one goes."""
    bundles = [service.add_bundle(make_bundle(2)) for _ in range(3)]
    db.execute("update worker.job set started_at = now(), stopped_at = now()")
    db.execute("update worker.job_bundle set num_jobs_stopped = 2")
    refer(bundles[1].jobs[0].id)
    assert service.clean(AT_ONCE) == CleanResult(jobs=4, bundles=2)
    assert left(db) == {job.id for job in bundles[1].jobs}


def test_what_is_locked_is_left(service: QueueService, db: Connection, other_db: Connection) -> None:
    """Whoever holds a row is not waited for; a bundle of which one member is held stays whole."""
    bundle = service.add_bundle(make_bundle(2))
    single, locked = stopped(db, 2)
    db.execute("update worker.job set started_at = now(), stopped_at = now() where bundle_id is not null")
    db.execute("update worker.job_bundle set num_jobs_stopped = 2")
    with other_db.transaction(), closing(service.store.for_workers(lock_timeout=timedelta(seconds=1))) as workers:
        other_db.execute("select from worker.job where id = any(%s) for update", [[locked, bundle.jobs[1].id]])
        assert Cleaner(workers.cleaning, AT_ONCE).clean_all(None) == CleanResult(jobs=1)
        assert left(db) == {locked, *(job.id for job in bundle.jobs)}
    assert service.clean(AT_ONCE) == CleanResult(jobs=3, bundles=1)
    assert single not in left(db)


def test_jobs_that_go_jobqueue_is_about_to_retry_stay(service: QueueService, db: Connection) -> None:
    """A row that shows an error, and has retries left, has not come to its end."""
    job = insert_job(
        db, created_at="2020-01-01", started_at="2020-01-01", stopped_at="2020-01-01", error_msg="e", max_retry_count=1
    )
    assert service.clean(Retention()) == CleanResult()
    assert left(db) == {job}


def test_moments_that_python_cannot_hold(service: QueueService, db: Connection) -> None:
    """Rows of any age that PostgreSQL knows are passed by, and removed."""
    for moment in ("-infinity", "4000-01-01 BC", "infinity"):
        insert_job(db, created_at=moment, started_at="2020-01-01", stopped_at="2020-01-01")
    assert service.clean(Retention()) == CleanResult(jobs=2)


def test_the_archive_has_the_columns_of_jobs(db: Connection) -> None:
    """Each column of job is in the archive and copied there, but for those of a claim or a unique key."""
    columns = "select column_name, data_type from information_schema.columns where table_schema = 'worker'"
    jobs = dict(fetch_all(db, f"{columns} and table_name = 'job'"))  # type: ignore[arg-type]
    archive = dict(fetch_all(db, f"{columns} and table_name = 'job_archive'"))  # type: ignore[arg-type]
    assert archive == {name: kind for name, kind in jobs.items() if name not in NOT_ARCHIVED} | {
        "archived_at": "timestamp with time zone"
    }
    assert {name.strip(' \n"') for name in ARCHIVED_COLUMNS.split(",")} == jobs.keys() - NOT_ARCHIVED


# --- pools


def start(queue: str, registry: Registry, **options: Any) -> tuple[QueueService, WorkerPool]:
    settings = WorkerSettings(heartbeat_interval=timedelta(seconds=0.3), dead_for=timedelta(seconds=1))
    service = jobqueue_pg.connect(queue, origin="tests", settings=settings, **options)
    return service, WorkerPool(service, registry, threads=2)


@pytest.fixture
def no_first_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a process look for what is old enough in its first round."""
    monkeypatch.setattr("jobqueue.cleaner._SECONDS_BETWEEN_LOOKS", 0.0)


@pytest.mark.usefixtures("no_first_rest")
def test_pools_clean(queue: str, db: Connection, registry: Registry) -> None:
    """A pool that has no handler for them removes what the retention of its service does not keep."""
    old = set(stopped(db, 3))
    young = insert_job(db, created_at="now", started_at="now", stopped_at="now")
    registry.register_func_for_job_type("other", lambda n: n)
    service, pool = start(queue, registry)
    with closing(service), pool:
        wait_until(lambda: not left(db) & old, PATIENCE)
        assert left(db) == {young}


@pytest.mark.usefixtures("no_first_rest")
def test_what_is_kept_for_ever_costs_nothing(queue: str, db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is to be removed, no round looks for it."""
    stopped(db, 3)
    with closing(PostgresStore(queue, retention=KEEP_ALL)) as store, closing(store.for_workers()) as worker_store:
        looks: list[object] = []
        for name in ("find_jobs", "find_bundles"):
            monkeypatch.setattr(worker_store.cleaning, name, lambda *_, **__: looks.append(1))
        maintenance = Parts(worker_store).maintenance
        for _ in range(3):
            maintenance.tick()
    assert not looks
    assert len(left(db)) == 3


def test_a_job_that_is_not_kept(queue: str, db: Connection, registry: Registry) -> None:
    """It runs, listeners hear of its end, and who waits for it is told that it is not there; others are kept."""
    registry.register_func_for_job_type("gone", lambda n: n)
    registry.register_func_for_job_type("kept", lambda n: n)
    retention = Retention(by_type={"gone": {"succeeded": timedelta(0)}})
    service, pool = start(queue, registry, retention=retention)
    with closing(service):
        heard = Everything()
        service.add_listener(heard)
        gone, kept = service.enqueue("gone", 1), service.enqueue("kept", 1)
        with pool:
            assert service.wait_for_job(kept.id, PATIENCE).succeeded
            with pytest.raises(JobNotFoundError):
                service.wait_for_job(gone.id, PATIENCE)
            wait_until(lambda: {call[1] for call in heard.calls} == {gone.id, kept.id}, PATIENCE)
        assert left(db) == {kept.id}


@pytest.mark.parametrize("mode", ["delete", "archive"])
def test_an_atomic_handler_takes_its_job_along(queue: str, db: Connection, registry: Registry, mode: Any) -> None:
    """What an atomic handler has written and the removal of its job are one transaction."""
    db.execute("create table if not exists worker.effect (n int)")

    @registry.handler("t", atomic=True)
    def work(context: JobContext, n: int) -> int:
        context.connection.execute("insert into worker.effect values (%s)", [n])
        return n

    service, pool = start(queue, registry, retention=Retention(succeeded=timedelta(0), mode=mode))
    try:
        with closing(service):
            job = service.enqueue("t", 5)
            with pool:
                wait_until(lambda: not left(db), PATIENCE)
            assert fetch_all(db, "select n from worker.effect") == [5]
            assert [archived.id for archived in service.list_jobs(archived=True)] == (
                [job.id] if mode == "archive" else []
            )
    finally:
        db.execute("drop table worker.effect")


def test_claims_by_hand_go_by_it_too(queue: str, db: Connection) -> None:
    """What is claimed by hand, and finished, is removed like what a pool runs."""
    with closing(jobqueue_pg.connect(queue, retention=AT_ONCE, origin="o")) as service:
        service.enqueue("t", 1)
        [by_hand] = service.claim(["t"])
        by_hand.finish("done")
        assert not left(db)


# --- schemas


@pytest.mark.parametrize("adopted", [True, False])
def test_what_is_usual(database: str, adopted: bool) -> None:
    """In tables that were go-jobqueue's nothing is removed unless somebody says so; in others what is usual."""
    if adopted:
        create_go_schema(database, "0.7")
    jobqueue_pg.migrate(database, adopt=True)
    with closing(jobqueue_pg.connect(database, poll_only=True)) as service:
        assert service.store.retention == (KEEP_ALL if adopted else Retention())
    with closing(jobqueue_pg.connect(database, poll_only=True, retention=AT_ONCE)) as service:
        assert service.store.retention == AT_ONCE


def test_who_may_not_delete(migrated: str, connection: psycopg.Connection[Any]) -> None:
    """A user without the right is refused at once, not row by row; the error names the way out."""
    connection.execute("drop role if exists jobqueue_no_delete")
    connection.execute("create role jobqueue_no_delete")
    try:
        connection.execute("grant usage on schema worker to jobqueue_no_delete")
        connection.execute("grant select, insert, update on all tables in schema worker to jobqueue_no_delete")
        stopped(connection, 5)
        with closing(PostgresStore(f"{migrated} options='-c role=jobqueue_no_delete'")) as store:
            cleaner = Cleaner(store.cleaning, Retention(), keeps_behind=True)
            with pytest.raises(BackendError, match="may not do this"):
                cleaner.go_on(PATIENCE)
            assert not cleaner.is_due
    finally:
        connection.execute("drop owned by jobqueue_no_delete")
        connection.execute("drop role jobqueue_no_delete")


def test_bad_retention(queue: str) -> None:
    """What is no Retention is refused before anything is opened."""
    with pytest.raises(TypeError, match="retention must be Retention"):
        jobqueue_pg.connect(queue, retention=timedelta(days=1))  # type: ignore[arg-type]


def test_lists_survive_what_is_removed_meanwhile(service: QueueService, db: Connection) -> None:
    """A page follows a job that is gone by now."""
    jobs = add(service.store, *[make_job() for _ in range(5)])
    page = service.list_jobs(limit=2)
    db.execute("update worker.job set started_at = now(), stopped_at = now() where id = %s", [page[-1].id])
    assert service.clean(AT_ONCE) == CleanResult(jobs=1)
    rest = service.list_jobs(limit=10, after=page[-1])
    assert {job.id for job in [*page, *rest]} == {job.id for job in jobs}
