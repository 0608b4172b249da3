"""Unique keys in PostgreSQL: in transactions of callers, beside go-jobqueue, and what they cost."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.conninfo import make_conninfo
from psycopg.errors import SerializationFailure

import jobqueue_pg
from jobqueue import DuplicateJobError, Job, LockTimeoutError
from jobqueue.outcomes import Claimant, Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.blocking import blocked
from tests.fixtures.go_client import GoClient
from tests.fixtures.stores import CLAIMANT, Connection, fetch_all, make_bundle, make_job, row_of
from tests.fixtures.waiting import wait_until

SHORT = timedelta(milliseconds=100)
HOUR = timedelta(hours=1)
ERROR = RunError(message="broken")


@pytest.fixture
def caller(queue: str) -> Iterator[Connection]:
    """The application's own connection, which begins a transaction with its first statement."""
    with closing(psycopg.connect(queue)) as connection:
        yield connection


@pytest.fixture
def impatient(queue: str) -> Iterator[QueueService]:
    """A service that does not wait for others for long; if it did, that would be another error."""
    bounded = make_conninfo(queue, options="-c statement_timeout=8s")
    with closing(jobqueue_pg.connect(bounded, origin="tests", unique_lock_timeout=SHORT)) as service:
        yield service


# --- in the transaction of a caller


def test_a_conflict_leaves_the_callers_transaction_usable(service: QueueService, caller: Connection) -> None:
    """Whatever becomes of the duplicate, what the caller did before and does afterwards is committed."""
    job = service.enqueue("t", 1, unique_key="k")
    first = service.enqueue("t", "first", connection=caller)
    assert service.enqueue("t", 2, unique_key="k", connection=caller) == job
    with pytest.raises(DuplicateJobError):
        service.enqueue("t", 2, unique_key="k", on_conflict="raise", connection=caller)
    with pytest.raises(DuplicateJobError):
        service.add_jobs([Job.new("t", 1), Job.new("t", 1, unique_key="k")], on_conflict="raise", connection=caller)
    last = service.enqueue("t", "last", unique_key="another", connection=caller)
    caller.commit()
    assert {found.id for found in service.list_jobs()} == {job.id, first.id, last.id}


def test_what_is_rolled_back_holds_nothing(service: QueueService, caller: Connection) -> None:
    """A key is free once the transaction that had taken it is rolled back; within that, it is held."""
    mine = service.enqueue("t", 1, unique_key="k", connection=caller)
    assert service.enqueue("t", 2, unique_key="k", connection=caller) == mine
    caller.rollback()
    other = service.enqueue("t", 2, unique_key="k")
    assert (other.is_duplicate, other != mine) == (False, True)


def test_on_an_autocommit_connection(service: QueueService, db: Connection) -> None:
    """Where no transaction is open there is none afterwards, and what was added is there."""
    job = service.enqueue("t", 1, unique_key="k", connection=db)
    assert service.enqueue("t", 2, unique_key="k", connection=db).is_duplicate
    assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert service.get_job(job.id).unique_key == "k"


@pytest.mark.parametrize("unique_key", [None, "k"])
def test_the_callers_transaction_begins_with_the_first_job(
    service: QueueService, caller: Connection, unique_key: str | None
) -> None:
    """What takes several statements is a part of the caller's transaction, too, when it is what begins it."""
    service.add_jobs([make_job(), make_job(unique_key=unique_key)], connection=caller)
    caller.rollback()
    service.add_bundle(make_bundle(200), notify=False, connection=caller)
    caller.rollback()
    assert service.get_status().is_zero


def test_within_a_pipeline(service: QueueService, caller: Connection) -> None:
    """A caller who does not wait for answers is told all the same what was a duplicate."""
    job = service.enqueue("t", 1, unique_key="k")
    with caller.pipeline():
        caller.execute("select 1")
        assert service.enqueue("t", 2, unique_key="k", connection=caller) == job
        assert not service.enqueue("t", 2, unique_key="l", connection=caller).is_duplicate
    caller.commit()
    assert service.get_status().num_jobs == 2


def test_no_setting_is_left_changed(service: QueueService, caller: Connection) -> None:
    """What the caller has set, for the session or the transaction, is as it was, whatever the enqueue has led to."""
    caller.execute("set lock_timeout = '7s'")
    caller.commit()
    caller.execute("set local jobqueue.notify = 'off'")
    ask = "select current_setting('lock_timeout') || ' ' || current_setting('jobqueue.notify')"
    for way in ("ignore", "replace_payload", "ignore"):
        service.enqueue(
            "t", 1, unique_key="k", unique_for=timedelta(microseconds=1), on_conflict=way, connection=caller
        )
        assert fetch_all(caller, ask) == ["7s off"]
    with pytest.raises(DuplicateJobError):
        service.enqueue("t", 1, unique_key="k", connection=caller, on_conflict="raise")
    assert fetch_all(caller, ask) == ["7s off"]


def test_a_caller_who_is_less_patient_stays_so(service: QueueService, caller: Connection, db: Connection) -> None:
    """A lock_timeout of the caller's own that is shorter holds."""
    with closing(psycopg.connect(db.info.dsn, password=db.info.password)) as other:
        service.enqueue("t", 1, unique_key="k", connection=other)
        caller.execute("set lock_timeout = '50ms'")
        with pytest.raises(DuplicateJobError) as caught:
            service.enqueue("t", 1, unique_key="k", connection=caller)
        assert caught.value.pending


@pytest.mark.parametrize("joined", [False, True])
def test_an_open_transaction_is_waited_for(
    impatient: QueueService, caller: Connection, other_db: Connection, joined: bool
) -> None:
    """Who wants a key that an open transaction has taken is told so after some time, and can go on."""
    caller.execute("set statement_timeout = '8s'")
    with other_db.transaction():
        holder = impatient.enqueue("t", 1, unique_key="k", connection=other_db)
        connection = caller if joined else None
        first = impatient.enqueue("t", "first", connection=connection)
        for add in (
            lambda: impatient.enqueue("t", 2, unique_key="k", connection=connection),
            lambda: impatient.add_jobs([Job.new("t", 2), Job.new("t", 2, unique_key="k")], connection=connection),
        ):
            with pytest.raises(DuplicateJobError, match="'k' of type 't'") as caught:
                add()
            assert (caught.value.pending, caught.value.existing_id) == (True, None)
        last = impatient.enqueue("t", "last", unique_key="l", connection=connection)
        caller.commit()
    assert {job.id for job in impatient.list_jobs()} == {holder.id, first.id, last.id}


@pytest.mark.parametrize("commits", [True, False])
def test_who_waits_learns_how_it_ended(
    service: QueueService, db: Connection, caller: Connection, commits: bool
) -> None:
    """Whether the transaction that had taken the key commits or not, who waits for it does what is right then."""
    holder = service.enqueue("t", 1, unique_key="k", connection=caller)
    with blocked(db, lambda: service.enqueue("t", 2, unique_key="k")) as later:
        (caller.commit if commits else caller.rollback)()
    found = later.result(10)
    assert (found == holder, found.is_duplicate) == (commits, commits)
    assert service.get_status().num_jobs == 1


def test_a_table_that_is_locked_is_no_duplicate(impatient: QueueService, other_db: Connection) -> None:
    """Who waits for a lock of another kind is not told that a key is held."""
    with other_db.transaction():
        other_db.execute("lock table worker.job in access exclusive mode")
        other_db.execute("set local statement_timeout = '10s'")
        with closing(psycopg.connect(other_db.info.dsn, password=other_db.info.password)) as caller:
            caller.execute("set lock_timeout = '100ms'")
            with pytest.raises(LockTimeoutError):
                impatient.enqueue("t", 1, unique_key="k", connection=caller)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_transaction_with_an_old_snapshot(service: QueueService, caller: Connection, level: IsolationLevel) -> None:
    """A holder that a REPEATABLE READ transaction cannot see is an error that says so; the driver's is its cause."""
    caller.isolation_level = level
    seen = service.enqueue("t", 1, unique_key="seen")
    caller.execute("select count(*) from worker.job")
    service.enqueue("t", 1, unique_key="unseen")
    assert service.enqueue("t", 1, unique_key="seen", connection=caller) == seen
    with pytest.raises(DuplicateJobError, match="REPEATABLE READ") as caught:
        service.enqueue("t", 1, unique_key="unseen", connection=caller)
    assert isinstance(caught.value.__cause__, SerializationFailure)
    caller.execute("select 1")


# --- beside go-jobqueue


@pytest.mark.parametrize(
    ("unique_for", "after_claim", "after_error", "after_result"),
    [
        ("waiting", None, None, None),
        ("waiting_and_running", "k", None, None),
        ("until_succeeded", "k", "k", None),
        (HOUR, "k", "k", "k"),
    ],
)
def test_what_go_does_ends_scopes(
    service: QueueService,
    go: GoClient,
    db: Connection,
    unique_for: Any,
    after_claim: Any,
    after_error: Any,
    after_result: Any,
) -> None:
    """Claims and ends by a program that knows no keys free them as ours do; beats and retries free nothing more."""

    def key() -> Any:
        row = row_of(db, job.id)
        assert {row["unique_key"], row["unique_key_spent"]} == {"k", None}
        return row["unique_key"]

    job = service.enqueue("t", 1, unique_key="k", unique_for=unique_for, max_retry_count=1)
    assert go.start_next_job_or_nil(["t"]) is not None
    assert key() == after_claim
    go.set_job_worker_alive(job.id)
    go.schedule_retry(job.id, job.start_at, 1)
    assert key() == after_claim
    assert go.start_next_job_or_nil(["t"]) is not None
    go.set_job_error(job.id, "broken")
    assert key() == after_error
    go.set_job_result(job.id)
    assert key() == after_result


def test_a_failed_attempt_of_go_is_no_end(service: QueueService, db: Connection) -> None:
    """While go-jobqueue before 0.6 computes a retry, a job is marked as stopped, and holds its key all the same."""
    job = service.enqueue("t", 1, unique_key="k", max_retry_count=1)
    db.execute("update worker.job set started_at = now()")
    db.execute("update worker.job set stopped_at = now(), error_msg = 'broken'")
    assert row_of(db, job.id)["unique_key"] == "k"
    db.execute("update worker.job set started_at = null, stopped_at = null, error_msg = null, current_retry_count = 1")
    db.execute("update worker.job set started_at = now()")
    db.execute("update worker.job set stopped_at = now(), error_msg = 'broken'")
    assert row_of(db, job.id)["unique_key"] is None


def test_go_adds_beside_keys(service: QueueService, go: GoClient) -> None:
    """What go-jobqueue adds has no key, and is in nobody's way."""
    service.enqueue("t", 1, unique_key="k")
    assert service.get_job(go.add_job("t")).unique_key is None
    assert service.enqueue("t", 1, unique_key="k").is_duplicate


# --- in tables that were there before


def test_a_migration_that_was_broken_off(database: str) -> None:
    """What an attempt has left is no hindrance to the next one; jobs that were there have no keys."""
    jobqueue_pg.migrate(database, to=4)
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        connection.execute(
            """
            insert into worker.job ("type", payload, priority, origin) values ('t', '1', 0, 'o');
            alter table worker.job add column unique_key text;
            create index job_unique_key_idx on worker.job (priority)
            """
        )
        assert "0006_keep_unique_keys" in jobqueue_pg.migrate(database)
        with closing(jobqueue_pg.connect(database, origin="tests")) as service:
            assert [job.unique_key for job in service.list_jobs()] == [None]
            added = [service.enqueue("t", 1, unique_key="k") for _ in range(2)]
    assert [job.is_duplicate for job in added] == [False, True]


# --- what it costs


END_SCOPES: dict[str, Callable[[PostgresStore, WorkerStore, Job], Any]] = {
    "finished": lambda _, workers, job: workers.save_outcomes([Outcome.finished(job)]),
    "failed": lambda _, workers, job: workers.save_outcomes([Outcome.failed(job, ERROR)]),
    "cancelled": lambda store, _, job: store.cancel_jobs([job.id]),
    "given up": lambda _, workers, job: workers.reap_jobs(timedelta(milliseconds=1), 0),
}


@pytest.mark.parametrize("end", END_SCOPES)
def test_our_own_statements_write_a_job_once(migrated: str, connection: Connection, end: str) -> None:
    """What ends a scope of ours frees the key by itself: without the trigger, which is for others, it is the same."""
    connection.execute("alter table worker.job disable trigger job_unique_key_trigger")
    silent = Claimant(name="silent", lease=timedelta(milliseconds=1))
    with closing(PostgresStore(migrated)) as store, closing(store.for_workers(lock_timeout=HOUR)) as workers:
        store.add_jobs([make_job(unique_key=key, unique_for=key) for key in ("waiting", "waiting_and_running")])
        claimed = workers.claim_jobs(["*"], 2, silent)
        held = "select unique_key from worker.job where unique_key is not null"
        assert fetch_all(connection, held) == ["waiting_and_running"]
        connection.execute("update worker.job set worker_alive_at = now() - interval '1 s'")
        for job in claimed:
            END_SCOPES[end](store, workers, job)
        assert fetch_all(connection, held) == []


@pytest.mark.parametrize("unique_for", ["waiting", "waiting_and_running", HOUR])
def test_a_plain_job_and_a_key_that_stays_are_ended_hot(migrated: str, connection: Connection, unique_for: Any) -> None:
    """The end of a job without a key, and one that frees none, writes no index."""
    with closing(PostgresStore(migrated)) as store, closing(store.for_workers(lock_timeout=HOUR)) as workers:
        store.add_jobs([make_job(), make_job(unique_key="k", unique_for=unique_for)])
        claimed = workers.claim_jobs(["*"], 2, CLAIMANT)
        workers.save_outcomes([Outcome.finished(job) for job in claimed])
    # The server counts what a session has done when that ends, at the latest.
    wait_until(lambda: hot_updates(connection)[0] == 4)
    assert hot_updates(connection) == (4, 1 if unique_for == "waiting_and_running" else 2)


def hot_updates(connection: Connection) -> tuple[int, int]:
    connection.execute("select pg_stat_clear_snapshot()")
    row = connection.execute(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = 'worker.job'::regclass"
    ).fetchone()
    assert row is not None
    return row[0], row[1]
