"""A worker store goes on where its last claims ended, and overlooks nothing by that for long."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import cast

import pytest

from jobqueue import Job
from jobqueue.outcomes import Outcome, RunError
from jobqueue_pg.store import PostgresStore
from jobqueue_pg.watermarks import Watermarks
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.fixtures.explaining import pages_read
from tests.fixtures.stores import CLAIMANT, START, Clock, Connection, add, claim, insert_job, make_job

SECOND = timedelta(seconds=1)
EARLY = START - timedelta(hours=1)
TRUSTED = 0.25


class Monotonic:
    """The clock by which watermarks grow old; it stands still until a test moves it."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def workers(worker_store: PostgresWorkerStore, monotonic: Monotonic) -> PostgresWorkerStore:
    """The store of a worker pool whose watermarks go by `monotonic`."""
    worker_store._watermarks = Watermarks(monotonic)
    return worker_store


def looks_narrowly(workers: PostgresWorkerStore, types: Sequence[str] = ("*",)) -> bool:
    return not workers._watermarks.next_look(types).is_full


def go_on(
    store: PostgresStore, workers: PostgresWorkerStore, *jobs: Job, types: Sequence[str] = ("*",)
) -> tuple[Job, ...]:
    """Have the next claim of *workers* go on where a claim of 100 jobs has ended; return 50 jobs that are left."""
    first = add(store, *jobs, *(make_job(payload=number) for number in range(150)))
    claimed = claim(workers, 100, types)
    assert len(claimed) == 100
    assert looks_narrowly(workers, types)
    return tuple(job for job in first if job not in claimed)


# --- what a narrow look does not see


def test_an_insert_that_was_committed_late(
    store: PostgresStore, workers: PostgresWorkerStore, db: Connection, monotonic: Monotonic
) -> None:
    """A job that was due before those claimed, but not yet committed, is found after a quarter of a second."""
    with db.transaction():
        late = insert_job(db, created_at=EARLY)
        left = go_on(store, workers)
    assert claim(workers, 2) == list(left[:2])
    monotonic.seconds += TRUSTED
    assert [job.id for job in claim(workers, 2)] == [late, left[2].id]


def test_rows_that_were_locked(
    store: PostgresStore, workers: PostgresWorkerStore, db: Connection, monotonic: Monotonic
) -> None:
    """Jobs that somebody else had locked while others were claimed, and let go, are found likewise."""
    locked = add(store, make_job(start_at=EARLY), make_job(start_at=EARLY, priority=5))
    with db.transaction():
        db.execute("select from worker.job for update")
        left = go_on(store, workers)
    assert claim(workers) == [left[0]]
    monotonic.seconds += TRUSTED
    assert claim(workers, 3) == [locked[1], locked[0], left[1]]


def test_a_job_that_was_reset(store: PostgresStore, workers: PostgresWorkerStore, monotonic: Monotonic) -> None:
    """A job that an application has given back is found likewise."""
    add(store, old := make_job(start_at=EARLY))
    left = go_on(store, workers)
    store.reset_jobs([old.id])
    assert claim(workers) == [left[0]]
    monotonic.seconds += TRUSTED
    assert claim(workers, 2) == [old, left[1]]


def test_too_few_is_said_by_full_looks_only(store: PostgresStore, workers: PostgresWorkerStore, db: Connection) -> None:
    """A claim that asks for more than a narrow look finds gets all that there is, and hears what is due next."""
    with db.transaction():
        late = insert_job(db, created_at=EARLY)
        left = go_on(store, workers, make_job(start_at=START + SECOND))
    trip = workers.make_trip((), ["*"], 100, CLAIMANT)
    assert {job.id for job in trip.claimed} == {late, *(job.id for job in left if job.start_at is None)}
    assert trip.claimed[0].id == late
    assert trip.next_due_in == SECOND


def test_nothing_is_said_by_full_looks_only(store: PostgresStore, workers: PostgresWorkerStore, db: Connection) -> None:
    """A claim that comes after all was taken finds what was committed late."""
    with db.transaction():
        late = insert_job(db, created_at=EARLY)
        left = go_on(store, workers)
        assert len(claim(workers, len(left))) == len(left)
        assert looks_narrowly(workers)
    assert [job.id for job in claim(workers)] == [late]


def test_the_second_look_fails(
    store: PostgresStore, workers: PostgresWorkerStore, db: Connection, clock: Clock
) -> None:
    """When the connection breaks after a narrow look, what that has brought is kept, and the caller looks again."""
    left = go_on(store, workers)
    looks: list[int] = []

    def break_the_second() -> object:
        looks.append(1)
        if len(looks) == 2:
            db.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        return clock()

    workers._database.now = cast("Callable[[], None]", break_the_second)
    trip = workers.make_trip((), ["*"], 100, CLAIMANT)
    assert (trip.claimed, trip.next_due_in) == (left, timedelta(0))
    assert claim(workers) == []


# --- what is given back by the store itself


def test_a_job_that_the_store_releases(store: PostgresStore, workers: PostgresWorkerStore) -> None:
    """What a pool gives back, or takes away from silent claims, is claimed next."""
    add(store, *(old := (make_job(start_at=EARLY), make_job(start_at=EARLY))))
    released, *_ = claim(workers, 1)
    left = go_on(store, workers)
    workers.save_outcomes([Outcome.released(released)])
    assert claim(workers, 2) == [old[0], left[0]]


def test_a_job_that_a_trip_releases(store: PostgresStore, workers: PostgresWorkerStore) -> None:
    """What a trip gives back is claimed by the next one, even if the trip itself has gone on."""
    add(store, make_job(start_at=EARLY))
    released = claim(workers, 1)
    left = go_on(store, workers)
    trip = workers.make_trip([Outcome.released(released[0])], ["*"], 1, CLAIMANT)
    assert trip.claimed == (left[0],)
    assert claim(workers, 2) == [*released, left[1]]


@pytest.mark.parametrize("at_once", [True, False], ids=["reap jobs", "make a round"])
def test_a_job_that_the_store_reaps(
    store: PostgresStore, workers: PostgresWorkerStore, clock: Clock, at_once: bool
) -> None:
    """A job of a claim that was silent is claimed next."""
    add(store, silent := make_job(start_at=EARLY))
    assert claim(workers) == [silent]
    go_on(store, workers)
    clock.advance(2 * CLAIMANT.lease)
    # For longer than that, the server may not have been up.
    dead_for = timedelta(milliseconds=1)
    assert workers.reap_jobs(dead_for, 3) if at_once else workers.make_round(dead_for, 3).rescues
    assert claim(workers) == [silent]


def test_a_retry_comes_after_what_was_due(store: PostgresStore, workers: PostgresWorkerStore, clock: Clock) -> None:
    """A job that is to be run again is due after all that was claimed: no full look is needed to find it."""
    (retried,) = add(store, make_job(start_at=EARLY, max_retry_count=1))
    claimed = claim(workers, 1)
    left = go_on(store, workers)
    workers.save_outcomes([Outcome.retry(claimed[0], RunError(message="m"), delay=SECOND)])
    assert looks_narrowly(workers)
    clock.advance(SECOND)
    assert claim(workers, 51) == [*left, retried]


# --- what a narrow look sees


@pytest.mark.parametrize("priority", [1, 4, 5, 6, 7, 9, 2**63 - 1])
def test_a_higher_priority(store: PostgresStore, workers: PostgresWorkerStore, priority: int) -> None:
    """A job of a higher priority is claimed next, whether or not others were there before."""
    left = go_on(store, workers, *(make_job(priority=5 + number % 2 * 2) for number in range(10)))
    (urgent,) = add(store, make_job(priority=priority))
    assert claim(workers, 2) == [urgent, left[0]]


def test_a_lower_priority_waits(store: PostgresStore, workers: PostgresWorkerStore) -> None:
    """Jobs of a lower priority come when those of higher ones are claimed, be they new or old."""
    low = make_job(priority=-5)
    left = go_on(store, workers, low)
    lower, *_ = add(store, make_job(priority=-9), make_job(priority=-(2**63)))
    assert claim(workers, 50) == list(left[1:])
    assert claim(workers, 2) == [low, lower]


def test_a_higher_priority_becomes_due(store: PostgresStore, workers: PostgresWorkerStore, clock: Clock) -> None:
    """A job of a higher priority that was not due yet when the queue was looked at is claimed when it is."""
    urgent, *left = go_on(store, workers, make_job(priority=5, start_at=START + SECOND))
    assert claim(workers) == left[:1]
    clock.advance(SECOND)
    assert looks_narrowly(workers)
    assert claim(workers, 2) == [urgent, left[1]]


@pytest.mark.parametrize("priority", [0, 3])
def test_a_type_that_had_no_jobs(store: PostgresStore, workers: PostgresWorkerStore, priority: int) -> None:
    """A job of a type that is asked for by its name is claimed in its turn, although the type had no jobs before."""
    left = go_on(store, workers, types=["t", "new"])
    assert looks_narrowly(workers, ["t", "new"])
    (new,) = add(store, make_job("new", start_at=EARLY, priority=priority))
    assert claim(workers, 2, ["t", "new"]) == [new, left[0]]


def test_a_type_of_a_prefix(store: PostgresStore, workers: PostgresWorkerStore, monotonic: Monotonic) -> None:
    """New jobs of types that a prefix stands for come in their turn; so do new types, a quarter of a second later."""
    left = go_on(store, workers, make_job("known", start_at=EARLY), make_job("known", priority=-1))
    left = tuple(job for job in left if job.type == "t")
    known, unknown = add(store, make_job("known", start_at=START - SECOND), make_job("new", start_at=EARLY))
    assert claim(workers, 2) == [known, left[0]]
    monotonic.seconds += TRUSTED
    assert claim(workers, 2) == [unknown, left[1]]


def test_types_in_the_order_of_their_jobs(store: PostgresStore, workers: PostgresWorkerStore) -> None:
    """One by one, jobs of several types come in the order in which they were due."""
    go_on(store, workers, make_job("u", priority=-5))
    jobs = add(store, *(make_job("tuv"[number % 3], start_at=START - (300 - number) * SECOND) for number in range(300)))
    workers._watermarks.look_fully()
    assert claim(workers, 100) == [job for job in jobs if job.type == "t"]
    others = [job for job in jobs if job.type != "t"]
    for job in others[:20]:
        assert looks_narrowly(workers)
        assert claim(workers) == [job]


def test_jobs_of_one_moment(store: PostgresStore, workers: PostgresWorkerStore) -> None:
    """Jobs that were due at the same moment are claimed once each, in the order of their ids."""
    jobs = add(store, *(make_job(payload=number) for number in range(1000)))
    claimed: list[Job] = []
    for _ in range(10):
        claimed += claim(workers, 100)
        assert looks_narrowly(workers)
    assert claimed == list(jobs)
    assert claim(workers, 1) == []


@pytest.mark.parametrize("moment", ["-infinity", "4713-01-01 00:00:00Z BC"])
def test_moments_before_the_calendar(
    store: PostgresStore, workers: PostgresWorkerStore, db: Connection, moment: str
) -> None:
    """Jobs that are due at moments which Python cannot hold are claimed once each, like all others."""
    ids = {insert_job(db, start_at=moment) for _ in range(130)}
    claimed = claim(workers, 100) + claim(workers, 30)
    assert {job.id for job in claimed} == ids


# --- what it costs


def test_what_was_claimed_is_not_walked_over(
    store: PostgresStore, workers: PostgresWorkerStore, other_db: Connection
) -> None:
    """While an old snapshot is held, a claim of a long queue costs what it did at first."""
    add(store, *(make_job(f"t{number % 2}", number, priority=number % 2) for number in range(2000)))
    claim(workers, 100)
    pages: list[int] = []
    with other_db.transaction():
        other_db.execute("set transaction isolation level repeatable read")
        other_db.execute("select from worker.job limit 1")
        for _ in range(18):
            if not (look := workers._watermarks.next_look(["*"])).is_full:
                pages.append(pages_read(workers, look))
            assert len(claim(workers, 100)) == 100
        from_the_front = pages_read(workers, workers._watermarks.full_look(["*"]))
    assert len(pages) > 9
    assert max(pages) < 2 * pages[0], pages
    assert from_the_front > 3 * max(pages), (from_the_front, pages)
