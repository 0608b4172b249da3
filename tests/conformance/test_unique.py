"""Unique keys: who holds one, until when, and what becomes of those who want it meanwhile."""

from datetime import timedelta
from typing import Any, Final

import attrs
import pytest

from jobqueue import DuplicateJobError, Job
from jobqueue.events import JobAvailable
from tests.conformance.acts import (
    FATES,
    HOUR,
    SECOND,
    Act,
    cancelled,
    discarded,
    failed,
    given_up,
    succeeded,
    with_fate,
)
from tests.fixtures.backends import Backend
from tests.fixtures.stores import make_job

SCOPES: Final[list[Any]] = ["waiting", "waiting_and_running", "until_succeeded", HOUR]

ENDS: Final[dict[Any, set[Act]]] = {
    "waiting": set(FATES),
    "waiting_and_running": {succeeded, failed, discarded, cancelled, given_up},
    "until_succeeded": {succeeded, discarded, cancelled},
    HOUR: set(),
}
"""After what a job that was claimed holds its key no longer."""


def make(key: str = "k", unique_for: Any = "waiting_and_running", **values: Any) -> Job:
    return make_job(unique_key=key, unique_for=unique_for, **values)


def add(backend: Backend, job: Job, **how: Any) -> Job:
    return backend.store.add_job(job, delay=None, **how)


def is_free(backend: Backend, key: str = "k") -> bool:
    """Return whether a job could take the key; none does."""
    other = make(key)
    is_duplicate = add(backend, other).is_duplicate
    backend.store.delete_jobs([other.id])
    return not is_duplicate


def keys(backend: Backend, job: Job) -> tuple[str | None, str | None]:
    now = backend.read(job)
    return now.unique_key, now.unique_key_spent


# --- until when a key is held


@pytest.mark.parametrize("unique_for", SCOPES)
@pytest.mark.parametrize("fate", FATES)
def test_how_long_a_claimed_job_holds_its_key(backend: Backend, fate: Act, unique_for: Any) -> None:
    """Whatever becomes of a job that was claimed, its key is free when the scope says so, and not before."""
    job = with_fate(backend, fate, unique_key="k", unique_for=unique_for)
    ended = fate in ENDS[unique_for]
    assert keys(backend, job) == ((None, "k") if ended else ("k", None))
    assert is_free(backend) == ended


@pytest.mark.parametrize("unique_for", SCOPES)
def test_a_waiting_job_holds_its_key(backend: Backend, unique_for: Any) -> None:
    """As long as a job waits, whenever it is due, its key is held; it says so itself, and for how long."""
    job = make(unique_for=unique_for)
    backend.store.add_job(job, delay=HOUR)
    assert backend.store.reschedule_job(job.id, None)
    assert not is_free(backend)
    read = backend.read(job)
    until = backend.clock.moment + HOUR if unique_for == HOUR and backend.clock.moment else None
    assert (read.unique_key, read.unique_for, read.unique_until) == ("k", unique_for, until)


@pytest.mark.parametrize("unique_for", SCOPES)
def test_a_waiting_job_that_is_cancelled_gives_up_its_key(backend: Backend, unique_for: Any) -> None:
    """Cancelling ends every scope but a period, which lasts whatever becomes of the job."""
    job = add(backend, make(unique_for=unique_for))
    backend.store.cancel_jobs([job.id])
    assert is_free(backend) == (unique_for != HOUR)


@pytest.mark.parametrize("unique_for", SCOPES)
def test_a_deleted_job_gives_up_its_key(backend: Backend, unique_for: Any) -> None:
    """What is not there holds nothing."""
    job = add(backend, make(unique_for=unique_for))
    backend.store.delete_jobs([job.id])
    assert is_free(backend)


def test_a_period_ends(backend: Backend) -> None:
    """A period ends on its last moment; who wants the key next has it, and the other one's is spent."""
    job = with_fate(backend, succeeded, unique_key="k", unique_for=HOUR)  # a second passes
    backend.clock.advance(HOUR - SECOND - timedelta(microseconds=1))
    assert not is_free(backend)
    backend.clock.advance(timedelta(microseconds=1))
    other = add(backend, make())
    assert not other.is_duplicate
    assert (keys(backend, job), keys(backend, other)) == ((None, "k"), ("k", None))


def test_a_job_that_runs_goes_on_without_a_key_for_waiting(backend: Backend) -> None:
    """What was claimed once does not ask for its key again: released, it waits beside the one that has it now."""
    job = add(backend, make(unique_for="waiting"))
    claimed = backend.claim_one()
    other = add(backend, make(unique_for="waiting"))
    waits = FATES[0]
    waits(backend, claimed)
    assert not other.is_duplicate
    assert (keys(backend, job), keys(backend, other)) == ((None, "k"), ("k", None))
    assert len(backend.claim(2)) == 2


def test_a_claimed_job_does_not_show_its_key(backend: Backend) -> None:
    """What a worker is told of a job is without its key, whatever that is good for."""
    add(backend, make())
    claimed = backend.claim_one()
    shown = [claimed.unique_key, claimed.unique_key_spent, claimed.unique_for, claimed.unique_until]
    assert shown == [None] * 4


# --- as good as new


@pytest.mark.parametrize("unique_for", SCOPES)
@pytest.mark.parametrize("fate", FATES)
def test_a_reset_job_takes_its_key_back(backend: Backend, fate: Act, unique_for: Any) -> None:
    """A job that is as good as new holds its key again, if nobody else has it."""
    job = with_fate(backend, fate, unique_key="k", unique_for=unique_for)
    backend.store.reset_jobs([job.id])
    assert keys(backend, job) == ("k", None)
    assert not is_free(backend)


@pytest.mark.parametrize("unique_for", SCOPES[:3])
@pytest.mark.parametrize("fate", [failed, succeeded, cancelled, given_up])
def test_a_reset_job_does_without_a_key_that_another_has(backend: Backend, fate: Act, unique_for: Any) -> None:
    """A key that was free, and is another's now, stays there; the job is as good as new but for that."""
    job = with_fate(backend, fate, unique_key="k", unique_for=unique_for)
    other = add(backend, make())
    assert backend.store.reset_jobs([job.id]) == {job.id}
    assert not backend.read(job).stopped
    if other.is_duplicate:
        assert keys(backend, job) == ("k", None)
    else:
        assert (keys(backend, job), keys(backend, other)) == ((None, "k"), ("k", None))


def test_a_replayed_job_takes_its_key_back(backend: Backend) -> None:
    """A replay is a reset of what has failed."""
    job = with_fate(backend, failed, unique_key="k")
    assert is_free(backend)
    assert backend.store.replay_jobs([job.id]) == {job.id}
    assert keys(backend, job) == ("k", None)


def test_of_several_that_are_reset_the_first_takes_the_key(backend: Backend) -> None:
    """Of jobs of one key that are reset together, the first has it again; all are as good as new."""
    jobs = [with_fate(backend, failed, unique_key="k") for _ in range(3)]
    elsewhere = with_fate(backend, failed, type="u", unique_key="k")
    ids = [job.id for job in (*jobs, elsewhere)]
    assert backend.store.replay_jobs(reversed(ids)) == set(ids)
    assert [keys(backend, job) for job in jobs] == [("k", None), (None, "k"), (None, "k")]
    assert keys(backend, elsewhere) == ("k", None)


def test_a_period_that_is_over_is_not_taken_back(backend: Backend) -> None:
    """A reset does not begin a period anew."""
    job = with_fate(backend, failed, unique_key="k", unique_for=HOUR)
    backend.clock.advance(HOUR)
    other = add(backend, make())
    backend.store.delete_jobs([other.id])
    backend.store.reset_jobs([job.id])
    assert keys(backend, job) == (None, "k")
    assert is_free(backend)


# --- who wants a key that is held


@pytest.mark.parametrize("notify", [True, False])
def test_a_duplicate_is_the_other_job(backend: Backend, notify: bool) -> None:
    """What is returned instead of what was not added is the job that holds the key, as it is now, flagged."""
    job = add(backend, make(payload={"n": 1}))
    assert not job.is_duplicate
    backend.claim_one()
    other = add(backend, make(payload={"n": 2}, origin="p"), notify=notify)
    assert other == job
    assert other.is_duplicate
    assert attrs.evolve(other, is_duplicate=False, claim_id=None) == backend.read(job)
    assert {**attrs.asdict(other), "is_duplicate": False} == attrs.asdict(backend.read(job))
    assert backend.store.get_status().num_jobs == 1


def test_keys_are_those_of_a_type(backend: Backend) -> None:
    """The same key for another type is another key; so is one that differs in case, or by a blank."""
    for job in (make(), make(type="u"), make("K"), make("k "), make("ä")):
        assert not add(backend, job).is_duplicate
    assert add(backend, make("ä")).is_duplicate


def test_a_duplicate_may_be_an_error(backend: Backend) -> None:
    """The error names the job that holds the key; nothing is added."""
    job = add(backend, make())
    with pytest.raises(DuplicateJobError, match=f"{job.id} of type 't' holds the unique key 'k'") as caught:
        add(backend, make(), on_conflict="raise")
    assert (caught.value.existing_id, caught.value.pending) == (job.id, False)
    assert backend.store.get_status().num_jobs == 1


def test_an_error_for_one_is_one_for_all(backend: Backend) -> None:
    """Of several jobs that are added together none is, if one of them is a duplicate and that is an error."""
    job = add(backend, make("b"))
    with pytest.raises(DuplicateJobError) as caught:
        backend.store.add_jobs([make("a"), make_job(), make("b"), make("c")], on_conflict="raise")
    assert caught.value.existing_id == job.id
    assert backend.store.get_status().num_jobs == 1
    assert is_free(backend, "a")


def test_duplicates_are_told_by_their_places(backend: Backend) -> None:
    """Of several jobs that are added together, each one's place has it, or the job that holds its key."""
    held = [add(backend, make(key)) for key in "zb"]
    jobs = [make("z"), make_job(), make("a"), make("b"), make_job()]
    added = backend.store.add_jobs(jobs)
    assert list(added) == [held[0], jobs[1], jobs[2], held[1], jobs[4]]
    assert [job.is_duplicate for job in added] == [True, False, False, True, False]
    assert backend.store.get_status().num_jobs == 5


def test_many_with_and_without_keys(backend: Backend) -> None:
    """So many that those without keys go another way: all are there, but for the duplicates."""
    backend.store.add_jobs([make(str(number)) for number in range(0, 300, 3)])
    jobs = [make(str(number)) if number % 2 else make_job() for number in range(300)]
    added = backend.store.add_jobs(jobs, notify=False)
    duplicates = [number for number, job in enumerate(added) if job.is_duplicate]
    assert duplicates == [number for number in range(300) if number % 2 and number % 3 == 0]
    assert backend.store.get_status().num_jobs == 100 + 300 - len(duplicates)


def test_a_duplicate_wakes_nobody(backend: Backend) -> None:
    """Workers hear of what is added; not of duplicates, nor of what is added quietly."""
    hearing = backend.hear(JobAvailable)
    job = add(backend, make())
    assert [event.id for event in hearing.heard()] == [job.id]
    add(backend, make())
    add(backend, make("quiet"), notify=False)
    assert hearing.heard() == []
    loud = add(backend, make("loud"))
    assert [event.id for event in hearing.heard()] == [loud.id]


def test_the_same_job_twice_is_its_own_duplicate(backend: Backend) -> None:
    """Adding a job again, as after an error that told nothing, finds that it is there, as long as it holds its key."""
    job = add(backend, make())
    assert add(backend, job).is_duplicate
    backend.store.cancel_jobs([job.id])
    with pytest.raises(DuplicateJobError) as caught:
        add(backend, job)
    assert caught.value.existing_id == job.id


# --- other payloads


def test_the_payload_of_a_waiting_job_is_replaced(backend: Backend) -> None:
    """A job that waits, for its time or for a retry, gets the new payload, and nothing else of the new job."""
    job = add(backend, make(payload={"n": 1}, priority=5))
    other = add(backend, make(payload={"n": 2}, priority=7), on_conflict="replace_payload")
    assert (other.id, other.payload, other.priority, other.is_duplicate) == (job.id, {"n": 2}, 5, True)
    claimed = backend.claim_one()
    assert claimed.payload == {"n": 2}
    retries = FATES[4]
    retries(backend, claimed)
    add(backend, make(payload={"n": 3}), on_conflict="replace_payload")
    assert backend.read(job).payload == {"n": 3}


@pytest.mark.parametrize(("fate", "unique_for"), [(FATES[1], "waiting_and_running"), (failed, "until_succeeded")])
def test_the_payload_of_any_other_job_stays(backend: Backend, fate: Act, unique_for: Any) -> None:
    """A job that runs, or has ended and holds its key all the same, keeps its payload; what is returned says so."""
    with_fate(backend, fate, unique_key="k", unique_for=unique_for, payload={"n": 1})
    other = add(backend, make(payload={"n": 2}), on_conflict="replace_payload")
    assert (other.payload, other.is_duplicate, other.started) == ({"n": 1}, True, True)


def test_payloads_of_several_are_replaced(backend: Backend) -> None:
    """Each of several jobs gets the payload that was meant for it."""
    jobs = [add(backend, make(key, payload=0)) for key in "cab"]
    others = [make(key, payload=number) for number, key in enumerate("abcd", start=1)]
    added = backend.store.add_jobs(others, on_conflict="replace_payload")
    assert [job.payload for job in added] == [1, 2, 3, 4]
    assert [backend.read(job).payload for job in jobs] == [3, 1, 2]


def test_a_key_that_is_free_again_is_taken_with_the_payload(backend: Backend) -> None:
    """There is nothing to replace in what holds its key no longer: a job is added."""
    with_fate(backend, succeeded, unique_key="k")
    assert not add(backend, make(), on_conflict="replace_payload").is_duplicate
