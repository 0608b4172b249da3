"""What docs/from-go-jobqueue.md says beside the subjects of other tests, on PostgreSQL."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import jobqueue
import jobqueue_pg
from jobqueue import Job, JobContext, Registry, State, WorkerPool, context
from jobqueue.events import Connected, Event, JobAvailable
from jobqueue.outcomes import Outcome, RunError
from jobqueue.store import WorkerStore
from jobqueue_pg.database import Database
from jobqueue_pg.queries.claiming import CLAIM_JOBS, CLAIM_JOBS_OF_TYPES
from jobqueue_pg.queries.trips import MAKE_TRIP, MAKE_TRIP_FOR_TYPES
from jobqueue_pg.store import PostgresStore
from tests.fixtures.listening import Ear
from tests.fixtures.stores import Connection, claim_one, events, fetch_all, insert_job, make_bundle, make_job, row_of
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

PATIENCE = 10
A_WHILE = 0.3
"""Longer than it takes to be told of a job, and to look."""
BEAT = timedelta(seconds=0.1)
TYPE = "test_as_in_go"

INDEXES = {
    "job_pkey": "(id)",
    "job_claim_idx": (
        '(type COLLATE "C", priority DESC, COALESCE(start_at, created_at), id) WHERE (started_at IS NULL)'
    ),
    "job_bundle_id_idx": "(bundle_id) WHERE (bundle_id IS NOT NULL)",
    "job_completes_bundle_id_idx": "(completes_bundle_id) WHERE (completes_bundle_id IS NOT NULL)",
    "job_created_at_idx": "(created_at, id)",
    "job_started_at_idx": "(started_at) WHERE (started_at IS NOT NULL)",
    "job_error_idx": "(id) WHERE (error_msg IS NOT NULL)",
    "job_unique_key_idx": '(type COLLATE "C", unique_key COLLATE "C") WHERE (unique_key IS NOT NULL)',
    "job_bundle_pkey": "(id)",
    "job_bundle_type_idx": "(type)",
    "job_bundle_delete_idx": "(id) WHERE delete_when_succeeded",
}


class Stage:
    """A handler that plays until it is let go."""

    def __init__(self) -> None:
        self.is_on = threading.Event()
        self.may_end = threading.Event()

    def play(self, _: int) -> None:
        self.is_on.set()
        self.may_end.wait(PATIENCE)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """What the handlers of this test play on; it is cleared at the end of the test."""
    stage = Stage()
    yield stage
    stage.may_end.set()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements by which workers look for jobs, as they are made."""
    made: list[str] = []
    execute = Database.execute

    def noting(self: Database, connection: Any, statement: Any, *rest: Any) -> Any:
        if statement in {CLAIM_JOBS, CLAIM_JOBS_OF_TYPES, MAKE_TRIP, MAKE_TRIP_FOR_TYPES}:
            made.append(statement)
        return execute(self, connection, statement, *rest)

    monkeypatch.setattr(Database, "execute", noting)
    return made


def test_indexes(db: Connection) -> None:
    """Beside those of the ids there are nine indexes, none of them on a moment that finishing or beating changes."""
    found = fetch_all(
        db,
        """
        select indexname::text, indexdef from pg_indexes
        where schemaname = 'worker' and tablename in ('job', 'job_bundle')
        """,
    )
    assert {name: definition.partition(" USING btree ")[2] for name, definition in found} == INDEXES


def test_what_is_due_is_judged_by_the_start_of_the_transaction(db: Connection, ear: Ear) -> None:
    """A job that became due since its transaction began is not announced; one that was due then is."""
    with db.transaction():
        began, now = db.execute("select now(), clock_timestamp()").fetchone() or (None, None)
        insert_job(db, start_at=now)
        due = insert_job(db, start_at=began)
    assert events(ear) == [("job_available", due)]


@pytest.mark.parametrize(
    "outcome_of",
    [
        lambda job: Outcome.failed(job, RunError(message="no")),
        lambda job: Outcome.retry(job, RunError(message="no"), delay=timedelta(0)),
    ],
    ids=["failed", "retry"],
)
def test_an_old_result_does_not_outlive_a_failure(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, outcome_of: Callable[[Job], Outcome]
) -> None:
    """A result that another program has left behind is not there any more beside an error, or before a retry."""
    store.add_job(make_job(max_retry_count=1), delay=None)
    job = claim_one(worker_store)
    db.execute("update worker.job set result = '1'")
    assert worker_store.save_outcomes([outcome_of(job)]) == {job.id}
    assert row_of(db, job.id)["result"] is None


@pytest.mark.parametrize("joins", [False, True])
def test_a_bundle_is_read_as_of_one_moment(
    queue: str, store: PostgresStore, db: Connection, monkeypatch: pytest.MonkeyPatch, *, joins: bool
) -> None:
    """What happens to members while a bundle is read is either seen in both, or in neither, in any transaction."""
    bundle = make_bundle(2)
    store.add_bundle(bundle)
    execute = Database.execute

    def meddling(self: Database, connection: psycopg.Connection[Any], statement: Any, parameters: Any) -> Any:
        found = execute(self, connection, statement, parameters)
        db.execute("delete from worker.job where id = %s", [bundle.jobs[0].id])
        return found

    monkeypatch.setattr(Database, "execute", meddling)
    with closing(psycopg.connect(queue)) as caller, store.within(caller) if joins else nullcontext():
        read = store.get_job_bundle(bundle.id)
    assert (read.num_jobs, read.jobs) == (2, bundle.jobs)
    assert store.get_jobs([bundle.jobs[0].id]) == []


def test_init_leaves_running_jobs_alone(
    queue: str, store: PostgresStore, worker_store: WorkerStore, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that starts takes nothing from anybody, however long a job's worker has been silent."""
    monkeypatch.setattr(context, "_default", None)
    store.add_job(make_job(), delay=None)
    claimed = claim_one(worker_store)
    db.execute("update worker.job set started_at = '2001-01-01', worker_alive_at = '2001-01-01'")
    before = row_of(db, claimed.id)
    jobqueue_pg.init_job_queue(queue)
    try:
        assert row_of(db, claimed.id) == before
    finally:
        jobqueue.close()


def test_a_retry_schedule_runs_under_the_heartbeat(workers: Workers, registry: Registry) -> None:
    """While a schedule makes up its mind the job is still running, in its row without an error, and beaten for."""
    service = workers.service(heartbeat_interval=BEAT)
    seen: list[tuple[Job, Job]] = []

    def work(_: int) -> None:
        raise ValueError("no")

    def schedule(ctx: JobContext, job: Job) -> datetime:
        asked_at = service.get_job(job.id).worker_alive_at
        assert asked_at is not None
        wait_until(lambda: (service.get_job(job.id).worker_alive_at or asked_at) > asked_at)
        seen.append((job, service.get_job(job.id)))
        return datetime.now(UTC)

    registry.register_func_for_job_type("t", work)
    registry.register_schedule_retry("t", schedule)
    job = service.enqueue("t", 1, max_retry_count=1)
    workers.start_on(service, registry, 1)
    wait_for_end(service, job)
    [(given, row)] = seen
    assert given.error_msg == "no"
    assert (row.state, row.error_msg, row.current_retry_count) == (State.RUNNING, None, 0)


def test_heartbeats_go_on_while_a_pool_finishes(workers: Workers, registry: Registry, stage: Stage) -> None:
    """A running job shows that it is alive as long as its pool waits for it."""
    service = workers.service(heartbeat_interval=BEAT)
    registry.register_func_for_job_type("t", stage.play)
    job = service.enqueue("t", 1)
    pool = workers.start_on(service, registry, 1)
    assert stage.is_on.wait(PATIENCE)
    finishing = threading.Thread(target=pool.finish)
    finishing.start()
    wait_until(lambda: not pool.is_running)
    for _ in range(3):
        before = service.get_job(job.id).worker_alive_at
        wait_until(lambda before=before: service.get_job(job.id).worker_alive_at > before)  # type: ignore[misc]
    stage.may_end.set()
    finishing.join(PATIENCE)
    assert service.get_job(job.id).state is State.SUCCEEDED


def test_finishing_waits_for_what_was_stopped(workers: Workers, stage: Stage) -> None:
    """Finishing the threads of the process, when they were stopped before, returns when their jobs have ended."""
    jobqueue.register_func_for_job_type(TYPE, stage.play)
    try:
        with jobqueue.use_service(workers.service()) as service:
            job = jobqueue.enqueue(TYPE, 1)
            jobqueue.start_threads(1)
            assert stage.is_on.wait(PATIENCE)
            jobqueue.stop_threads()
            finishing = threading.Thread(target=jobqueue.finish_threads)
            finishing.start()
            finishing.join(A_WHILE)
            assert finishing.is_alive()
            stage.may_end.set()
            finishing.join(PATIENCE)
            assert service.get_job(job.id).state is State.SUCCEEDED
    finally:
        stage.may_end.set()
        jobqueue.finish_threads(PATIENCE)
        jobqueue.unregister(TYPE)


def test_without_handlers_nobody_looks(workers: Workers, registry: Registry, looks: list[str]) -> None:
    """Workers that can run nothing do not ask the database for jobs, although they poll."""
    workers.start(registry, poll_interval=timedelta(seconds=0.05))
    assert not threading.Event().wait(A_WHILE)
    assert looks == []


def test_nobody_looks_for_a_job_that_he_cannot_run(
    workers: Workers, registry: Registry, db: Connection, looks: list[str]
) -> None:
    """A notification of a type without a handler here wakes no worker; one of a type with a handler does."""
    registry.register_func_for_job_type("t", lambda _: None)
    service = workers.service()
    pool = workers.start_on(service, registry, 2)
    heard = listen_behind_the_workers(service)
    wait_for_end(service, insert_job(db, type="t"))
    wait_until(lambda: all_wait(pool))
    looks.clear()
    insert_job(db, type="other")
    assert heard["other"].wait(PATIENCE)
    assert not threading.Event().wait(A_WHILE)
    assert looks == []
    wait_for_end(service, insert_job(db, type="t"))
    assert looks


def all_wait(pool: WorkerPool) -> bool:
    """Say whether both threads of *pool* have looked, found nothing, and wait."""
    assert pool._crew is not None
    dispatcher = pool._crew._dispatcher
    (desk,) = dispatcher.desks
    return desk.idle == len(desk.alarms) == 2 and not dispatcher._trips


def test_nonsense_is_logged(workers: Workers, db: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """A notification that cannot be read leaves a line in the log that names its channel."""
    workers.service().add_job_stopped_listener(lambda job, will_retry: None)
    db.execute("select pg_notify('job_stopped', 'nonsense')")
    wait_until(lambda: "a notification on job_stopped makes no sense" in caplog.text)


def listen_behind_the_workers(service: jobqueue.Service) -> dict[str, threading.Event]:
    """Return what tells that workers, who subscribed before, have been told of a job of type ``other``."""
    heard = {"other": threading.Event(), "connected": threading.Event()}

    def hear(event: Event) -> None:
        if isinstance(event, Connected):
            heard["connected"].set()
        elif isinstance(event, JobAvailable) and event.type == "other":
            heard["other"].set()

    service.notifier.subscribe(hear, JobAvailable)
    assert heard["connected"].wait(PATIENCE)
    return heard
