"""What two do at the same time to one job, or to two of one bundle: the second waits for the first, or passes it over.

Whatever they do, and wherever one comes in between the statements of the other, the rows, what both are told, and what
everybody hears are as if one had come after the other; the counters of bundles are true, and nobody meets a deadlock.
"""

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from jobqueue.outcomes import Outcome, RunError
from jobqueue.store import Store, WorkerStore
from jobqueue_pg import rows
from jobqueue_pg.store import PostgresStore
from tests.fixtures import race_acts as acts
from tests.fixtures.pg import fresh_database
from tests.fixtures.race_sides import Act, Doing
from tests.fixtures.racing import Race
from tests.fixtures.stores import (
    CLAIMANT,
    Connection,
    assert_counts_true,
    claim,
    fetch_all,
    make_bundle,
    make_job,
)
from tests.fixtures.waiting import wait_until

ERROR = RunError(message="broken")

# Those who pass over what somebody has locked never wait, and find less to do.
CLAIM = Act(acts.claim, passing=acts.nothing, may_wait=False)
BEAT = Act(acts.beat, passing=acts.see_whose_the_job_is, may_wait=False)
REAP = Act(acts.reap, passing=acts.nothing, may_wait=False)
SWEEP = Act(acts.sweep, passing=acts.no_bundle, may_wait=False)
GIVE_UP = Act(acts.give_up, passing=acts.nothing, may_wait=False)

FINISH = Act(acts.finish)
CARRY = Act(acts.carry, passing=acts.carry_and_not_claim)
FINISH_AND_CLAIM = Act(acts.finish_and_claim, passing=acts.finish_and_not_claim)

RESET, REPLAY, CANCEL, RESCHEDULE = Act(acts.reset), Act(acts.replay), Act(acts.cancel), Act(acts.reschedule)
DELETE, DELETE_BUNDLE = Act(acts.delete), Act(acts.delete_bundle)

MANAGING = [RESET, REPLAY, CANCEL, RESCHEDULE, DELETE, DELETE_BUNDLE]
ALL = [
    CLAIM,
    FINISH,
    Act(acts.fail),
    Act(acts.retry),
    Act(acts.snooze),
    REAP,
    *MANAGING,
    Act(acts.add),
]
MORE = [
    CARRY,
    FINISH_AND_CLAIM,
    Act(acts.finish_atomically),
    BEAT,
    Act(acts.say_progress),
    GIVE_UP,
    Act(acts.delete_everything),
    Act(acts.add_again),
    Act(acts.add_bundle),
]
"""What differs from one of ALL in a detail, and, but for TRIPS, is tried with FEW of them."""

TRIPS = [CARRY, FINISH_AND_CLAIM]
FEW = [CLAIM, FINISH, REAP, RESET, CANCEL, DELETE, DELETE_BUNDLE]
ON_WHAT_WAITS = [CLAIM, CARRY, *MANAGING]
ON_WHAT_STOPPED = [FINISH, REAP, *MANAGING]
ON_WHAT_IS_OVER = [SWEEP, FINISH, *MANAGING, Act(acts.delete_everything)]
ON_TWO = [
    FINISH,
    FINISH_AND_CLAIM,
    Act(acts.finish_other),
    Act(acts.finish_both),
    BEAT,
    RESET,
    Act(acts.reset_other),
    Act(acts.reset_both),
    Act(acts.cancel_both),
    DELETE,
    Act(acts.delete_other),
    Act(acts.delete_both),
    DELETE_BUNDLE,
]


@pytest.fixture(scope="module")
def race(pg_dsn: str, migrated_template: str) -> Iterator[Race]:
    with fresh_database(pg_dsn, migrated_template) as conninfo:
        # Neither a disk nor a planner has a part in a race.
        options = "-c synchronous_commit=off -c plan_cache_mode=force_generic_plan -c jit=off"
        with Race(make_conninfo(conninfo, options=options)) as race:
            yield race
        assert_no_deadlocks(conninfo)


def assert_no_deadlocks(conninfo: str) -> None:
    """Say that nobody who is gone had met one."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        assert fetch_all(connection, "select deadlocks from pg_stat_database where datname = current_database()") == [0]


@pytest.fixture
def each_member_in_a_statement_of_its_own(monkeypatch):
    monkeypatch.setattr(rows, "_MAX_JOBS_IN_STATEMENT", 1)


def assert_one_after_the_other(race: Race, scene: str, first: Act, seconds: Sequence[Act]) -> None:
    """Let each of *seconds* come in after each statement of *first*, which then commits, or is rolled back."""
    last = race.length(scene, first.do)
    ends = [*((boundary, "commit") for boundary in range(1, last + 1)), *([(last, "rollback")] if last else [])]
    wrong = [
        f"{scene}: {first.name} (statement {boundary}, then {ending}), {second.name}:\n{difference}"
        for second in seconds
        for boundary, ending in ends
        if (difference := race.difference(scene, first, second, boundary, ending))
    ]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("first", ALL, ids=lambda act: act.name)
def test_pairs(race: Race, first: Act) -> None:
    """Whatever two do to a job that waits, runs in silence, or has failed, one has come before the other."""
    for scene in ("waiting", "running", "failed"):
        assert_one_after_the_other(race, scene, first, ALL)


@pytest.mark.parametrize("one", MORE, ids=lambda act: act.name)
@pytest.mark.usefixtures("each_member_in_a_statement_of_its_own")
def test_more_pairs(race: Race, one: Act) -> None:
    """So it is with trips that save and claim, atomic handlers, beats, progress, last rescues and whole bundles."""
    for scene in ("waiting", "running"):
        others = ALL if one in TRIPS else FEW
        assert_one_after_the_other(race, scene, one, [*others, one])
        for first in others:
            assert_one_after_the_other(race, scene, first, [one])


@pytest.mark.parametrize("first", [CLAIM, FINISH, BEAT, REAP, GIVE_UP, RESET], ids=lambda act: act.name)
def test_pairs_while_the_claim_is_heard(race: Race, first: Act) -> None:
    """The reaper leaves a claim alone that has been heard of, whatever others do at the same time."""
    assert race.one_after_the_other("running and heard", acts.reap).results == ([],)
    assert_one_after_the_other(race, "running and heard", first, [CLAIM, FINISH, BEAT, REAP, GIVE_UP, RESET])


@pytest.mark.parametrize("first", ON_WHAT_WAITS, ids=lambda act: act.name)
def test_pairs_before_a_retry(race: Race, first: Act) -> None:
    """Whatever two do to a job that waits for its next run, one has come before the other."""
    assert_one_after_the_other(race, "retrying", first, ON_WHAT_WAITS)


@pytest.mark.parametrize("first", ON_WHAT_STOPPED, ids=lambda act: act.name)
@pytest.mark.parametrize("scene", ["succeeded", "cancelled"])
def test_pairs_after_the_end(race: Race, scene: str, first: Act) -> None:
    """Whatever two do to a job that has succeeded or was cancelled, one has come before the other."""
    assert_one_after_the_other(race, scene, first, ON_WHAT_STOPPED)


@pytest.mark.parametrize("first", ON_WHAT_IS_OVER, ids=lambda act: act.name)
def test_pairs_when_all_is_over(race: Race, first: Act) -> None:
    """A bundle that may go, with a completion job that has succeeded, goes whole, or stays for whoever wants it."""
    assert race.one_after_the_other("over", acts.sweep).results == (1,)
    assert_one_after_the_other(race, "over", first, ON_WHAT_IS_OVER)


@pytest.mark.parametrize("first", [*ON_TWO, REAP, GIVE_UP], ids=lambda act: act.name)
def test_two_members_at_once(race: Race, first: Act) -> None:
    """Members of one bundle that two finish, reset, cancel or delete at the same time are all counted, each once."""
    assert_one_after_the_other(race, "both running", first, ON_TWO)


@pytest.mark.parametrize(
    "act",
    [
        acts.finish_both,
        acts.finish_both_and_claim,
        acts.reset_both,
        acts.cancel_both,
        acts.delete_both,
        acts.delete_bundle,
        acts.delete_everything,
    ],
)
def test_jobs_are_locked_before_bundles(race: Race, act: Doing) -> None:
    """Members are locked in the order of their ids, and their bundle after all of them."""
    assert race.free_while_waiting("both running", act, "job") == {"other", "bundle"}
    assert race.free_while_waiting("both running", act, "other") == {"bundle"}


def test_finished_jobs_are_deleted_in_the_order_of_locks(
    store: Store, worker_store: WorkerStore, db: Connection, other_db: Connection
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
        assert later.result(30) == 3


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
                workers.touch_jobs([job.fence for job in claimed])
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
    assert_no_deadlocks(migrated)


def is_waiting(connection: Connection) -> bool:
    waiting = (
        "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    return bool(fetch_all(connection, waiting)[0])
