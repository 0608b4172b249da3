"""Beats keep claims alive, and tell which claims stand."""

import pytest

from jobqueue.outcomes import Outcome
from tests.conformance.acts import DEAD_FOR, MORTAL, SECOND
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_job


def test_a_beat(backend: Backend) -> None:
    """A beat moves worker_alive_at; nothing else that the job shows changes."""
    backend.add(make_job())
    job = backend.claim_one()
    before = backend.shown(job)
    now = backend.clock.advance(SECOND)
    assert backend.worker_store.touch_jobs([job.fence]) == {job.id}
    assert backend.shown(job) == {**before, "worker_alive_at": now, "updated_at": now}


def test_a_beat_is_for_the_claims_that_are_named(backend: Backend) -> None:
    """Claims that nobody beats for fall silent while others are beaten for."""
    backend.add(*(make_job() for _ in range(3)))
    first, silent, last = backend.claim(3)
    now = backend.clock.advance(SECOND)
    assert backend.worker_store.touch_jobs([last.fence, first.fence]) == {first.id, last.id}
    assert [backend.read(job).worker_alive_at for job in (first, silent, last)] == [now, START, now]


def test_claims_that_do_not_stand(backend: Backend) -> None:
    """Of several claims, those that were spent or taken away are not returned, and keep the others from nothing."""
    backend.add(*(make_job() for _ in range(5)))
    done, reset, cancelled, deleted, alive = jobs = backend.claim(5)
    backend.save(Outcome.finished(done))
    backend.store.reset_jobs([reset.id])
    backend.store.cancel_jobs([cancelled.id])
    backend.store.delete_jobs([deleted.id])
    assert backend.worker_store.touch_jobs([job.fence for job in jobs]) == {alive.id}


def test_no_claims(backend: Backend) -> None:
    """A beat for nothing does nothing."""
    assert backend.worker_store.touch_jobs([]) == frozenset()


def test_a_claim_that_is_beaten_for_lives(backend: Backend) -> None:
    """However long a job runs, its claim is not reaped as long as beats come in time, and can be saved then."""
    backend.add(make_job())
    job = backend.claim_one(claimant=MORTAL)
    for _ in range(5):
        backend.clock.advance(DEAD_FOR)
        assert backend.worker_store.touch_jobs([job.fence]) == {job.id}
        assert backend.worker_store.reap_jobs(DEAD_FOR, 3) == []
    assert backend.save(Outcome.finished(job)) == {job.id}


@pytest.mark.parametrize("number", [1, 200])
def test_many_beats_at_once(backend: Backend, number: int) -> None:
    """One call beats for as many claims as there are."""
    backend.add(*(make_job() for _ in range(number)))
    fences = [job.fence for job in backend.claim(number)]
    assert backend.worker_store.touch_jobs(fences) == {fence.job_id for fence in fences}
