"""How a reaper that looks again and again comes to know of claims that are silent, without reading all jobs."""

import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

import pytest
from psycopg.conninfo import make_conninfo

from jobqueue.errors import UnavailableError
from jobqueue.outcomes import Claimant, Outcome
from jobqueue.store import Round, always_counts
from jobqueue_pg.reaper import Reaper
from jobqueue_pg.store import PostgresStore
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.fixtures.parts import PATIENT, Parts
from tests.fixtures.stores import START, Clock, Connection, add, insert_job, make_job

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)

# The server of these tests may have been started a moment ago, and silence before its start does not count.
DEAD_FOR = timedelta(milliseconds=1)

CLAIMS: LiteralString = """
insert into worker.job (id, type, payload, priority, origin, started_at, worker_alive_at)
select gen_random_uuid(), 't', '1', 0, 'o', now() - n * interval '1 s', now() from generate_series(1, %s) n
"""


@pytest.fixture
def reaper(worker_store: PostgresWorkerStore, monkeypatch: pytest.MonkeyPatch) -> Reaper:
    """The reaper of `worker_store`, which sweeps only as far as it is told to."""
    monkeypatch.setattr(worker_store._reaper._sweep, "_LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(worker_store._reaper._sweep, "_seconds_left", -1.0)
    return worker_store._reaper


@pytest.fixture
def look(worker_store: PostgresWorkerStore, reaper: Reaper) -> Callable[..., set[UUID]]:
    """A look after *sweeping* some claims, or none; returns the jobs that were taken up by it."""

    def look(
        *, sweeping: bool = False, counts: Callable[[datetime], bool] = always_counts, dead_for: timedelta = DEAD_FOR
    ) -> set[UUID]:
        # A part of a sweep is read as long as any time is left, and takes it all.
        reaper._sweep._seconds_left = 0.0 if sweeping else -1.0
        reaper._sweep._rests_until = 0.0
        done = worker_store.make_round(dead_for, 3, if_counts=counts)
        return {rescue.job_id for rescue in done.rescues}

    return look


def claim_of_ours(store: PostgresStore, worker_store: PostgresWorkerStore, lease: timedelta = DEAD_FOR) -> UUID:
    add(store, make_job())
    (job,) = worker_store.claim_jobs(["*"], 1, Claimant(name="dead:1:t", lease=lease))
    return job.id


def claim_of_go(db: Connection, moment: datetime | None) -> UUID:
    return insert_job(db, started_at=moment, worker_alive_at=moment)


def retry_of_an_older_go(db: Connection, moment: datetime | None) -> UUID:
    """Return the id of a job that is stopped while its retry is computed."""
    values = {"stopped_at": moment, "error_msg": "broken", "max_retry_count": 1}
    return insert_job(db, started_at=moment, **values)


# --- by looking at what was claimed since the last look


def test_claims_since_the_last_look(store, worker_store, clock, db, look):
    """Whoever made a claim after the last look, it is found by the next one that comes after it fell silent."""
    look()
    clock.advance(SECOND)
    made = {
        claim_of_ours(store, worker_store),
        claim_of_go(db, clock.moment),
        retry_of_an_older_go(db, clock.moment),
    }
    assert look() == set()
    clock.advance(SECOND)
    assert look() == made


def test_a_claim_that_comes_to_light_within_dead_for(clock, db, look):
    """A claim that was not there yet when a later one was seen is found, if its transaction was shorter than that."""
    dead_for = timedelta(milliseconds=50)
    look(dead_for=dead_for)
    moment = clock.moment + dead_for / 2
    clock.advance(dead_for)
    assert look(dead_for=dead_for) == set()
    late = claim_of_go(db, moment)
    clock.advance(SECOND)
    assert look(dead_for=dead_for) == {late}


def test_a_claim_seen_while_silence_did_not_count(store, worker_store, clock, look):
    """A look that may take nothing away still finds out which claims there are."""
    look()
    job_id = claim_of_ours(store, worker_store)
    for _ in range(3):
        clock.advance(SECOND)
        assert look(counts=lambda _: False) == set()
    assert look() == {job_id}


def test_the_question_is_asked_at_each_look(look, clock):
    """Whether silence counts is asked although nothing is running: the answer depends on when it was asked before."""
    asked: list[datetime] = []
    for _ in range(3):
        look(counts=lambda now: asked.append(now) is None)
        clock.advance(SECOND)
    assert asked == [START, START + SECOND, START + 2 * SECOND]


def test_worker_pools_look_bit_by_bit(worker_store, clock, db, reaper):
    """The maintenance of a pool looks at what is new, and sweeps, but never reads all jobs at once."""
    old = claim_of_go(db, START - HOUR)
    new = claim_of_go(db, START)
    parts = Parts(worker_store)
    parts.maintenance.tick()
    clock.advance(PATIENT + SECOND)
    parts.maintenance.tick()
    assert new in reaper._open
    assert old not in reaper._open


# --- by remembering


def test_a_claim_seen_before(store, worker_store, clock, look):
    """A claim that was seen when it was new is found when its lease has passed, many looks later."""
    look()
    job_id = claim_of_ours(store, worker_store, timedelta(seconds=100))
    for _ in range(4):
        clock.advance(25 * SECOND)
        assert look() == set()
    clock.advance(SECOND)
    assert look() == {job_id}


def test_what_came_to_an_end_is_forgotten(store, worker_store, clock, db, look, reaper):
    """Only claims that are open are remembered: a reaper costs what is running, not what has run."""
    look()
    add(store, *(make_job() for _ in range(5)))
    claimant = Claimant(name="n", lease=HOUR)
    done, failed, again, gone, _ = claims = worker_store.claim_jobs(["*"], 5, claimant)
    beatless = insert_job(db, started_at=clock.moment)
    clock.advance(SECOND)
    assert look() == set()
    assert reaper._open == {claim.id for claim in claims}
    outcomes = [Outcome.finished(done), Outcome.released(again)]
    worker_store.save_outcomes(outcomes)
    store.cancel_jobs([failed.id])
    store.delete_jobs([gone.id])
    assert look() == set()
    assert reaper._open == {claims[-1].id}
    assert beatless not in reaper._open


# --- by sweeping


def test_a_claim_of_a_transaction_that_began_long_ago(clock, db, look):
    """A claim that comes to light after later ones were seen is found by a sweep: of a small table, by each."""
    for _ in range(5):
        look()
        clock.advance(SECOND)
    late = claim_of_go(db, START)
    clock.advance(SECOND)
    assert look() == set()
    assert look(sweeping=True) == {late}


def test_claims_from_before_this_process(clock, db, look):
    """Claims that were made before the first look are found by the sweep that begins with it."""
    old = claim_of_go(db, START - 1000 * HOUR)
    assert look() == set()
    assert look(sweeping=True) == {old}


def test_a_sweep_goes_on_where_it_was(clock, db, look, reaper, monkeypatch):
    """Each look goes through a few claims, the newest first, those of one moment together, and then from the top."""
    monkeypatch.setattr(reaper._sweep, "_CLAIMS_AT_A_TIME", 2)
    look()
    one, two, three, *same, four = (claim_of_go(db, START - hours * HOUR) for hours in (1, 2, 3, 4, 4, 4, 5))
    oldest = insert_job(db, started_at="-infinity", worker_alive_at=START - HOUR)
    found = []
    for _ in range(4):
        look(sweeping=True, counts=lambda _: False)
        found.append(set(reaper._open))
    first, second = {one, two}, {three, *same}
    assert found == [first, first | second, first | second | {four, oldest}, first | second | {four, oldest}]
    newest = claim_of_go(db, START - HOUR)
    assert newest in look(sweeping=True)


def test_sweeps_take_little_of_the_time(db, reaper, monkeypatch):
    """A sweep ends when it has seen all; after the first one, 5 s allow for 25 ms, too little for 1,000 parts."""
    sweep = reaper._sweep
    monkeypatch.setattr(sweep, "_CLAIMS_AT_A_TIME", 1)
    db.execute(CLAIMS, [1000])
    monkeypatch.setattr(sweep, "_seconds_left", 1000.0)
    assert len(sweep.go_on()) == 1000
    assert sweep._seconds_left == 0
    monkeypatch.setattr(sweep, "_LONGEST_PAUSE", 5.0)
    monkeypatch.setattr(sweep, "_rests_until", 0.0)
    sweep._went_on_at -= 1000
    assert 0 < len(sweep.go_on()) < 1000


def test_a_sweep_is_followed_by_a_rest(db, reaper, monkeypatch):
    """After a sweep nothing is read for a minute, and what has passed by then is no time to sweep; then all is."""
    sweep = reaper._sweep
    monkeypatch.setattr(sweep, "_seconds_left", 0.0)
    db.execute(CLAIMS, [1])
    ended_at = time.monotonic()
    assert len(sweep.go_on()) == 1
    assert sweep._rests_until >= ended_at + 60
    monkeypatch.setattr(sweep, "_LONGEST_PAUSE", 1000.0)
    sweep._went_on_at -= 1000
    before = sweep._seconds_left
    assert sweep.go_on() == set()
    assert sweep._seconds_left == before
    sweep._rests_until = time.monotonic()
    sweep._seconds_left = 0.0
    assert len(sweep.go_on()) == 1


def test_a_sweep_that_begins_anew_does_not_rest(db, reaper, monkeypatch):
    """What may have slipped through when the clock leapt is looked for at once."""
    sweep = reaper._sweep
    monkeypatch.setattr(sweep, "_seconds_left", 0.0)
    db.execute(CLAIMS, [1])
    assert len(sweep.go_on()) == 1
    assert not sweep.is_behind
    sweep.begin_anew()
    assert sweep.is_behind
    sweep._seconds_left = 0.0
    assert len(sweep.go_on()) == 1


# --- what else a round tells


def rounds(worker_store: PostgresWorkerStore, reaper: Reaper, *, sweeping: bool = False) -> Round:
    """Make a round with a long dead_for, in which nobody is dead."""
    reaper._sweep._seconds_left = 0.0 if sweeping else -1.0
    return worker_store.make_round(HOUR, 3, kept_for=SECOND)


def test_a_round_is_urgent_until_all_was_looked_at(worker_store, db, reaper, monkeypatch):
    """As long as there are claims of before that nobody has looked at, the next round should come soon."""
    monkeypatch.setattr(reaper._sweep, "_CLAIMS_AT_A_TIME", 2)
    for hours in (2, 3, 4):
        insert_job(db, started_at=START - hours * HOUR, worker_alive_at=START)
    found = [rounds(worker_store, reaper, sweeping=sweeping).is_urgent for sweeping in (False, True, True, False)]
    assert found == [True, True, False, False]


def test_silence_is_judged_by_the_look(store, worker_store, clock, look):
    """A process that was frozen between its look and its work judges by the look, by which nobody was silent."""
    look()
    job_id = claim_of_ours(store, worker_store)
    clock.advance(DEAD_FOR)

    def freeze(_: datetime) -> bool:
        clock.advance(HOUR)
        return True

    assert look(sweeping=True, counts=freeze) == set()
    assert look() == {job_id}


def test_a_round_is_refused_where_nothing_can_be_written(queue):
    """A server that takes no writes is none to be in contact with, though a round that finds nothing writes nothing."""
    with (
        closing(PostgresStore(make_conninfo(queue, options="-c default_transaction_read_only=on"))) as store,
        closing(store.for_workers()) as workers,
        pytest.raises(UnavailableError),
    ):
        workers.make_round(HOUR, 3)


# --- when the clock leaps


def test_a_clock_that_is_set_back(store, worker_store, clock, look):
    """Claims that are made after the clock was set back are found as all others are."""
    look()
    clock.advance(-HOUR)
    look()
    job_id = claim_of_ours(store, worker_store)
    clock.advance(SECOND)
    assert look() == {job_id}


@pytest.mark.parametrize("leap", [-HOUR, timedelta(minutes=2)])
def test_after_a_leap_all_claims_are_looked_at(clock: Clock, db, look, reaper, monkeypatch, leap):
    """After a leap, and after a long time without a look, the sweep begins at the top, and is in a hurry again."""
    monkeypatch.setattr(reaper._sweep, "_CLAIMS_AT_A_TIME", 1)
    look()
    for hours in (2, 3, 4):
        insert_job(db, started_at=START - hours * HOUR, stopped_at=START)
    assert look(sweeping=True) == set()
    assert look() == set()
    meanwhile = claim_of_go(db, clock.advance(leap) - timedelta(seconds=90))
    assert look() == set()
    assert reaper._sweep._share == reaper._sweep._FIRST_SHARE
    assert look(sweeping=True) == {meanwhile}
