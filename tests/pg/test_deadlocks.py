"""go-jobqueue locks bundles before jobs, and we the other way round: the deadlocks that follow reach no caller."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from jobqueue.models import Job
from jobqueue.outcomes import Outcome, RunError
from jobqueue.store import Store, WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.go_client import GoClient
from tests.fixtures.stores import CLAIMANT, Connection, assert_counts_true, claim, fetch_all, make_bundle, row_of
from tests.fixtures.waiting import wait_until

DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
ERROR = RunError(message="broken")
PAST = datetime(2020, 1, 1, tzinfo=UTC)

Act = Callable[[Store, WorkerStore, list[Job]], Any]


def finish_and_claim(store: Store, workers: WorkerStore, jobs: list[Job]) -> Any:
    return workers.make_trip([Outcome.finished(job) for job in jobs], ["none"], 1, CLAIMANT).saved


def reset(store: Store, workers: WorkerStore, jobs: list[Job]) -> Any:
    return store.reset_jobs(job.id for job in jobs)


@pytest.fixture
def stores(queue: str, db: Connection) -> Iterator[tuple[Store, WorkerStore]]:
    """Stores whose connections look for a deadlock when they have waited for a while, and those of Go much later."""
    if db.execute("select from pg_roles where rolname = current_user and rolsuper").fetchone() is None:
        pytest.skip("only a superuser can say who is to be the victim")
    db.execute("set deadlock_timeout = '1min'")
    conninfo = make_conninfo(queue, options="-c deadlock_timeout=2s")
    with (
        closing(PostgresStore(conninfo)) as store,
        closing(store.for_workers(lock_timeout=timedelta(minutes=1))) as workers,
    ):
        yield store, workers


@pytest.mark.parametrize("act", [finish_and_claim, reset])
def test_a_deadlock_with_go_is_not_ours_to_tell(
    stores: tuple[Store, WorkerStore], db: Connection, other_db: Connection, act: Act
) -> None:
    """Who is the victim of a deadlock with go-jobqueue tries again, and has done what he wanted when he returns."""
    store, workers = stores
    store.add_bundle(make_bundle(2))
    jobs = claim(workers, 2)
    if act is reset:  # The bundle is of interest to a reset of what it has counted.
        workers.save_outcomes([Outcome.finished(job) for job in jobs])
    before = fetch_all(other_db, DEADLOCKS)
    with ThreadPoolExecutor(1) as executor:
        with db.transaction():
            db.execute("update worker.job_bundle set updated_at = now()")
            later = executor.submit(act, store, workers, jobs)
            wait_until(lambda: later.done() or fetch_all(other_db, WAITING) == [1])
            db.execute("update worker.job set updated_at = now() where id = %s", [jobs[1].id])
        assert later.result(30) == {job.id for job in jobs}
    # Who leaves has his deadlocks counted at once.
    store.close()
    workers.close()
    # It may have taken more than one: who tries again at once can be there before the other has woken up.
    wait_until(lambda: fetch_all(other_db, DEADLOCKS) > before, message="the server's count of a deadlock")
    assert_counts_true(db)
    assert {row_of(db, job.id)["stopped_at"] is not None for job in jobs} == {act is not reset}


SECONDS_OF_STRESS = 5
OURS, GOS, BUNDLES, SIZE = 4, 2, 24, 4


def test_stress_beside_go(migrated: str) -> None:
    """Four threads that do everything at random to the bundles that two processes of Go work on meet no error."""
    with closing(PostgresStore(migrated, pool_size=OURS)) as store:
        bundles = [make_bundle(SIZE) for _ in range(BUNDLES)]
        for bundle in bundles:
            store.add_bundle(bundle)
        ids = [job.id for bundle in bundles for job in bundle.jobs]
        until = time.monotonic() + SECONDS_OF_STRESS

        def ours(workers: WorkerStore, seed: int) -> int:
            chance, rounds = random.Random(seed), 0
            while time.monotonic() < until:
                claimed = workers.claim_jobs(["*"], chance.randint(1, 8), CLAIMANT)
                kinds = chance.choices([Outcome.finished, Outcome.released, failed], [6, 1, 2], k=len(claimed))
                workers.touch_jobs([job.fence for job in claimed])
                outcomes = [kind(job) for kind, job in zip(kinds, claimed, strict=True)]
                trip = workers.make_trip(outcomes, ["*"], 1, CLAIMANT)
                workers.save_outcomes([Outcome.released(job) for job in trip.claimed])
                manage = chance.choice([store.reset_jobs, store.reset_jobs, store.cancel_jobs, store.replay_jobs])
                manage(chance.sample(ids, chance.randint(1, 8)))
                rounds += 1
            return rounds

        def gos(seed: int) -> int:
            chance, rounds = random.Random(seed), 0
            with closing(psycopg.connect(migrated, autocommit=True)) as connection:
                go = GoClient(connection)
                while time.monotonic() < until:
                    # Its own deadlocks, and the counters that it drives out of their bounds, are its callers' to see.
                    with suppress(psycopg.Error):
                        job = go.start_next_job_or_nil(["t"])
                        if job is not None:
                            chance.choice([go.set_job_result, partial(go.set_job_error, message="broken")])(job["id"])
                        go.reset_jobs(chance.sample(ids, chance.randint(1, 4)))
                        go.set_job_start(chance.choice(ids), PAST)
                    rounds += 1
            return rounds

        with (
            closing(store.for_workers(lock_timeout=timedelta(hours=1))) as one,
            closing(store.for_workers(lock_timeout=timedelta(hours=1))) as two,
            ThreadPoolExecutor(OURS + GOS) as executor,
        ):
            working = [executor.submit(ours, (one, two)[number % 2], number) for number in range(OURS)]
            working += [executor.submit(gos, number) for number in range(GOS)]
            assert all(future.result(60) for future in working)


def failed(job: Job) -> Outcome:
    return Outcome.failed(job, ERROR)
