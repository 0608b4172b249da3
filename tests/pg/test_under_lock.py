"""What statements do at the moment at which they have a row locked, or wait for one."""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Final, TypeVar

import psycopg
import pytest

from jobqueue.outcomes import Outcome, Rescue
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.parts import Parts, wanted_job
from tests.fixtures.stores import Clock, Connection, add, claim, claim_one, fetch_all, make_bundle, make_job
from tests.fixtures.waiting import wait_until

T = TypeVar("T")

PATIENCE = 20
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
DEAD_FOR = timedelta(milliseconds=100)

# The same tables, seen by somebody who has to wait at a gate for each row: until then, a statement has a snapshot and
# has locked nothing.
GATED: Final = """
create schema gated;
create function gated.pass() returns boolean language plpgsql volatile as $$
begin
    perform pg_advisory_lock_shared(1);
    perform pg_advisory_unlock_shared(1);
    return true;
end
$$;
create view gated.job as select * from worker.job where gated.pass();
create view gated.job_bundle as select * from worker.job_bundle;
"""

# Fails as often as it is told to, with the error that it is told.
FAILING: Final = """
create sequence public.tries;
create function public.fail() returns trigger language plpgsql as $$
begin
    if nextval('public.tries') <= tg_argv[1]::int then
        raise exception 'on purpose' using errcode = tg_argv[0];
    end if;
    return null;
end
$$;
"""
TRIES: Final = "select last_value from public.tries"


@pytest.fixture
def clock() -> Clock:
    """Nobody here waits for a time to come."""
    return Clock(None)


@pytest.fixture
def patient(store: PostgresStore) -> Iterator[WorkerStore]:
    """The store of a worker pool that waits for locks for as long as a test may take."""
    with closing(_patient(store)) as workers:
        yield workers


def _patient(store: PostgresStore) -> WorkerStore:
    return store.for_workers(lock_timeout=timedelta(seconds=PATIENCE))


@pytest.fixture
def slow(migrated: str, connection: Connection) -> Iterator[WorkerStore]:
    """The store of a worker pool on `migrated` whose statements wait at a gate for whatever they see."""
    connection.execute(GATED)
    with closing(PostgresStore(migrated, schema="gated")) as gated, closing(_patient(gated)) as workers:
        yield workers


def shut_the_gate(connection: Connection) -> None:
    connection.execute("select pg_advisory_lock(1)")


@contextmanager
def held_at_the_gate(connection: Connection, act: Callable[[], T], *, shuts: bool = False) -> Generator["Future[T]"]:
    """Have *act* wait at the gate for the length of the block: its snapshot is older than what the block does.

    The gate is shut when it comes, unless *shuts*: then it shuts it itself, before its last statement.
    """
    with ThreadPoolExecutor(1) as executor:
        if not shuts:
            shut_the_gate(connection)
        try:
            acting = executor.submit(act)
            wait_until(lambda: acting.done() or fetch_all(connection, WAITING) == [1], PATIENCE)
            yield acting
        finally:
            connection.execute("select pg_advisory_unlock(1)")


def test_a_beat_that_comes_while_the_reaper_looks_counts(migrated: str, slow: WorkerStore, connection: Connection):
    """The reaper leaves a claim alone that was silent when its statement began, and has been heard of since."""
    with closing(PostgresStore(migrated)) as store, closing(store.for_workers()) as workers:
        add(store, make_job())
        job = claim_one(workers)
        connection.execute("update worker.job set worker_alive_at = now() - interval '1 day'")

        def shut_before_reaping(_: object) -> bool:
            shut_the_gate(connection)
            return True

        def reap() -> list[Rescue]:
            return slow.reap_jobs(DEAD_FOR, 3, if_counts=shut_before_reaping)

        with held_at_the_gate(connection, reap, shuts=True) as reaping:
            assert workers.touch_jobs([job.fence]) == {job.id}
        assert reaping.result(PATIENCE) == []
        assert workers.save_outcomes([Outcome.finished(job)]) == {job.id}


def test_a_beat_keeps_nobody_else_alive(migrated: str, slow: WorkerStore, connection: Connection):
    """A beat changes nothing of a job whose claim was lost since its statement began."""
    with closing(PostgresStore(migrated)) as store, closing(store.for_workers()) as workers:
        add(store, make_job())
        fence = claim_one(workers).fence
        with held_at_the_gate(connection, lambda: slow.touch_jobs([fence])) as beating:
            store.reset_jobs([fence.job_id])
        beating.result(PATIENCE)
        assert store.get_job(fence.job_id).worker_alive_at is None
        assert workers.touch_jobs([fence]) == frozenset()


def test_outcomes_lock_jobs_in_the_order_of_their_ids(
    store: PostgresStore, patient: WorkerStore, db: Connection, other_db: Connection
):
    """Who waits for the first of several jobs has not locked the others, in whichever order outcomes were handed in."""
    add(store, *(make_job() for _ in range(3)))
    jobs = sorted(claim(patient, 3), key=lambda job: job.id)
    outcomes = [Outcome.finished(job) for job in reversed(jobs)]
    with ThreadPoolExecutor(1) as executor:
        with other_db.transaction():
            other_db.execute("select from worker.job where id = %s for update", [jobs[0].id])
            saving = executor.submit(patient.save_outcomes, outcomes)
            wait_until(lambda: fetch_all(db, WAITING) == [1], PATIENCE)
            free = fetch_all(db, "select id from worker.job order by id for update skip locked")
        assert saving.result(PATIENCE) == {job.id for job in jobs}
    assert free == [job.id for job in jobs[1:]]


def test_outcomes_lock_bundles_in_the_order_of_their_ids(
    store: PostgresStore, patient: WorkerStore, db: Connection, other_db: Connection
):
    """Who waits for the first of several bundles has locked all of his jobs, and not the other bundles."""
    bundles = sorted((make_bundle(1) for _ in range(3)), key=lambda bundle: bundle.id)
    for bundle in bundles:
        store.add_bundle(bundle)
    outcomes = [Outcome.finished(job) for job in claim(patient, 3)]
    with ThreadPoolExecutor(1) as executor:
        with other_db.transaction():
            other_db.execute("select from worker.job_bundle where id = %s for update", [bundles[0].id])
            saving = executor.submit(patient.save_outcomes, outcomes)
            wait_until(lambda: fetch_all(db, WAITING) == [1], PATIENCE)
            free_jobs = fetch_all(db, "select id from worker.job for update skip locked")
            free = fetch_all(db, "select id from worker.job_bundle order by id for update skip locked")
        assert len(saving.result(PATIENCE)) == 3
    assert (free_jobs, free) == ([], [bundle.id for bundle in bundles[1:]])


def test_a_bundle_is_deleted_after_its_members_are_locked(store: PostgresStore, db: Connection, other_db: Connection):
    """Who deletes a bundle, and waits for one of its members, has not locked the bundle's row before."""
    bundle = make_bundle(2)
    store.add_bundle(bundle)
    with ThreadPoolExecutor(1) as executor:
        with other_db.transaction():
            other_db.execute("select from worker.job where id = %s for update", [bundle.jobs[0].id])
            deleting = executor.submit(store.delete_job_bundles, [bundle.id])
            wait_until(lambda: fetch_all(db, WAITING) == [1], PATIENCE)
            free = fetch_all(db, "select id from worker.job_bundle for update skip locked")
        assert deleting.result(PATIENCE) == {bundle.id}
    assert free == [bundle.id]


def fail_updates(connection: Connection, sqlstate: str, times: int) -> None:
    """Have the next updates of jobs fail."""
    connection.execute(FAILING)
    connection.execute(
        psycopg.sql.SQL(
            "create trigger fail after update on worker.job for each row execute function public.fail({}, {})"
        ).format(sqlstate, times)
    )


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_statement_that_was_rolled_back_is_run_again(migrated: str, connection: Connection, sqlstate: str):
    """A serialization failure or a deadlock that hits an outcome twice reaches nobody, and saves it once."""
    with closing(PostgresStore(migrated)) as store, closing(store.for_workers()) as workers:
        add(store, make_job())
        job = claim_one(workers)
        fail_updates(connection, sqlstate, times=2)
        assert workers.save_outcomes([Outcome.finished(job)]) == {job.id}
        assert store.get_job(job.id).run_count == 1
    assert fetch_all(connection, TRIES) == [3]


def test_what_may_pass_is_not_tried_without_a_pause(migrated: str, connection: Connection):
    """An outcome that meets a full disk is tried again, now and then, and saved when there is room."""
    with closing(PostgresStore(migrated)) as store, closing(store.for_workers()) as workers:
        [job] = add(store, make_job())
        dispatcher = Parts(workers).dispatcher
        dispatcher.hand_in(Outcome.finished(wanted_job(dispatcher)), seconds=60)
        fail_updates(connection, "53100", times=1_000_000)
        with ThreadPoolExecutor(1) as executor:
            executor.submit(dispatcher.next_job)
            wait_until(lambda: fetch_all(connection, TRIES)[0] > 3, PATIENCE)
            [before] = fetch_all(connection, TRIES)
            threading.Event().wait(1)
            [after] = fetch_all(connection, TRIES)
            connection.execute("drop trigger fail on worker.job")
            wait_until(lambda: store.get_job(job.id).succeeded, PATIENCE)
            dispatcher.close()
        assert after - before < 10
