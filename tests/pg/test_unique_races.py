"""Unique keys that several want at the same time, or that others change meanwhile."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import jobqueue_pg
from jobqueue import DuplicateJobError, Job
from jobqueue.outcomes import Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg import rows
from jobqueue_pg.store import PostgresStore
from tests.fixtures.blocking import blocked
from tests.fixtures.stores import CLAIMANT, Connection, claim_one, fetch_all, make_job, row_of

SHORT = timedelta(milliseconds=100)
ERROR = RunError(message="broken")


@pytest.fixture
def caller(queue: str) -> Iterator[Connection]:
    """The application's own connection, which begins a transaction with its first statement."""
    with closing(psycopg.connect(queue)) as connection:
        yield connection


@pytest.fixture
def impatient(queue: str) -> Iterator[QueueService]:
    """A service that does not wait for others for long."""
    with closing(jobqueue_pg.connect(queue, origin="tests", unique_lock_timeout=SHORT)) as service:
        yield service


def test_many_callers_in_opposite_orders(migrated: str, connection: Connection) -> None:
    """Twenty who add the same jobs together, in all orders, meet no deadlock; each key is taken once."""
    keys = [f"key {number}" for number in range(50)]
    everybody = threading.Barrier(20)
    with closing(jobqueue_pg.connect(migrated, pool_size=20, origin="tests")) as service:

        def add(number: int) -> list[Job]:
            order = keys[::-1] if number % 2 else keys
            everybody.wait(20)
            turned = order[number:] + order[:number]
            return service.add_jobs([Job.new("t", number, unique_key=key) for key in turned])

        with ThreadPoolExecutor(20) as executor:
            added = [job for jobs in executor.map(add, range(20)) for job in jobs]
    assert sum(not job.is_duplicate for job in added) == len(keys)
    assert fetch_all(connection, "select count(*) from worker.job") == [len(keys)]
    assert fetch_all(connection, "select deadlocks from pg_stat_database where datname = current_database()") == [0]


@pytest.mark.parametrize("unique_for", ["waiting", "waiting_and_running", "until_succeeded"])
def test_enqueue_beside_everything_else(migrated: str, connection: Connection, unique_for: Any) -> None:
    """While jobs are enqueued, claimed, ended, reset and cancelled, no call fails, and a key is never held twice."""
    rounds = 150
    with (
        closing(PostgresStore(migrated, pool_size=8)) as store,
        closing(store.for_workers(lock_timeout=timedelta(minutes=1))) as workers,
    ):

        def enqueue(number: int) -> int:
            job = make_job(payload=number, unique_key=f"k{number % 3}", unique_for=unique_for)
            ways = ("ignore", "replace_payload")
            return not store.add_job(job, delay=None, on_conflict=ways[number % 2]).is_duplicate

        def work(number: int) -> int:
            kinds = [Outcome.finished, Outcome.released, lambda job: Outcome.failed(job, ERROR)]
            claimed = workers.claim_jobs(["*"], 2, CLAIMANT)
            workers.save_outcomes([kinds[(number + place) % 3](job) for place, job in enumerate(claimed)])
            return 0

        def manage(number: int) -> int:
            ids = [job.id for job in store.get_all_jobs_with_errors()][-6:]
            (store.reset_jobs, store.replay_jobs, store.cancel_jobs)[number % 3](ids)
            return 0

        with ThreadPoolExecutor(8) as executor:
            acts = [enqueue, work, manage, enqueue, work, manage, enqueue, enqueue]
            running = [executor.submit(lambda act=act: sum(map(act, range(rounds)))) for act in acts]
            added = sum(later.result(60) for later in running)
    assert fetch_all(connection, "select count(*) from worker.job") == [added]
    held = "select count(*), count(distinct unique_key) from worker.job where unique_key is not null"
    assert len(set(connection.execute(held).fetchone() or ())) == 1
    freed = {
        "waiting": "started_at is not null",
        "waiting_and_running": "stopped_at is not null",
        "until_succeeded": "stopped_at is not null and (error_msg is null or cancelled_at is not null)",
    }
    assert fetch_all(
        connection, f"select count(*) from worker.job where unique_key is not null and {freed[unique_for]}"
    ) == [0]  # type: ignore[arg-type]


def test_a_reset_that_meets_another_tries_again(
    store: PostgresStore, worker_store: WorkerStore, caller: Connection, db: Connection
) -> None:
    """A reset waits for an open transaction that has taken the key: it has it back only if that is rolled back."""
    (job,) = store.add_jobs([make_job(unique_key="k")])
    worker_store.save_outcomes([Outcome.failed(claim_one(worker_store), ERROR)])
    for commits in (False, True):
        store.add_job(make_job(unique_key="k"), delay=None, connection=caller)
        with blocked(db, lambda: store.reset_jobs([job.id])) as later:
            (caller.commit if commits else caller.rollback)()
        assert later.result(10) == {job.id}
        row = row_of(db, job.id)
        assert (row["unique_key"], row["unique_key_spent"]) == ((None, "k") if commits else ("k", None))
        worker_store.save_outcomes([Outcome.failed(claim_one(worker_store), ERROR)])


@pytest.mark.parametrize("act", ["reset_jobs", "replay_jobs"])
def test_a_reset_waits_for_no_key_for_long(
    service: QueueService, caller: Connection, db: Connection, worker_store: WorkerStore, act: str
) -> None:
    """It does without a key that somebody's open transaction has added, and locks nothing until that ends."""
    jobs = service.add_jobs([Job.new("t", 1, unique_key=key) for key in "kl"])
    worker_store.save_outcomes([Outcome.failed(job, ERROR) for job in worker_store.claim_jobs(["t"], 2, CLAIMANT)])
    service.add_job(Job.new("t", 1, unique_key="k"), connection=caller)
    with ThreadPoolExecutor(1) as executor:
        later = executor.submit(getattr(service, act), [job.id for job in jobs])
        try:
            assert later.result(20) == 2
        finally:
            caller.rollback()
    assert [row_of(db, job.id)["started_at"] for job in jobs] == [None, None]
    assert row_of(db, jobs[0].id)["unique_key"] is None


def test_a_reset_is_as_patient_with_rows(
    service: QueueService, db: Connection, other_db: Connection, worker_store: WorkerStore
) -> None:
    """For a job that somebody has locked it waits as ever, though it takes a key back."""
    job = service.enqueue("t", 1, unique_key="k")
    worker_store.save_outcomes([Outcome.failed(claim_one(worker_store), ERROR)])
    with other_db.transaction():
        other_db.execute("select from worker.job for update")
        with blocked(db, lambda: service.reset_job(job.id)) as later:
            with pytest.raises(TimeoutError):
                later.result(3)
            other_db.execute("commit")
    assert row_of(db, job.id)["unique_key"] == "k"


def test_a_deadlock_of_keys_is_undecided(
    service: QueueService, caller: Connection, other_db: Connection, db: Connection
) -> None:
    """Of two that want each other's keys, one is told so, and its transaction goes on with what it had added."""
    keys = {key: Job.new("t", 1, unique_key=key) for key in "abc"}
    other_db.execute("set deadlock_timeout = '1min'")
    caller.execute("set deadlock_timeout = '10ms'")
    service.add_job(keys["a"], connection=caller)
    other_db.execute("begin")
    service.add_job(keys["b"], connection=other_db)
    with blocked(db, lambda: service.add_job(Job.new("t", 2, unique_key="a"), connection=other_db)) as later:
        with pytest.raises(DuplicateJobError) as caught:
            service.add_jobs([keys["c"], Job.new("t", 2, unique_key="b")], connection=caller)
        assert caught.value.pending
        caller.commit()
    assert later.result(10).is_duplicate
    other_db.execute("commit")
    assert fetch_all(db, "select unique_key from worker.job order by 1") == ["a", "b"]


def test_a_holder_that_is_locked_is_waited_for(impatient: QueueService, other_db: Connection) -> None:
    """A payload that is to be replaced in a row that somebody holds is as undecided as a key."""
    job = impatient.enqueue("t", 1, unique_key="k")
    with other_db.transaction():
        other_db.execute("select from worker.job for update")
        with pytest.raises(DuplicateJobError) as caught:
            impatient.enqueue("t", 2, unique_key="k", on_conflict="replace_payload")
        assert caught.value.pending
    assert impatient.get_job(job.id).payload == 1


def test_keys_are_taken_in_their_order(migrated: str, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are taken in the order of their bytes, of one type after the other, in however many statements."""
    monkeypatch.setattr(rows, "_MAX_JOBS_IN_STATEMENT", 2)
    connection.execute(
        """
        create table taken (at serial, what text);
        create function take() returns trigger language plpgsql as $$
        begin
            insert into public.taken (what) values (new."type" || new.unique_key);
            return null;
        end $$;
        create trigger take after insert on worker.job for each row execute function take()
        """
    )
    wanted = ["ub", "ta", "tZ", "t\N{LATIN SMALL LETTER A WITH DIAERESIS}", "ua", "tb"]
    with closing(PostgresStore(migrated)) as store:
        store.add_jobs([make_job(type=what[0], unique_key=what[1:]) for what in wanted])
    assert fetch_all(connection, "select what from taken order by at") == sorted(wanted, key=str.encode)


def test_a_holder_that_ends_meanwhile_is_none(service: QueueService, db: Connection, other_db: Connection) -> None:
    """A job that gives up its key while its payload is to be replaced is left alone: the new one is added."""
    job = service.enqueue("t", 1, unique_key="k")

    def replace() -> Job:
        return service.enqueue("t", 2, unique_key="k", on_conflict="replace_payload")

    with other_db.transaction():
        other_db.execute("select from worker.job for update")
        with blocked(db, replace) as later:
            other_db.execute("update worker.job set started_at = now(), stopped_at = now()")
            other_db.execute("commit")
    assert (later.result(10).is_duplicate, service.get_job(job.id).payload) == (False, 1)


def test_what_nobody_can_see_is_undecided(service_as: Any, connection: Connection) -> None:
    """A holder that row-level security hides is looked for some times; then it is like one that is not there yet."""
    connection.execute("alter table worker.job enable row level security")
    connection.execute("create policy add on worker.job for insert with check (true)")
    connection.execute("create policy see on worker.job for select using (origin = 'mine')")
    with service_as("worker") as service:
        assert not service.enqueue("t", 1, unique_key="k", origin="mine").is_duplicate
        assert service.enqueue("t", 1, unique_key="k", origin="mine").is_duplicate
        connection.execute("update worker.job set origin = 'hidden'")
        with pytest.raises(DuplicateJobError) as caught:
            service.enqueue("t", 1, unique_key="k", origin="mine")
        assert caught.value.pending


def test_through_a_pooler(pooled: str, service: QueueService, db: Connection) -> None:
    """Where sessions are lent for a transaction, keys are as unique, and waited for as long; nothing is left behind."""
    with closing(PostgresStore(pooled, unique_lock_timeout=SHORT)) as store:
        first = make_job(unique_key="k", unique_for=timedelta(microseconds=1))
        assert not store.add_job(first, delay=None).is_duplicate
        assert not store.add_job(make_job(unique_key="k"), delay=None).is_duplicate
        added = store.add_jobs([make_job(unique_key=key) for key in "kl"], on_conflict="replace_payload")
        assert [job.is_duplicate for job in added] == [True, False]
        with db.transaction():
            service.enqueue("t", 1, unique_key="m", connection=db)
            with pytest.raises(DuplicateJobError) as caught:
                store.add_job(make_job(unique_key="m"), delay=None)
        assert caught.value.pending
        store.add_job(make_job(), delay=None)
    assert service.get_status().num_jobs == 5
