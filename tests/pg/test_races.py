"""What two do to one job at the same time: the second waits for the first, and then sees what it did."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest

from jobqueue.models import Job, JobBundle
from jobqueue.outcomes import Claimant, Outcome, RunError, fence_of
from jobqueue.queue_service import QueueService
from jobqueue.store import Store, WorkerStore
from jobqueue_pg.database import Database
from jobqueue_pg.store import PostgresStore
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.fixtures.stores import (
    CLAIMANT,
    Clock,
    Connection,
    assert_counts_true,
    claim,
    fetch_all,
    make_bundle,
    make_job,
)
from tests.fixtures.waiting import wait_until

T = TypeVar("T")

DEAD_FOR = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
ERROR = RunError(message="broken")

Act = Callable[[Store, WorkerStore, Job], Any]


class OpenTransaction(Database):
    """Runs statements in the transaction that is open on a connection, and leaves its end to the test."""

    def __init__(self, connection: Connection, like: Database) -> None:
        super().__init__(like.pool, like.schema, like.now)
        self._connection = connection

    def _try_once(self, work: "Callable[[psycopg.Connection[Any]], T]") -> T:
        return work(self._connection)


def finish(store: Store, workers: WorkerStore, job: Job) -> Any:
    return workers.save_outcomes([Outcome.finished(job)])


def retry(store: Store, workers: WorkerStore, job: Job) -> Any:
    return workers.save_outcomes([Outcome.retry(job, ERROR)])


def release(store: Store, workers: WorkerStore, job: Job) -> Any:
    return workers.save_outcomes([Outcome.released(job)])


def reset(store: Store, workers: WorkerStore, job: Job) -> Any:
    return store.reset_jobs([job.id])


def cancel(store: Store, workers: WorkerStore, job: Job) -> Any:
    return store.cancel_jobs([job.id])


def replay(store: Store, workers: WorkerStore, job: Job) -> Any:
    return store.replay_jobs([job.id])


def put_off(store: Store, workers: WorkerStore, job: Job) -> Any:
    return store.reschedule_job(job.id, FUTURE)


def take(store: Store, workers: WorkerStore, job: Job) -> Any:
    return workers.claim_jobs(["*"], 5, CLAIMANT)


def say_progress(store: Store, workers: WorkerStore, job: Job) -> Any:
    return store.save_progress(fence_of(job), "1")


def delete(store: Store, workers: WorkerStore, job: Job) -> Any:
    return store.delete_jobs([job.id])


def delete_bundle(store: Store, workers: WorkerStore, job: Job) -> Any:
    assert job.bundle_id is not None
    return store.delete_job_bundles([job.bundle_id])


def reap(store: Store, workers: WorkerStore, job: Job) -> Any:
    return workers.reap_jobs(DEAD_FOR, 0)


def touch(store: Store, workers: WorkerStore, job: Job) -> Any:
    return workers.touch_jobs([fence_of(job)])


ACTS: list[Act] = [finish, retry, release, say_progress, reset, cancel, delete, delete_bundle, reap, touch]
NEED_THE_CLAIM: set[Act] = {finish, retry, release, say_progress}
STOP: set[Act] = {finish, cancel, reap}
NEVER_WAIT: set[Act] = {reap, touch}


def should_act(second: Act, first: Act, ending: str) -> bool:
    """Say whether *second*, which waited for *first*, has something to do when that has ended so."""
    if second is reap:
        return False
    if second is touch:
        return True  # As far as it can see the claim stands; whether it does, the next one tells.
    if ending == "rollback" or first in {touch, say_progress}:
        return True
    if second in NEED_THE_CLAIM or (second is cancel and first in STOP):
        return False
    return second is delete_bundle if first is delete else first is not delete_bundle


@pytest.fixture
def first_store(db: Connection, store: PostgresStore) -> Iterator[tuple[Store, WorkerStore]]:
    """Stores that work in the transaction of `db`."""
    with closing(PostgresStore("")) as own:
        transaction = OpenTransaction(db, store._database)
        pool, own._database = own._database, transaction
        pool.close()
        yield own, PostgresWorkerStore(transaction)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(ACTS, ACTS)))
def test_pairs(
    service: QueueService,
    store: PostgresStore,
    worker_store: WorkerStore,
    first_store: tuple[Store, WorkerStore],
    clock: Clock,
    db: Connection,
    other_db: Connection,
    first: Act,
    second: Act,
    ending: str,
) -> None:
    """Of two that act on a running job, one waits or passes it over; at most one has its way; counters stay true."""
    bundle = make_bundle(2)
    store.add_bundle(bundle)
    (job,) = worker_store.claim_jobs(["*"], 1, Claimant(name="n", lease=DEAD_FOR))
    clock.advance(SECOND)

    with ThreadPoolExecutor(1) as executor:
        with db.transaction(force_rollback=ending == "rollback"):
            assert first(*first_store, job)
            later = executor.submit(second, store, worker_store, job)
            wait_until(lambda: later.done() or is_waiting(other_db), message="the second's wait for a lock")
            assert later.done() == (second in NEVER_WAIT)
        assert bool(later.result(5)) == should_act(second, first, ending)
    assert_counts_true(db)
    if bundle_is_there(db, bundle) and (rest := claim(worker_store, 5)):
        worker_store.save_outcomes([Outcome.finished(member) for member in rest])
        assert_counts_true(db)


# Pairs that act on a job that waits, and on one that has failed, and whether the second has something to do when the
# first has committed.
ON_A_WAITING_JOB: list[tuple[Act, Act, bool]] = [
    (take, cancel, True),
    (take, put_off, False),
    (take, replay, False),
    (cancel, take, False),
    (cancel, cancel, False),
    (cancel, put_off, False),
    (cancel, replay, False),
    (cancel, reset, True),
    (put_off, take, False),
    (put_off, cancel, True),
    (put_off, put_off, True),
    (put_off, delete, True),
    (reset, put_off, True),
    (reset, cancel, True),
    (delete, put_off, False),
    (delete, cancel, False),
    (delete_bundle, put_off, False),
    (delete_bundle, cancel, False),
]
ON_A_FAILED_JOB: list[tuple[Act, Act, bool]] = [
    (replay, take, False),
    (replay, cancel, False),
    (replay, put_off, False),
    (replay, replay, False),
    (replay, reset, True),
    (replay, delete, True),
    (replay, delete_bundle, True),
    (reset, replay, False),
    (delete, replay, False),
    (delete_bundle, replay, False),
]


def has_work(act: Act, fails: bool) -> bool:
    """Say whether *act* has something to do, alone, on a job that has failed, or else waits."""
    return act in ({replay, reset, delete, delete_bundle} if fails else {cancel, put_off, reset, delete, delete_bundle})


@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize(
    ("fails", "first", "second", "acts"),
    [(False, *pair) for pair in ON_A_WAITING_JOB] + [(True, *pair) for pair in ON_A_FAILED_JOB],
)
def test_pairs_without_a_claim(
    store: PostgresStore,
    worker_store: WorkerStore,
    first_store: tuple[Store, WorkerStore],
    db: Connection,
    other_db: Connection,
    fails: bool,
    first: Act,
    second: Act,
    acts: bool,
    ending: str,
) -> None:
    """On a job that nobody runs, the second waits if it has something to do, and then sees what the first has done."""
    bundle = make_bundle(1)
    store.add_bundle(bundle)
    (job,) = bundle.jobs
    if fails:
        worker_store.save_outcomes([Outcome.failed(claimed, ERROR) for claimed in claim(worker_store)])

    with ThreadPoolExecutor(1) as executor:
        with db.transaction(force_rollback=ending == "rollback"):
            assert first(*first_store, job)
            later = executor.submit(second, store, worker_store, job)
            wait_until(lambda: later.done() or is_waiting(other_db), message="the second's wait for a lock")
            assert later.done() != has_work(second, fails)
        assert bool(later.result(5)) == (acts if ending == "commit" else has_work(second, fails))
    assert_counts_true(db)


def is_waiting(connection: Connection) -> bool:
    waiting = (
        "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    return bool(fetch_all(connection, waiting)[0])


def bundle_is_there(connection: Connection, bundle: JobBundle) -> bool:
    return bool(fetch_all(connection, "select count(*) from worker.job_bundle where id = %s", bundle.id)[0])


@pytest.mark.parametrize("act", [reset, delete])
def test_two_members_at_once(
    store: PostgresStore,
    worker_store: WorkerStore,
    first_store: tuple[Store, WorkerStore],
    db: Connection,
    other_db: Connection,
    act: Act,
) -> None:
    """Members of one bundle that are finished, reset or deleted by two at the same time are all counted."""
    store.add_bundle(make_bundle(4))
    a, b, c, d = claim(worker_store, 4)
    worker_store.save_outcomes([Outcome.finished(job) for job in (a, b)])
    for mine, theirs, second in ((a, c, finish), (b, d, act)):
        with ThreadPoolExecutor(1) as executor:
            with db.transaction():
                act(*first_store, mine)
                later = executor.submit(second, store, worker_store, theirs)
                wait_until(lambda later=later: later.done() or is_waiting(other_db))
            assert later.result(5)
        assert_counts_true(db)


def test_finished_jobs_are_deleted_in_the_order_of_locks(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, other_db: Connection
) -> None:
    """Deleting what is finished locks jobs by id, as everybody does, whatever their place in the table."""
    jobs = sorted((make_job() for _ in range(3)), key=lambda job: job.id)
    store.add_jobs(jobs[::-1])
    worker_store.save_outcomes([Outcome.finished(job) for job in claim(worker_store, 3)])
    with ThreadPoolExecutor(1) as executor:
        with db.transaction():
            db.execute("select from worker.job where id = %s for update", [jobs[0].id])
            later = executor.submit(store.delete_finished_jobs)
            wait_until(lambda: is_waiting(other_db))
            # Nobody holds those that come after.
            db.execute("select from worker.job where id = %s for update nowait", [jobs[1].id])
            db.execute("select from worker.job where id = %s for update nowait", [jobs[2].id])
        assert later.result(5) == 3


SECONDS_OF_STRESS = 3
THREADS = 4
BUNDLES = 8


def test_stress_on_bundles(migrated: str) -> None:
    """Four threads that do everything at random to members of the same bundles never deadlock, and count truly."""
    with (
        closing(PostgresStore(migrated, pool_size=THREADS)) as store,
        closing(store.for_workers()) as one,
        closing(store.for_workers()) as two,
    ):
        bundles = [make_bundle(6) for _ in range(BUNDLES)]
        for bundle in bundles:
            store.add_bundle(bundle)
        ids = [job.id for bundle in bundles for job in bundle.jobs]
        until = time.monotonic() + SECONDS_OF_STRESS

        def work(workers: WorkerStore, seed: int) -> int:
            chance = random.Random(seed)
            saved = 0
            while time.monotonic() < until:
                claimed = list(workers.claim_jobs(["*"], chance.randint(1, 12), CLAIMANT))
                chance.shuffle(claimed)
                kinds = chance.choices(
                    [Outcome.finished, Outcome.released, lambda job: Outcome.failed(job, ERROR)],
                    [6, 1, 2],
                    k=len(claimed),
                )
                workers.touch_jobs([fence_of(job) for job in claimed])
                trip = workers.make_trip(
                    [kind(job) for kind, job in zip(kinds, claimed, strict=True)], ["*"], 2, CLAIMANT
                )
                saved += len(trip.saved)
                workers.save_outcomes([Outcome.released(job) for job in trip.claimed])
                manage = chance.choice([store.reset_jobs, store.reset_jobs, store.cancel_jobs, store.replay_jobs])
                manage(chance.sample(ids, chance.randint(1, 16)))
                store.reschedule_job(chance.choice(ids), None)
            return saved

        with ThreadPoolExecutor(THREADS) as executor:
            done = [executor.submit(work, (one, two)[n % 2], n) for n in range(THREADS)]
        assert all(future.result() for future in done)
    with closing(psycopg.connect(migrated, autocommit=True)) as connection:
        assert_counts_true(connection)
        assert fetch_all(connection, "select deadlocks from pg_stat_database where datname = current_database()") == [0]
