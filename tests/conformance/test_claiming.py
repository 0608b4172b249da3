"""Workers claim due jobs: which ones, in which order, and what a claim is."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue import Job, JobDesc
from jobqueue.outcomes import Claimant, Outcome
from tests.conformance.acts import ERROR, FUTURE, HOUR, SECOND
from tests.fixtures.backends import Backend
from tests.fixtures.stores import CLAIMANT, START, make_job


def payloads(jobs: Sequence[Job]) -> list[Any]:
    return [job.payload for job in jobs]


# --- order


def test_order(backend: Backend) -> None:
    """Claims go by priority, then by when the job was due, then by id."""
    backend.add(
        make_job(payload="third", priority=1, start_at=START - SECOND),
        make_job(payload="fourth", priority=1),
        make_job(payload="fifth", priority=1),
        make_job(payload="second", priority=1, start_at=START - 2 * SECOND),
        make_job(payload="last", priority=-1, start_at=START - 9 * SECOND),
        make_job(payload="first", priority=2),
    )
    expected = ["first", "second", "third", "fourth", "fifth", "last"]
    assert [backend.claim_one().payload for _ in expected] == expected
    assert backend.claim() == []


def test_older_jobs_first(backend: Backend) -> None:
    """Of jobs without a start time, those that were added earlier come first, whatever their ids."""
    new, old = make_job(payload="new"), make_job(payload="old")
    backend.add(old)
    backend.clock.advance(SECOND)
    backend.add(new)
    assert payloads(backend.claim(2)) == ["old", "new"]


def test_members_of_a_bundle_in_their_order(backend: Backend) -> None:
    """Jobs that were added at one moment are claimed in the order in which they were described."""
    backend.add_bundle(30)
    assert [backend.claim_one().payload for _ in range(3)] == [0, 1, 2]
    assert payloads(backend.claim(30)) == list(range(3, 30))


def test_a_batch_is_in_order(backend: Backend) -> None:
    """What is claimed at once comes in the order in which it is to be run, over priorities and types."""
    jobs = [
        make_job(type, (priority, -number), priority=priority)
        for number, (type, priority) in enumerate([("a", 0), ("b", 5), ("a", 5), ("c", -3), ("b", 0), ("c", 5)])
    ]
    backend.add(*random.sample(jobs, len(jobs)))
    claimed = backend.claim(10)
    assert [job.priority for job in claimed] == [5, 5, 5, 0, 0, -3]
    assert payloads(claimed) == sorted(payloads(claimed), key=lambda payload: (-payload[0], -payload[1]))


def test_a_batch_is_filled_over_levels(backend: Backend) -> None:
    """A batch does not end with the jobs of one type or priority, and takes the best of those that there are."""
    backend.add(*(make_job(f"t{number % 3}", number, priority=number // 4) for number in range(40)))
    first = backend.claim(15)
    assert [job.priority for job in first] == [9] * 4 + [8] * 4 + [7] * 4 + [6] * 3
    rest = backend.claim(100)
    assert [job.priority for job in rest[:5]] == [6, 5, 5, 5, 5]
    assert sorted(payloads(first + rest)) == list(range(40))


def test_oldest_type_first_within_a_priority(backend: Backend) -> None:
    """One by one, jobs of several types come in the order in which they were due."""
    backend.add(*(make_job(f"t{number % 5}", number, start_at=START - (50 - number) * SECOND) for number in range(50)))
    assert [backend.claim_one().payload for _ in range(50)] == list(range(50))


def test_very_many_types(backend: Backend) -> None:
    """A hundred types at ten priorities are taken in order, in batches that are full."""
    backend.add(*(make_job(f"t{number % 100}", number, priority=number // 100) for number in range(1000)))
    types = [f"t{number}" for number in range(100)]
    order = [payload // 100 for _ in range(10) for payload in payloads(backend.claim(100, types))]
    assert order == [priority for priority in range(9, -1, -1) for _ in range(100)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    jobs=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.sampled_from([None, -5, -1, 1, 9])), max_size=25
    ),
    types=st.lists(st.sampled_from(["a", "b", "a*", "*", "x"]), min_size=1, max_size=3),
    limit=st.integers(1, 10),
)
def test_any_queue_is_claimed_in_order(
    backend: Backend, jobs: list[tuple[str, int, int | None]], types: list[str], limit: int
) -> None:
    """Whatever waits, claims take what is due of the types wanted: each once, by priority, in full batches."""
    backend.store.delete_all_jobs_and_bundles()
    made = backend.add(
        *(
            make_job(type, priority=priority, start_at=None if due is None else START + due * SECOND)
            for type, priority, due in jobs
        )
    )
    wanted = [
        job
        for job in made
        if (job.start_at is None or job.start_at <= START)
        and any(job.type == type or (type.endswith("*") and job.type.startswith(type[:-1])) for type in types)
    ]
    got: list[Job] = []
    while batch := backend.claim(limit, types):
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
def test_types(backend: Backend, types: list[str], found: set[str]) -> None:
    """A name means that type alone, with its case; a prefix all types that begin so; no character has a meaning."""
    all_types = [
        *("report", "report:a", "report:b", "report:%", "report:é", "mail", "%", "_", "\\x", "x", "élan", "e"),
        "\U0010ffffx",
    ]
    backend.add(*(make_job(type) for type in all_types))
    assert {job.type for job in backend.claim(100, types)} == found
    assert {job.type for job in backend.claim(100)} == set(all_types) - found


def test_star_is_every_type(backend: Backend) -> None:
    """``*`` takes jobs of every type, each once, whatever else is wanted beside it."""
    jobs = backend.add(*(make_job(f"t{number}") for number in range(30)))
    assert set(backend.claim(100, ["*", "t1", "t*", "t1*", "t1"])) == set(jobs)


# --- when


def test_future_jobs(backend: Backend) -> None:
    """A job is claimed when its time has come by the clock of the queue, to the microsecond, and not before."""
    backend.add(make_job(payload="later", priority=9, start_at=START + SECOND), make_job(payload="now"))
    assert payloads(backend.claim(10)) == ["now"]
    backend.clock.advance(SECOND - timedelta(microseconds=1))
    assert backend.claim(10) == []
    backend.clock.advance(timedelta(microseconds=1))
    assert payloads(backend.claim(10)) == ["later"]


@pytest.mark.parametrize(
    ("due", "types", "expected"),
    [
        ([], ["*"], None),
        ([7 * SECOND], ["*"], 7 * SECOND),
        ([90 * SECOND, 30 * SECOND, 60 * SECOND], ["t"], 30 * SECOND),
        ([30 * SECOND], ["other"], None),
        ([30 * SECOND], ["o*", "t"], 30 * SECOND),
        ([timedelta(days=2_000_000)], ["*"], timedelta(days=2_000_000)),
    ],
)
def test_next_due_in(backend: Backend, due: list[timedelta], types: list[str], expected: timedelta | None) -> None:
    """A claim that finds too little says how long until the next job of its types is due, whatever its priority."""
    backend.add(*(make_job(priority=number, start_at=START + delay) for number, delay in enumerate(due)))
    trip = backend.worker_store.make_trip([], types, 5, CLAIMANT)
    assert (trip.claimed, trip.next_due_in) == ((), expected)


def test_next_due_is_not_asked_of_a_full_batch(backend: Backend) -> None:
    """A trip that brought all that was asked for says nothing of later jobs."""
    backend.add(make_job(), make_job(start_at=START + SECOND))
    assert backend.worker_store.make_trip([], ["*"], 1, CLAIMANT).next_due_in is None
    assert backend.worker_store.make_trip([], ["*"], 1, CLAIMANT).next_due_in == SECOND


def test_what_cannot_be_claimed(backend: Backend) -> None:
    """What runs, has stopped or was cancelled is not claimed, nor waited for."""
    running, done, cancelled, waiting_cancelled, later_cancelled = backend.add(
        *(make_job(priority=-number) for number in range(4)), make_job(start_at=FUTURE)
    )
    assert backend.claim(3) == [running, done, cancelled]
    backend.save(Outcome.finished(backend.read(done)))
    backend.store.cancel_jobs([cancelled.id, waiting_cancelled.id, later_cancelled.id])
    trip = backend.worker_store.make_trip([], ["*"], 9, CLAIMANT)
    assert (trip.claimed, trip.next_due_in) == ((), None)


# --- what a claim is


def test_a_claim(backend: Backend) -> None:
    """A claim sets what makes its fence and its claimant; the job that it returns is the one that is read then."""
    (added,) = backend.add(make_job(payload={"a": 1}, max_retry_count=3))
    before = backend.shown(added)
    now = backend.clock.advance(SECOND)
    job = backend.claim_one(claimant=Claimant(name="host:1:thread-é", lease=90 * SECOND))
    assert job == added
    assert job.claim_id is not None
    moments = dict.fromkeys(("started_at", "worker_alive_at", "updated_at"), now)
    shown = backend.shown(job)
    assert shown == {**before, **moments, "claim_id": job.claim_id, "claimed_by": "host:1:thread-é"}
    assert {name: getattr(job, name) for name in shown} == shown


def test_a_claim_without_beats(backend: Backend) -> None:
    """A worker that does not beat leaves worker_alive_at empty."""
    backend.add(make_job())
    claimed = backend.claim_one(claimant=Claimant(name="n", lease=SECOND, beats=False))
    for job in (claimed, backend.read(claimed)):
        assert (job.worker_alive_at, job.started_at) == (None, START)


def test_a_claimed_job_is_as_its_row(backend: Backend) -> None:
    """What a claim brings is what whoever reads the job sees."""
    backend.add(make_job(max_retry_count=1))
    backend.save(Outcome.retry(backend.claim_one(), ERROR, delay=timedelta(0)))
    claimed = backend.claim_one()
    assert attrs.asdict(claimed) == attrs.asdict(backend.read(claimed))


def test_claims_differ(backend: Backend) -> None:
    """Two claims of one job at the same moment have different fences."""
    backend.add(make_job())
    first = backend.claim_one()
    backend.save(Outcome.released(first))
    second = backend.claim_one()
    assert first.started_at == second.started_at
    assert first.fence != second.fence


def test_every_worker_store_claims_the_same_jobs(backend: Backend) -> None:
    """What one pool has claimed, another one does not get; what it gives back, another one may have."""
    first, second = backend.add(make_job(), make_job())
    other = backend.more_workers()
    job = backend.claim_one()
    assert other.claim_jobs(["*"], 9, CLAIMANT) == (second,)
    backend.save(Outcome.released(job))
    assert other.claim_jobs(["*"], 9, CLAIMANT) == (first,)


def test_nothing_asked_for(backend: Backend) -> None:
    """Without types, or for no jobs, nothing is claimed."""
    backend.add(make_job())
    assert backend.claim(5, []) == []
    assert backend.claim(0) == []
    assert backend.claim(-1) == []
    assert backend.worker_store.make_trip([], [], 5, CLAIMANT).next_due_in is None


# --- trips


def test_a_trip_saves_and_claims(backend: Backend) -> None:
    """One trip carries outcomes out and jobs in; what it saves as waiting it does not claim itself."""
    backend.add(*(make_job(payload=number) for number in range(5)))
    first, second, third = backend.claim(3)
    outcomes = [Outcome.finished(first, "1"), Outcome.released(second), Outcome.retry(third, ERROR)]
    trip = backend.worker_store.make_trip(outcomes, ["*"], 10, CLAIMANT)
    assert trip.saved == {first.id, second.id, third.id}
    assert payloads(trip.claimed) == [3, 4]
    assert payloads(backend.claim(10)) == [1, 2]


def test_a_trip_does_not_claim_the_job_for_the_end(backend: Backend) -> None:
    """A job that the outcomes of a trip bring about is there for the next one."""
    backend.add_bundle(1, on_stopped=JobDesc("after", type="after"))
    outcome = Outcome.finished(backend.claim_one())
    assert backend.worker_store.make_trip([outcome], ["*"], 10, CLAIMANT).claimed == ()
    assert payloads(backend.claim(10)) == ["after"]


def test_a_trip_with_a_lost_claim(backend: Backend) -> None:
    """An outcome that comes too late is not among the saved, and keeps nothing else of the trip back."""
    backend.add(*(make_job(payload=number) for number in range(3)))
    lost, kept = backend.claim(2)
    backend.store.reset_jobs([lost.id])
    trip = backend.worker_store.make_trip([Outcome.finished(lost), Outcome.finished(kept)], ["*"], 1, CLAIMANT)
    assert trip.saved == {kept.id}
    assert payloads(trip.claimed) == [0]


@pytest.mark.parametrize(("types", "limit"), [([], 5), (["*"], 0)])
def test_a_trip_of_outcomes_alone(backend: Backend, types: list[str], limit: int) -> None:
    """A trip that asks for nothing saves, and claims nothing."""
    backend.add(make_job(), make_job())
    job = backend.claim_one()
    trip = backend.worker_store.make_trip([Outcome.finished(job)], types, limit, CLAIMANT)
    assert (trip.saved, trip.claimed) == ({job.id}, ())
    assert backend.worker_store.make_trip([], types, limit, CLAIMANT).saved == frozenset()


def test_a_released_job_keeps_its_place(backend: Backend) -> None:
    """A job that was given back comes before those that were due after it."""
    backend.add(*(make_job(payload=number) for number in range(3)))
    backend.save(Outcome.released(backend.claim_one()))
    assert payloads(backend.claim(3)) == [0, 1, 2]


def test_a_retry_goes_by_its_new_moment(backend: Backend) -> None:
    """A job that is retried is due when its retry is, after those that were due before that."""
    backend.add(make_job(payload="retried", max_retry_count=1))
    backend.save(Outcome.retry(backend.claim_one(), ERROR, delay=HOUR))
    backend.clock.advance(HOUR - SECOND)
    backend.add(make_job(payload="fresh"))
    backend.clock.advance(2 * SECOND)
    assert payloads(backend.claim(2)) == ["fresh", "retried"]
