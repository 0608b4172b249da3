"""Workers claim due jobs: which ones, in which order, each once, and at what cost."""

import random
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue import LockTimeoutError, RefusedError
from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Outcome, RunError
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import (
    CLAIMANT,
    START,
    Clock,
    Connection,
    add,
    claim,
    claim_one,
    insert_job,
    make_bundle,
    make_job,
    row_of,
)

SECOND = timedelta(seconds=1)


def payloads(jobs: Sequence[Job]) -> list[Any]:
    return [job.payload for job in jobs]


# --- order


def test_order(store: PostgresStore, worker_store: WorkerStore) -> None:
    """Claims go by priority, then by when the job was due, then by id."""
    add(
        store,
        make_job(payload="third", priority=1, start_at=START - SECOND),
        make_job(payload="fourth", priority=1),
        make_job(payload="fifth", priority=1),
        make_job(payload="second", priority=1, start_at=START - 2 * SECOND),
        make_job(payload="last", priority=-1, start_at=START - 9 * SECOND),
        make_job(payload="first", priority=2),
    )
    expected = ["first", "second", "third", "fourth", "fifth", "last"]
    assert [claim_one(worker_store).payload for _ in expected] == expected
    assert claim(worker_store) == []


def test_a_batch_is_in_order(store: PostgresStore, worker_store: WorkerStore) -> None:
    """What is claimed at once comes in the order in which it is to be run, over priorities and types."""
    jobs = [
        make_job(type, (priority, -number), priority=priority)
        for number, (type, priority) in enumerate([("a", 0), ("b", 5), ("a", 5), ("c", -3), ("b", 0), ("c", 5)])
    ]
    add(store, *random.sample(jobs, len(jobs)))
    claimed = claim(worker_store, 10)
    assert [job.priority for job in claimed] == [5, 5, 5, 0, 0, -3]
    assert payloads(claimed) == sorted(payloads(claimed), key=lambda payload: (-payload[0], -payload[1]))


def test_a_batch_is_filled_over_levels(store: PostgresStore, worker_store: WorkerStore) -> None:
    """A batch does not end with the jobs of one type or priority, and takes the best of those that there are."""
    add(store, *(make_job(f"t{number % 3}", number, priority=number // 4) for number in range(40)))
    first = claim(worker_store, 15)
    assert [job.priority for job in first] == [9] * 4 + [8] * 4 + [7] * 4 + [6] * 3
    rest = claim(worker_store, 100)
    assert [job.priority for job in rest[:5]] == [6, 5, 5, 5, 5]
    assert sorted(payloads(first + rest)) == list(range(40))


def test_oldest_type_first_within_a_priority(store: PostgresStore, worker_store: WorkerStore) -> None:
    """One by one, jobs of several types come in the order in which they were due."""
    add(store, *(make_job(f"t{number % 5}", number, start_at=START - (50 - number) * SECOND) for number in range(50)))
    assert [claim_one(worker_store).payload for _ in range(50)] == list(range(50))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    jobs=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.sampled_from([None, -5, -1, 1, 9])), max_size=25
    ),
    types=st.lists(st.sampled_from(["a", "b", "a*", "*", "x"]), min_size=1, max_size=3),
    limit=st.integers(1, 10),
)
def test_any_queue_is_claimed_in_order(
    store: PostgresStore,
    worker_store: WorkerStore,
    db: Connection,
    jobs: list[tuple[str, int, int | None]],
    types: list[str],
    limit: int,
) -> None:
    """Whatever waits, claims take what is due of the types wanted: each once, by priority, in full batches."""
    db.execute("delete from worker.job")
    made = [
        make_job(type, priority=priority, start_at=None if due is None else START + due * SECOND)
        for type, priority, due in jobs
    ]
    if made:
        add(store, *made)
    wanted = [
        job
        for job in made
        if (job.start_at is None or job.start_at <= START)
        and any(job.type == type or (type.endswith("*") and job.type.startswith(type[:-1])) for type in types)
    ]
    got: list[Job] = []
    while batch := claim(worker_store, limit, types):
        assert len(batch) == min(limit, len(wanted) - len(got))
        got += batch
    assert len(got) == len(wanted)
    assert set(got) == set(wanted)
    assert [job.priority for job in got] == sorted((job.priority for job in wanted), reverse=True)
    if limit == 1:
        due = [(-job.priority, job.start_at or START, job.id) for job in got]
        assert due == sorted(due)


# --- types


@pytest.mark.parametrize(
    ("types", "found"),
    [
        (["report"], {"report"}),
        (["report:*"], {"report:a", "report:b", "report:%", "report:é"}),
        (["report:a", "report:*"], {"report:a", "report:b", "report:%", "report:é"}),
        (["report:*", "mail", "nothing"], {"report:a", "report:b", "report:%", "report:é", "mail"}),
        (["%"], {"%"}),
        (["_"], {"_"}),
        (["%*"], {"%"}),
        (["\\*"], {"\\x"}),
        (["REPORT"], set()),
        (["rep"], set()),
        (["reports*"], set()),
        (["é*"], {"élan"}),
        (["\U0010ffff*"], {"\U0010ffffx"}),
        (["nothing*"], set()),
        ([], set()),
    ],
)
def test_types(store: PostgresStore, worker_store: WorkerStore, types: list[str], found: set[str]) -> None:
    """A name means that type alone, with its case; a prefix all types that begin so; no character has a meaning."""
    all_types = [
        *("report", "report:a", "report:b", "report:%", "report:é", "mail", "%", "_", "\\x", "x", "élan", "e"),
        "\U0010ffffx",
    ]
    add(store, *(make_job(type) for type in all_types))
    assert {job.type for job in claim(worker_store, 100, types)} == found
    assert {job.type for job in claim(worker_store, 100)} == set(all_types) - found


def test_star_is_every_type(store: PostgresStore, worker_store: WorkerStore) -> None:
    """``*`` takes jobs of every type, each once, whatever else is wanted beside it."""
    jobs = add(store, *(make_job(f"t{number}") for number in range(30)))
    assert set(claim(worker_store, 100, ["*", "t1", "t*", "t1*", "t1"])) == set(jobs)


def test_very_many_types(store: PostgresStore, worker_store: WorkerStore) -> None:
    """A hundred types at ten priorities are taken in order, in batches that are full."""
    add(store, *(make_job(f"t{number % 100}", number, priority=number // 100) for number in range(1000)))
    types = [f"t{number}" for number in range(100)]
    order = [payload // 100 for _ in range(10) for payload in payloads(claim(worker_store, 100, types))]
    assert order == [priority for priority in range(9, -1, -1) for _ in range(100)]


# --- when


def test_future_jobs(store: PostgresStore, worker_store: WorkerStore, clock: Clock) -> None:
    """A job is claimed when its time has come by the database's clock, to the microsecond, and not before."""
    add(store, make_job(payload="later", priority=9, start_at=START + SECOND), make_job(payload="now"))
    assert payloads(claim(worker_store, 10)) == ["now"]
    clock.advance(SECOND - timedelta(microseconds=1))
    assert claim(worker_store, 10) == []
    clock.advance(timedelta(microseconds=1))
    assert payloads(claim(worker_store, 10)) == ["later"]


@pytest.mark.parametrize(
    ("due", "types", "expected"),
    [
        ([], ["*"], None),
        ([7], ["*"], 7),
        ([90, 30, 60], ["t"], 30),
        ([30], ["other"], None),
        ([30], ["o*", "t"], 30),
        ([3e11], ["*"], 3e11),
    ],
)
def test_next_due_in(
    store: PostgresStore, worker_store: WorkerStore, due: list[float], types: list[str], expected: float | None
) -> None:
    """A claim that finds too little says how long until the next job of its types is due, whatever its priority."""
    store.add_jobs(
        [
            make_job(
                priority=number, start_at=min(START + timedelta(seconds=min(s, 2e11)), datetime.max.replace(tzinfo=UTC))
            )
            for number, s in enumerate(due)
        ]
    )
    trip = worker_store.make_trip([], types, 5, CLAIMANT)
    assert trip.claimed == ()
    if expected is None:
        assert trip.next_due_in is None
    else:
        assert trip.next_due_in == timedelta(seconds=min(expected, 2e11))


def test_next_due_is_not_asked_of_a_full_batch(store: PostgresStore, worker_store: WorkerStore) -> None:
    """A trip that brought all that was asked for says nothing of later jobs."""
    add(store, make_job(), make_job(start_at=START + SECOND))
    assert worker_store.make_trip([], ["*"], 1, CLAIMANT).next_due_in is None
    assert worker_store.make_trip([], ["*"], 1, CLAIMANT).next_due_in == SECOND


@pytest.mark.parametrize("moment", ["infinity", "294276-12-31 23:59:59Z", "10000-01-01 00:00:00Z"])
def test_a_job_that_is_never_due_stops_nobody(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, moment: str
) -> None:
    """A start time beyond the calendar, which another program wrote, leaves all other jobs claimable."""
    insert_job(db, start_at=moment, priority=99)
    insert_job(db, created_at=moment, priority=99)
    trip = worker_store.make_trip([], ["*"], 5, CLAIMANT)
    assert trip.claimed == ()
    assert trip.next_due_in is None or trip.next_due_in > timedelta(days=365_000)
    (job,) = add(store, make_job(start_at=START + SECOND))
    assert worker_store.make_trip([], ["*"], 5, CLAIMANT).next_due_in == SECOND
    (job,) = add(store, make_job())
    assert claim(worker_store, 5) == [job]


@pytest.mark.parametrize("moment", ["-infinity", "4713-01-01 00:00:00Z BC", "0001-01-01 00:00:00Z"])
def test_a_job_that_was_always_due(worker_store: WorkerStore, db: Connection, moment: str) -> None:
    """A start time before the calendar is due, and can be claimed and finished."""
    ids = {insert_job(db, start_at=moment), insert_job(db, created_at=moment)}
    claimed = claim(worker_store, 5)
    assert {job.id for job in claimed} == ids
    assert worker_store.save_outcomes([Outcome.finished(job) for job in claimed]) == ids


# --- locks


def test_a_locked_head_blocks_nobody(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """A row that somebody has locked is passed over: neither its own nor any other type or priority waits for it."""
    locked, *others = add(
        store,
        make_job("a", priority=9),
        make_job("a", priority=9),
        make_job("b", priority=9),
        make_job("a", priority=1),
        make_job("c", priority=0),
    )
    with db.transaction():
        db.execute("select from worker.job where id = %s for update", [locked.id])
        assert set(claim(worker_store, 10)) == set(others)
    assert claim(worker_store, 10) == [locked]


def test_locked_levels_are_passed_over(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """When all jobs of the highest priorities are locked, the next ones are claimed."""
    jobs = add(store, *(make_job(f"t{number % 2}", priority=-number) for number in range(10)))
    with db.transaction():
        db.execute("select from worker.job where priority > -9 for update")
        assert claim(worker_store, 3) == [jobs[-1]]


def test_a_locked_bundle_blocks_no_claim(
    store: PostgresStore, worker_store: WorkerStore, service: QueueService, db: Connection
) -> None:
    """Members can be claimed while somebody holds the row of their bundle."""
    bundle = service.add_bundle(make_bundle(3))
    with db.transaction():
        db.execute("select from worker.job_bundle for update")
        assert set(claim(worker_store, 10)) == set(bundle.jobs)


def test_no_job_is_claimed_twice(service: QueueService) -> None:
    """Eight threads on two pools that claim batches of all sizes get every job once."""
    jobs = service.add_jobs([make_job(f"t{number % 7}", priority=number % 3) for number in range(2000)])
    claimed: list[Job] = []
    pools = [service.store.for_workers() for _ in range(4)]

    def work(pool: WorkerStore, size: int) -> None:
        while got := pool.claim_jobs(["*"], size, CLAIMANT):
            claimed.extend(got)

    threads = [
        threading.Thread(target=work, args=(pools[n % 4], size)) for n, size in enumerate([1, 2, 5, 10, 20, 50, 7, 3])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pool in pools:
        pool.close()
    assert len(claimed) == len(jobs)
    assert set(claimed) == set(jobs)


# --- what a claim writes


def test_a_claim(store: PostgresStore, worker_store: WorkerStore, clock: Clock, db: Connection) -> None:
    """A claim sets what makes its fence, its lease and its claimant; the job that it returns is the row."""
    (added,) = add(store, make_job(payload={"a": 1}, max_retry_count=3))
    now = clock.advance(SECOND)
    claimant = Claimant(name="host:1:thread-é", lease=timedelta(seconds=90, microseconds=1))
    (job,) = worker_store.claim_jobs(["t"], 1, claimant)
    row = row_of(db, job.id)
    assert job == added
    assert (row["started_at"], row["worker_alive_at"], row["updated_at"], row["created_at"]) == (now, now, now, START)
    assert (row["lease"], row["claimed_by"]) == (claimant.lease, claimant.name)
    assert row["claim_id"] is not None
    for name in ("id", "started_at", "claim_id", "claimed_by", "worker_alive_at", "updated_at", "created_at", "origin"):
        assert getattr(job, name) == row[name]
    assert (job.run_count, job.rescue_count, job.current_retry_count, job.max_retry_count) == (0, 0, 0, 3)
    assert (job.payload, job.result, job.error_msg, job.attempt_errors, job.progress) == (
        {"a": 1},
        None,
        None,
        (),
        None,
    )


def test_a_claim_without_beats(store: PostgresStore, worker_store: WorkerStore) -> None:
    """A worker that does not beat leaves worker_alive_at empty, so that no reaper takes its job."""
    add(store, make_job())
    (job,) = worker_store.claim_jobs(["*"], 1, Claimant(name="n", lease=SECOND, beats=False))
    assert job.worker_alive_at is None


def test_claims_differ(store: PostgresStore, worker_store: WorkerStore) -> None:
    """Two claims of one job at the same moment have different fences."""
    add(store, make_job())
    first = claim_one(worker_store)
    worker_store.save_outcomes([Outcome.released(first)])
    second = claim_one(worker_store)
    assert first.started_at == second.started_at
    assert first.claim_id != second.claim_id


def test_a_row_that_stopped_without_starting(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """A row with stopped_at but no started_at, as a late result of Go's leaves it, is not run until it is reset."""
    id = insert_job(db, stopped_at="2001-01-01 00:00:00Z")
    assert claim(worker_store, 1) == []
    store.reset_jobs([id])
    assert claim_one(worker_store).id == id


@pytest.mark.parametrize("payload", ["9" * 5000, "1e5000", "[" * 3000 + "]" * 3000])
def test_one_odd_row_spoils_no_batch(
    store: PostgresStore, worker_store: WorkerStore, db: Connection, payload: str
) -> None:
    """A payload that Python cannot hold is claimed with the others, and fails only where it is looked at."""
    odd = insert_job(db, payload=payload)
    jobs = add(store, make_job(), make_job())
    claimed = claim(worker_store, 10)
    assert {job.id for job in claimed} == {odd, *(job.id for job in jobs)}


def test_nothing_asked_for(store: PostgresStore, worker_store: WorkerStore) -> None:
    """Without types, or for no jobs, nothing is claimed."""
    add(store, make_job())
    assert claim(worker_store, 5, []) == []
    assert claim(worker_store, 0) == []
    assert claim(worker_store, -1) == []
    assert worker_store.make_trip([], [], 5, CLAIMANT).next_due_in is None


# --- trips


def test_a_trip_saves_and_claims(store: PostgresStore, worker_store: WorkerStore) -> None:
    """One trip carries outcomes out and jobs in; what it saves as waiting it does not claim itself."""
    add(store, *(make_job(payload=number) for number in range(5)))
    first, second, third = claim(worker_store, 3)
    trip = worker_store.make_trip(
        [Outcome.finished(first, "1"), Outcome.released(second), Outcome.retry(third, RunError(message="no"))],
        ["*"],
        10,
        CLAIMANT,
    )
    assert trip.saved == {first.id, second.id, third.id}
    assert payloads(trip.claimed) == [3, 4]
    assert payloads(claim(worker_store, 10)) == [1, 2]


def test_a_trip_with_a_lost_claim(store: PostgresStore, worker_store: WorkerStore) -> None:
    """An outcome that comes too late is not among the saved, and keeps nothing else of the trip back."""
    add(store, *(make_job(payload=number) for number in range(3)))
    lost, kept = claim(worker_store, 2)
    store.reset_jobs([lost.id])
    trip = worker_store.make_trip([Outcome.finished(lost), Outcome.finished(kept)], ["*"], 1, CLAIMANT)
    assert trip.saved == {kept.id}
    assert payloads(trip.claimed) == [0]


def test_a_trip_of_outcomes_alone(store: PostgresStore, worker_store: WorkerStore) -> None:
    """A trip that asks for nothing saves, and claims nothing."""
    add(store, make_job(), make_job())
    job = claim_one(worker_store)
    trip = worker_store.make_trip([Outcome.finished(job)], [], 5, CLAIMANT)
    assert (trip.saved, trip.claimed) == ({job.id}, ())
    assert worker_store.make_trip([], [], 0, CLAIMANT).saved == frozenset()


def test_a_trip_is_one_transaction(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """When an outcome is refused, the whole trip is: nothing saved, nothing claimed."""
    add(store, *(make_job() for _ in range(3)))
    good, bad = claim(worker_store, 2)
    with pytest.raises(RefusedError):
        worker_store.make_trip([Outcome.finished(good), Outcome.finished(bad, r'"\u0000"')], ["*"], 5, CLAIMANT)
    assert row_of(db, good.id)["stopped_at"] is None
    assert len(claim(worker_store, 5)) == 1


def test_a_trip_waits_for_no_lock_long(store: PostgresStore, worker_store: WorkerStore, db: Connection) -> None:
    """An outcome whose row is locked ends the trip with a LockTimeoutError after two seconds."""
    add(store, make_job())
    job = claim_one(worker_store)
    with db.transaction():
        db.execute("select from worker.job for update")
        with pytest.raises(LockTimeoutError) as caught:
            worker_store.save_outcomes([Outcome.finished(job)])
    assert isinstance(caught.value.__cause__, psycopg.errors.LockNotAvailable)
    assert worker_store.save_outcomes([Outcome.finished(job)]) == {job.id}
