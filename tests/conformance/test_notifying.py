"""What is committed is heard: by whom, in which words, and what nobody is told."""

from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import DuplicateJobError, JobDesc
from jobqueue.events import ClaimLost, Event, JobAvailable, JobBundleStopped, JobStopped
from jobqueue.models import Job, new_id
from jobqueue.outcomes import Outcome
from tests.conformance.acts import DEAD_FOR, ERROR, FUTURE, HOUR, MORTAL, OUTCOMES, PAST, SECOND, STOPPING
from tests.fixtures.backends import Backend
from tests.fixtures.stores import make_bundle, make_job
from tests.fixtures.waiting import wait_until


def available(job: Job, count: int = 1) -> JobAvailable:
    return JobAvailable(id=job.id, type=job.type, origin="o", count=count)


def stopped(job: Job, *, will_retry: bool = False) -> JobStopped:
    return JobStopped(id=job.id, type=job.type, origin="o", will_retry=will_retry)


def lost(job: Job) -> ClaimLost:
    assert job.claim_id is not None
    return ClaimLost(id=job.id, claim_id=job.claim_id)


# --- jobs that may be claimed


def test_added_jobs(backend: Backend) -> None:
    """Jobs that are added together are told of once for each type, with how many are due; id is the first one's."""
    hearing = backend.hear()
    first, _, other, _ = backend.add(make_job("a"), make_job("a"), make_job("b"), make_job("c", start_at=FUTURE))
    heard = sorted(hearing.heard(), key=lambda event: event.type)
    assert heard == [available(first, 2), available(other)]


def test_an_added_job(backend: Backend) -> None:
    """A job that is added alone is told of with its type and origin, unless it is delayed."""
    hearing = backend.hear()
    job = make_job("type é", origin="from é")
    backend.store.add_job(job, delay=None)
    backend.store.add_job(make_job(), delay=HOUR)
    assert hearing.heard() == [JobAvailable(id=job.id, type="type é", origin="from é", count=1)]


def test_an_added_bundle(backend: Backend) -> None:
    """The members of a bundle are told of like other jobs."""
    hearing = backend.hear()
    bundle = backend.add_bundle(3)
    assert hearing.heard() == [available(bundle.jobs[0], 3)]


def test_what_was_refused(backend: Backend) -> None:
    """Of jobs that could not be added nobody hears."""
    (job,) = backend.add(make_job())
    hearing = backend.hear()
    with pytest.raises(DuplicateJobError):
        backend.store.add_jobs([make_job(), job])
    bundle = make_bundle(1)
    backend.store.add_bundle(bundle)
    with pytest.raises(DuplicateJobError):
        backend.store.add_bundle(bundle)
    assert hearing.heard() == [available(bundle.jobs[0])]


def test_what_is_added_quietly(backend: Backend) -> None:
    """Of jobs that are added without notify nobody hears, few or many; they are there all the same, and claimed."""
    hearing = backend.hear()
    backend.store.add_job(make_job(), delay=None, notify=False)
    backend.store.add_jobs([make_job(), make_job()], notify=False)
    backend.store.add_jobs([make_job() for _ in range(200)], notify=False)
    backend.store.add_bundle(make_bundle(2), notify=False)
    backend.store.add_bundle(make_bundle(200), notify=False)
    (loud,) = backend.add(make_job())
    assert hearing.heard() == [available(loud)]
    assert len(backend.claim(500)) == 1 + 2 + 200 + 2 + 200 + 1


def test_claiming_and_beating_is_not_heard(backend: Backend) -> None:
    """Nobody hears of claims, beats and progress."""
    backend.add(make_job())
    hearing = backend.hear()
    job = backend.claim_one()
    backend.worker_store.touch_jobs([job.fence])
    backend.store.save_progress(job.fence, "1")
    assert hearing.heard() == []


def test_a_reaped_job(backend: Backend) -> None:
    """A job that was freed may be claimed again, and is told of."""
    backend.add(make_job())
    job = backend.claim_one(claimant=MORTAL)
    hearing = backend.hear()
    backend.clock.advance(SECOND)
    backend.worker_store.reap_jobs(DEAD_FOR, 3)
    assert hearing.heard() == [available(job)]


@pytest.mark.parametrize("start_at", [PAST, FUTURE])
def test_a_rescheduled_job(backend: Backend, start_at: Any) -> None:
    """A job that has a new time is told of, also when it is due later: workers then learn when to look for it."""
    (job,) = backend.add(make_job(start_at=FUTURE))
    hearing = backend.hear()
    assert backend.store.reschedule_job(job.id, start_at)
    assert hearing.heard() == [available(job)]


def test_what_cannot_be_rescheduled(backend: Backend) -> None:
    """Of a running or stopped job that was not rescheduled, nobody hears."""
    backend.add(make_job(), make_job())
    running, done = backend.claim(2)
    backend.save(Outcome.finished(done))
    hearing = backend.hear()
    for job in (running, done):
        backend.store.reschedule_job(job.id, PAST)
    assert hearing.heard() == []


# --- jobs that have stopped


@pytest.mark.parametrize("kind", OUTCOMES)
def test_outcomes(backend: Backend, kind: Any) -> None:
    """An end is told of, a retry with will_retry, a job that was given back as available; a snooze is not told of."""
    backend.add(make_job(max_retry_count=1))
    job = backend.claim_one()
    hearing = backend.hear()
    backend.save(OUTCOMES[kind](job))
    other = {"retry": [stopped(job, will_retry=True)], "released": [available(job)], "snoozed": []}
    assert hearing.heard() == ([stopped(job)] if kind in STOPPING else other[kind])


def test_a_retry_that_is_due_at_once(backend: Backend) -> None:
    """A retry that does not wait is told of as the end of a run and as a job that may be claimed."""
    backend.add(make_job(max_retry_count=1))
    job = backend.claim_one()
    hearing = backend.hear()
    backend.save(Outcome.retry(job, ERROR, start_at=PAST))
    assert set(hearing.heard()) == {stopped(job, will_retry=True), available(job)}


def test_outcomes_in_one_set(backend: Backend) -> None:
    """Each job of a set is told of by itself."""
    backend.add(*(make_job() for _ in range(5)))
    jobs = backend.claim(5)
    hearing = backend.hear()
    backend.worker_store.make_trip([Outcome.finished(job) for job in jobs], ["*"], 5, MORTAL)
    heard = hearing.heard()
    assert len(heard) == 5
    assert set(heard) == {stopped(job) for job in jobs}


def test_what_was_lost_is_not_heard(backend: Backend) -> None:
    """An outcome whose claim was lost tells nobody anything."""
    backend.add_bundle(1)
    job = backend.claim_one()
    backend.store.reset_jobs([job.id])
    hearing = backend.hear()
    backend.save(*(outcome(job) for outcome in OUTCOMES.values()))
    assert hearing.heard() == []


def test_a_job_that_was_given_up(backend: Backend) -> None:
    """A job that the reaper fails has stopped for good."""
    backend.add(make_job(max_retry_count=5))
    job = backend.claim_one(claimant=MORTAL)
    hearing = backend.hear()
    backend.clock.advance(SECOND)
    backend.worker_store.reap_jobs(DEAD_FOR, 0)
    assert hearing.heard() == [stopped(job)]


# --- claims that are lost


ACTS: dict[str, tuple[Callable[[Backend, Job], Any], list[Callable[[Job], Event]]]] = {
    "cancel": (lambda backend, job: backend.store.cancel_jobs([job.id]), [stopped]),
    "reset": (lambda backend, job: backend.store.reset_jobs([job.id]), [available]),
    "delete": (lambda backend, job: backend.store.delete_jobs([job.id]), []),
    "delete by origin": (lambda backend, _: backend.store.delete_jobs_from_origin("o"), []),
    "delete by type": (lambda backend, _: backend.store.delete_jobs_of_type("t"), []),
    "delete bundle": (lambda backend, job: backend.store.delete_job_bundles([job.bundle_id]), []),
    "delete bundle by origin": (lambda backend, _: backend.store.delete_job_bundles_from_origin("o"), []),
    "delete bundle by type": (lambda backend, _: backend.store.delete_job_bundles_of_type("b"), []),
    "delete all": (lambda backend, _: backend.store.delete_all_jobs_and_bundles(), []),
}
"""What can be done to a job, and what is told of it besides that its claim is lost."""


@pytest.mark.parametrize("act", ACTS)
def test_a_claim_is_lost(backend: Backend, act: str) -> None:
    """Whoever takes a running job away from its worker is heard by it, with the claim that is lost."""
    backend.add_bundle(2)
    job = backend.claim_one()
    hearing = backend.hear(ClaimLost, JobStopped, JobAvailable)
    do, others = ACTS[act]
    do(backend, job)
    heard = hearing.heard()
    assert len(heard) == 1 + len(others)
    assert set(heard) == {lost(job), *(other(job) for other in others)}
    assert next(event for event in heard if isinstance(event, ClaimLost)).is_of(job.id, job.claim_id)


@pytest.mark.parametrize("act", ACTS)
def test_a_job_that_waits_has_no_claim(backend: Backend, act: str) -> None:
    """What waits, or waits again, loses no claim."""
    backend.add_bundle(2)
    job = backend.claim_one()
    backend.save(Outcome.released(job))
    hearing = backend.hear(ClaimLost, JobStopped)
    ACTS[act][0](backend, job)
    assert hearing.heard() == ([stopped(job)] if act == "cancel" else [])


@pytest.mark.parametrize("act", ACTS)
def test_a_job_that_stopped_has_no_claim(backend: Backend, act: str) -> None:
    """A job that has stopped shows its last claim, which nobody can lose any more; a reset makes it available."""
    backend.add_bundle(2)
    job = backend.claim_one()
    backend.save(Outcome.failed(job, ERROR))
    hearing = backend.hear(ClaimLost, JobStopped, JobAvailable)
    ACTS[act][0](backend, job)
    assert hearing.heard() == ([available(job)] if act == "reset" else [])


def test_several_claims_are_lost(backend: Backend) -> None:
    """Each of several claims that are lost by one call is told of."""
    backend.add(*(make_job() for _ in range(5)))
    jobs = backend.claim(3)
    hearing = backend.hear(ClaimLost)
    backend.store.cancel_jobs(job.id for job in backend.store.get_all_jobs_to_do())
    assert {event.claim_id for event in hearing.heard()} == {job.claim_id for job in jobs}


def test_a_lost_claim_is_that_of_the_moment(backend: Backend) -> None:
    """When a job was claimed again, the claim that is lost is the last one."""
    backend.add(make_job())
    first = backend.claim_one()
    backend.save(Outcome.released(first))
    second = backend.claim_one()
    hearing = backend.hear(ClaimLost)
    backend.store.cancel_jobs([second.id])
    (event,) = hearing.heard()
    assert event.is_of(second.id, second.claim_id)
    assert not event.is_of(first.id, first.claim_id)
    assert not event.is_of(new_id(), second.claim_id)


def test_reset_of_a_job_that_waits_for_its_time(backend: Backend) -> None:
    """A reset tells of a job whose retry was to come later, and not of one that had not started."""
    waiting, retried = backend.add(make_job(priority=-1), make_job(max_retry_count=1))
    backend.save(Outcome.retry(backend.claim_one(), ERROR, delay=HOUR))
    hearing = backend.hear()
    backend.store.reset_jobs([waiting.id, retried.id])
    assert hearing.heard() == [available(retried)]


def test_a_cancelled_job_that_is_reset(backend: Backend) -> None:
    """A job that was cancelled while it waited may be claimed after a reset, and is told of."""
    (job,) = backend.add(make_job())
    backend.store.cancel_jobs([job.id])
    hearing = backend.hear()
    backend.store.reset_jobs([job.id])
    assert hearing.heard() == [available(job)]


def test_a_replayed_job(backend: Backend) -> None:
    """A job that is replayed may be claimed; one that is not is not told of."""
    backend.add(make_job(), make_job())
    bad, good = backend.claim(2)
    backend.save(Outcome.failed(bad, ERROR), Outcome.finished(good))
    hearing = backend.hear()
    backend.store.replay_jobs([bad.id, good.id])
    assert hearing.heard() == [available(bad)]


# --- bundles


def test_a_completion(backend: Backend) -> None:
    """A completion is told of with the bundle's type and origin, and the job that it adds as available."""
    bundle = backend.add_bundle(1, type="kind é", origin="ours é", on_stopped=JobDesc(1, type="after"))
    job = backend.claim_one()
    hearing = backend.hear(JobBundleStopped, JobAvailable)
    backend.save(Outcome.finished(job))
    (after,) = backend.store.get_all_jobs_to_do()
    assert set(hearing.heard()) == {
        JobBundleStopped(id=bundle.id, type="kind é", origin="ours é"),
        JobAvailable(id=after.id, type="after", origin="ours é", count=1),
    }


def test_every_completion(backend: Backend) -> None:
    """A bundle is told of each time that it completes, and at no other time."""
    bundle = backend.add_bundle(2)
    hearing = backend.hear(JobBundleStopped)
    told = [JobBundleStopped(id=bundle.id, type="b", origin="o")]
    for job in backend.claim(2):
        assert hearing.heard() == []
        backend.save(Outcome.finished(job))
    assert hearing.heard() == told
    backend.store.reset_jobs([bundle.jobs[0].id])
    assert hearing.heard() == []
    backend.store.cancel_jobs([bundle.jobs[0].id])
    assert hearing.heard() == told
    backend.store.delete_jobs([bundle.jobs[0].id])
    backend.store.delete_job_bundles([bundle.id])
    assert hearing.heard() == []


def test_a_completion_by_deletion(backend: Backend) -> None:
    """A bundle that completes because its last open member is deleted is told of."""
    bundle = backend.add_bundle(1)
    hearing = backend.hear(JobBundleStopped)
    backend.store.delete_jobs([bundle.jobs[0].id])
    assert hearing.heard() == [JobBundleStopped(id=bundle.id, type="b", origin="o")]


def test_what_is_heard_can_be_read(backend: Backend) -> None:
    """Whoever hears of something may look at it at once: it has been committed, and no listener deletes it."""
    bundle = backend.add_bundle(1, on_stopped=JobDesc(1, type="after"))
    seen: list[Any] = []

    def look(event: Event) -> None:
        if isinstance(event, JobStopped) and event.id == bundle.jobs[0].id:
            seen.append(backend.store.get_job(event.id).stopped)
        if isinstance(event, JobBundleStopped) and event.id == bundle.id:
            seen.append(backend.store.get_job_bundle(event.id).stopped)

    for _ in range(2):
        backend.notifier.subscribe(look, JobStopped, JobBundleStopped)
    backend.save(Outcome.finished(backend.claim_one()))
    wait_until(lambda: len(seen) == 4)
    assert seen == [True] * 4
