"""Jobs are managed, in whatever state they are: reset, replayed, cancelled, rescheduled, deleted."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from jobqueue import State
from jobqueue.outcomes import Outcome, RunError
from tests.conformance.acts import (
    DEAD_FOR,
    ERROR,
    FAILED,
    FATES,
    FUTURE,
    HOUR,
    MORTAL,
    PAST,
    SECOND,
    STOPPED,
    WAITING,
    Act,
    cancelled,
    failed,
    retries,
    runs,
    snoozes,
    succeeded,
    waits,
    with_fate,
)
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_job


def as_good_as_new(before: dict[str, Any], new: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return what a job shows after a reset: how its runs went wrong is kept, and whatever describes it."""
    return {**new, "attempt_errors": before["attempt_errors"], "updated_at": now}


# --- reset


@pytest.mark.parametrize("fate", FATES)
def test_reset(backend: Backend, fate: Act) -> None:
    """A reset makes a job in any state as good as new."""
    description = {"payload": {"a": 1}, "priority": 3, "max_retry_count": 5}
    (other,) = backend.add(make_job(**description, start_at=FUTURE))
    new = {**backend.shown(other), "start_at": None}
    job = with_fate(backend, fate, **description)
    before, now = backend.shown(job), backend.clock.advance(SECOND)
    assert backend.store.reset_jobs([job.id]) == {job.id}
    assert backend.shown(job) == as_good_as_new(before, {**new, "id": job.id}, now)


def test_reset_of_a_running_job(backend: Backend) -> None:
    """The claim on a job that is reset while it runs is lost; the job can be claimed again at once."""
    backend.add(make_job())
    first = backend.claim_one()
    backend.store.reset_jobs([first.id])
    second = backend.claim_one()
    assert backend.worker_store.touch_jobs([first.fence]) == frozenset()
    assert backend.save(Outcome.finished(first, '"first"')) == frozenset()
    assert backend.save(Outcome.finished(second, '"second"')) == {second.id}
    assert backend.read(first).result == "second"


def test_a_retry_that_is_reset_runs_at_once(backend: Backend) -> None:
    """A reset job does not wait for the moment of a retry."""
    job = with_fate(backend, retries, max_retry_count=1)
    backend.store.reset_jobs([job.id])
    assert backend.read(job).state is State.AVAILABLE
    assert backend.claim() == [job]


@pytest.mark.parametrize("start_at", [PAST, FUTURE])
def test_a_reset_keeps_the_time_of_the_job(backend: Backend, start_at: datetime) -> None:
    """A job that was added for a moment of its own keeps that."""
    (job,) = backend.add(make_job(start_at=start_at))
    backend.store.reset_jobs([job.id])
    assert backend.read(job).start_at == start_at


def test_reset_of_several(backend: Backend) -> None:
    """Several jobs of several bundles, loose ones, unknown ones and the same one twice are reset together."""
    bundles = [backend.add_bundle(3) for _ in range(3)]
    loose = backend.add(make_job(), make_job())
    backend.save(*(Outcome.finished(job) for job in backend.claim(20)))
    assert [backend.counts(bundle) for bundle in bundles] == [(3, 3, True)] * 3
    ids = [bundles[0].jobs[0].id, bundles[0].jobs[1].id, bundles[1].jobs[2].id, loose[0].id]
    assert backend.store.reset_jobs(iter([*ids, uuid4(), ids[0]])) == set(ids)
    assert [backend.counts(bundle) for bundle in bundles] == [(3, 1, False), (3, 2, False), (3, 3, True)]
    assert {job.id for job in backend.store.get_all_jobs_to_do()} == set(ids)


# --- replay


@pytest.mark.parametrize("fate", FATES)
def test_replay(backend: Backend, fate: Act) -> None:
    """A replay makes a failed job as good as new, and leaves every other one alone: a cancelled one, too."""
    (other,) = backend.add(make_job(max_retry_count=5, start_at=FUTURE))
    new = {**backend.shown(other), "start_at": None}
    job = with_fate(backend, fate, max_retry_count=5)
    before, now = backend.shown(job), backend.clock.advance(SECOND)
    assert backend.store.replay_jobs([job.id]) == ({job.id} if fate in FAILED else frozenset())
    expected = as_good_as_new(before, {**new, "id": job.id}, now) if fate in FAILED else before
    assert backend.shown(job) == expected


def test_a_replayed_job_runs_again(backend: Backend) -> None:
    """A job that was replayed has all its retries again, and can succeed."""
    job = with_fate(backend, failed, max_retry_count=2)
    backend.store.replay_jobs([job.id])
    again = backend.claim_one()
    assert (again.current_retry_count, again.run_count, again.rescue_count) == (0, 0, 0)
    assert backend.save(Outcome.finished(again)) == {job.id}
    read = backend.read(job)
    assert (read.state, [attempt.error_msg for attempt in read.attempt_errors]) == (State.SUCCEEDED, ["broken"])


def test_replay_of_an_empty_message(backend: Backend) -> None:
    """A job that failed with an empty message has failed."""
    backend.add(make_job())
    job = backend.claim_one()
    backend.save(Outcome.failed(job, RunError(message="")))
    assert backend.store.replay_jobs([job.id]) == {job.id}


def test_a_job_is_replayed_once(backend: Backend) -> None:
    """Who replays a job that was replayed already replays nothing."""
    job = with_fate(backend, failed)
    assert backend.store.replay_jobs([job.id, job.id]) == {job.id}
    assert backend.store.replay_jobs([job.id]) == frozenset()


def test_replay_of_several(backend: Backend) -> None:
    """Of several jobs, those that failed are replayed, and are no longer among those with errors."""
    backend.add(*(make_job(payload=number) for number in range(6)))
    jobs = backend.claim(6)
    backend.save(*((Outcome.failed(job, ERROR) if job.payload % 2 else Outcome.finished(job)) for job in jobs))
    expected = {job.id for job in jobs if job.payload % 2}
    assert backend.store.replay_jobs(iter([*(job.id for job in jobs), uuid4()])) == expected
    assert {job.id for job in backend.store.get_all_jobs_to_do()} == expected
    assert backend.store.get_all_jobs_with_errors() == []


# --- cancel


@pytest.mark.parametrize("fate", FATES)
def test_cancel(backend: Backend, fate: Act) -> None:
    """A cancelled job has stopped, with that as its error and no retry left; one that had stopped is left alone."""
    job = with_fate(backend, fate, max_retry_count=5)
    before, now = backend.shown(job), backend.clock.advance(SECOND)
    assert backend.store.cancel_jobs([job.id]) == (frozenset() if fate in STOPPED else {job.id})
    stopped = {
        "started_at": before["started_at"] or now, "stopped_at": now, "cancelled_at": now, "updated_at": now,
        "worker_alive_at": None, "error_msg": "cancelled", "current_retry_count": 5,
    }  # fmt: skip
    assert backend.shown(job) == {**before, **({} if fate in STOPPED else stopped)}


@pytest.mark.parametrize("start_at", [None, FUTURE])
def test_a_cancelled_job_is_never_claimed(backend: Backend, start_at: datetime | None) -> None:
    """A job that was cancelled while it waited, or before its time, does not run."""
    (job,) = backend.add(make_job(start_at=start_at))
    assert backend.store.cancel_jobs([job.id]) == {job.id}
    backend.clock.moment = FUTURE + HOUR
    assert backend.claim(9) == []
    read = backend.read(job)
    assert (read.state, read.is_finished, read.has_error, read.run_count) == (State.CANCELLED, True, True, 0)


def test_cancelling_takes_the_claim_away(backend: Backend) -> None:
    """A job that is cancelled while it runs stays cancelled, whatever its run leads to."""
    job = with_fate(backend, runs)
    claim = backend.read(job)
    assert backend.store.cancel_jobs([job.id]) == {job.id}
    assert backend.worker_store.touch_jobs([claim.fence]) == frozenset()
    assert backend.save(Outcome.finished(claim)) == frozenset()
    assert backend.read(job).state is State.CANCELLED


def test_a_run_that_ends_first_wins(backend: Backend) -> None:
    """A job that has succeeded cannot be cancelled any more, and keeps its result."""
    job = with_fate(backend, succeeded)
    assert backend.store.cancel_jobs([job.id]) == frozenset()
    assert (backend.read(job).state, backend.read(job).result) == (State.SUCCEEDED, 1)


def test_a_cancelled_job_is_not_reaped(backend: Backend) -> None:
    """Nobody is silent who works on nothing."""
    with_fate(backend, cancelled)
    backend.clock.advance(HOUR)
    assert backend.worker_store.reap_jobs(DEAD_FOR, 3) == []


def test_a_cancelled_job_can_be_reset(backend: Backend) -> None:
    """A reset takes a cancellation back."""
    job = with_fate(backend, cancelled)
    backend.store.reset_jobs([job.id])
    again = backend.claim_one()
    backend.save(Outcome.finished(again))
    read = backend.read(job)
    assert (read.state, read.cancelled_at, read.error_msg) == (State.SUCCEEDED, None, None)


def test_cancel_of_several(backend: Backend) -> None:
    """Of several jobs, those that have not stopped are cancelled, each once."""
    running, done, waiting = backend.add(make_job(priority=2), make_job(priority=1), make_job())
    backend.save(*(Outcome.finished(job) for job in backend.claim(2) if job == done))
    ids = [running.id, done.id, waiting.id, waiting.id, uuid4()]
    assert backend.store.cancel_jobs(iter(ids)) == {running.id, waiting.id}
    assert backend.store.cancel_jobs(ids) == frozenset()


# --- reschedule


@pytest.mark.parametrize("fate", FATES)
def test_reschedule(backend: Backend, fate: Act) -> None:
    """A waiting job is due when it is told to be, and nothing else of it changes; any other is left alone."""
    job = with_fate(backend, fate, max_retry_count=5)
    before = backend.shown(job)
    for start_at in (FUTURE, None, PAST):
        now = backend.clock.advance(SECOND)
        assert backend.store.reschedule_job(job.id, start_at) == (fate in WAITING)
        changed = {"start_at": start_at, "updated_at": now} if fate in WAITING else {}
        assert backend.shown(job) == {**before, **changed}


def test_a_job_is_claimed_at_its_new_time(backend: Backend) -> None:
    """A job that was put off is not claimed before its new time, and then it is."""
    (job,) = backend.add(make_job())
    assert backend.store.reschedule_job(job.id, START + HOUR)
    trip = backend.worker_store.make_trip([], ["*"], 1, MORTAL)
    assert (trip.claimed, trip.next_due_in) == ((), HOUR)
    backend.clock.advance(HOUR)
    assert backend.claim() == [job]


@pytest.mark.parametrize("start_at", [None, PAST])
@pytest.mark.parametrize("fate", [retries, snoozes])
def test_a_retry_can_be_brought_forward(backend: Backend, fate: Act, start_at: datetime | None) -> None:
    """A job that waits for its retry can be had run now, and has not lost its count of retries."""
    job = with_fate(backend, fate, max_retry_count=5)
    assert backend.claim() == []
    retry_count = backend.read(job).current_retry_count
    assert backend.store.reschedule_job(job.id, start_at)
    assert backend.claim_one().current_retry_count == retry_count


def test_reschedule_in_any_time_zone(backend: Backend) -> None:
    """The new time is a moment, in whichever time zone it is given."""
    (job,) = backend.add(make_job())
    assert backend.store.reschedule_job(job.id, datetime.fromisoformat("2100-01-01T09:00:00+09:00"))
    assert backend.read(job).start_at == FUTURE


# --- progress


def test_progress(backend: Backend) -> None:
    """Progress is kept as JSON, the last said; nothing else of the job changes."""
    backend.add(make_job())
    job = backend.claim_one()
    before = backend.shown(job)
    now = backend.clock.advance(SECOND)
    assert backend.store.save_progress(job.fence, "[0.25]")
    assert backend.store.save_progress(job.fence, '{"fraction": 0.5, "message": "hälf %s"}')
    progress = {"fraction": 0.5, "message": "hälf %s"}
    assert backend.shown(job) == {**before, "progress": progress, "updated_at": now}


@pytest.mark.parametrize("fate", [waits, succeeded, failed, retries])
def test_progress_stays_after_the_run(backend: Backend, fate: Act) -> None:
    """How far a run said that it was can be read after its end."""
    assert backend.read(with_fate(backend, fate)).progress == 0.5


def test_progress_is_no_beat(backend: Backend) -> None:
    """Who says how far he is without beating falls silent all the same."""
    backend.add(make_job())
    job = backend.claim_one(claimant=MORTAL)
    backend.clock.advance(HOUR)
    assert backend.store.save_progress(job.fence, "0.9")
    assert [rescue.job_id for rescue in backend.worker_store.reap_jobs(DEAD_FOR, 3)] == [job.id]


# --- nothing


@pytest.mark.parametrize("ids", [[], [uuid4(), uuid4()]], ids=["none", "unknown"])
def test_nothing_to_manage(backend: Backend, ids: list[Any]) -> None:
    """No ids, or unknown ones, are acted on without effect."""
    backend.add(make_job())
    store = backend.store
    for act in (
        store.reset_jobs, store.replay_jobs, store.cancel_jobs, store.delete_jobs, store.delete_job_bundles,
    ):  # fmt: skip
        assert act(ids) == frozenset()
    assert store.get_status().by_state[State.AVAILABLE] == 1


def test_an_unknown_job_cannot_be_rescheduled(backend: Backend) -> None:
    """What is not there is not rescheduled."""
    assert not backend.store.reschedule_job(uuid4(), None)


def test_a_retry_after_a_reset_counts_anew(backend: Backend) -> None:
    """A job that was reset in its last retry has all of them again."""
    (job,) = backend.add(make_job(max_retry_count=1))
    backend.save(Outcome.retry(backend.claim_one(), ERROR, delay=timedelta(0)))
    last = backend.claim_one()
    assert last.current_retry_count == 1
    backend.store.reset_jobs([job.id])
    assert backend.claim_one().current_retry_count == 0
