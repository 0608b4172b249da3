"""Outcomes are saved, each while its claim holds: what they change, and what becomes of a lost claim's."""

from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest

from jobqueue import Job, State
from jobqueue.models import AttemptError, new_id
from jobqueue.outcomes import Outcome, OutcomeKind, RunError
from tests.conformance.acts import (
    CALENDAR,
    DEAD_FOR,
    ERROR,
    FUTURE,
    HOUR,
    MORTAL,
    OUTCOMES,
    SECOND,
    Act,
    cancelled,
    discarded,
    failed,
    given_up,
    reaped,
    succeeded,
    waits,
)
from tests.fixtures.backends import Backend
from tests.fixtures.stores import START, make_job

UNCLAIMED = {"started_at": None, "claim_id": None, "claimed_by": None}


def effects(kind: OutcomeKind, now: datetime, before: dict[str, Any]) -> dict[str, Any]:
    """Return what an outcome changes; everything else stays as it was."""
    earlier: tuple[AttemptError, ...] = before["attempt_errors"]
    attempt = AttemptError(
        at=now, run=4, error_msg="broken", error_type="app.Error", traceback="Traceback: ...",
        started_at=before["started_at"], claimed_by=before["claimed_by"],
    )  # fmt: skip
    match kind:
        case OutcomeKind.FINISHED:
            return {"stopped_at": now, "result": {"ok": True}, "run_count": 4}
        case OutcomeKind.FAILED:
            return {
                "stopped_at": now, "error_msg": "broken", "error_data": {"code": 7}, "run_count": 4,
                "current_retry_count": 5, "attempt_errors": (*earlier, attempt),
            }  # fmt: skip
        case OutcomeKind.RETRY:
            return {
                **UNCLAIMED, "start_at": now + timedelta(minutes=1), "run_count": 4,
                "current_retry_count": 2, "attempt_errors": (*earlier, attempt),
            }  # fmt: skip
        case OutcomeKind.SNOOZED:
            return {**UNCLAIMED, "start_at": now + HOUR, "run_count": 4}
        case OutcomeKind.RELEASED:
            return UNCLAIMED
        case OutcomeKind.DISCARDED:
            return {
                "stopped_at": now, "cancelled_at": now, "error_msg": "not worth it", "run_count": 4,
                "current_retry_count": 5,
            }  # fmt: skip


def experienced(backend: Backend) -> Job:
    """Return a job that is claimed after three runs, one of which failed, and two rescues."""
    backend.add(make_job(start_at=START - SECOND, max_retry_count=5))
    for _ in range(2):
        backend.claim_one(claimant=MORTAL)
        backend.clock.advance(SECOND)
        assert len(backend.worker_store.reap_jobs(DEAD_FOR, 3)) == 1
    backend.save(Outcome.snoozed(backend.claim_one(), timedelta(0)))
    backend.save(Outcome.snoozed(backend.claim_one(), timedelta(0)))
    backend.save(Outcome.retry(backend.claim_one(), RunError(message="first"), delay=timedelta(0)))
    job = backend.claim_one()
    assert backend.store.save_progress(job.fence, "0.5")
    return job


# --- what is changed


@pytest.mark.parametrize("kind", OUTCOMES)
def test_effect_of_each_outcome(backend: Backend, kind: OutcomeKind) -> None:
    """Each kind of outcome changes what it should, and nothing else that a job shows."""
    job = experienced(backend)
    before = backend.shown(job)
    assert (before["run_count"], before["rescue_count"], before["current_retry_count"]) == (3, 2, 1)
    now = backend.clock.advance(SECOND)
    assert backend.save(OUTCOMES[kind](job)) == {job.id}
    expected = effects(kind, now, before)
    assert backend.shown(job) == {**before, "worker_alive_at": None, "updated_at": now, **expected}


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (OutcomeKind.FINISHED, State.SUCCEEDED),
        (OutcomeKind.FAILED, State.FAILED),
        (OutcomeKind.RETRY, State.RETRYING),
        (OutcomeKind.SNOOZED, State.RETRYING),
        (OutcomeKind.RELEASED, State.AVAILABLE),
        (OutcomeKind.DISCARDED, State.CANCELLED),
    ],
)
def test_state_after_a_first_run(backend: Backend, kind: OutcomeKind, state: State) -> None:
    """Each kind of outcome leads to the state that its name says."""
    backend.add(make_job(max_retry_count=1))
    job = backend.claim_one()
    backend.save(OUTCOMES[kind](job))
    assert backend.read(job).state is state


@pytest.mark.parametrize("act", [failed, discarded])
def test_a_failure_uses_up_all_retries(backend: Backend, act: Act) -> None:
    """A job that stops with an error has no retry left, and is finished, however many it was allowed."""
    backend.add(make_job(max_retry_count=7))
    job = backend.claim_one()
    act(backend, job)
    read = backend.read(job)
    assert (read.current_retry_count, read.run_count, read.is_finished) == (7, 1, True)


def test_an_interruption_costs_nothing(backend: Backend) -> None:
    """A job that is given back again and again has used up no retry, and counts no run."""
    (job,) = backend.add(make_job(max_retry_count=1))
    for _ in range(5):
        backend.save(Outcome.released(backend.claim_one()))
    read = backend.read(job)
    assert (read.current_retry_count, read.run_count, read.state) == (0, 0, State.AVAILABLE)


def test_a_rescued_job_is_given_back_and_counted(backend: Backend) -> None:
    """A run that was cut off counts as a rescue; it has used up no retry, and counts no run."""
    (job,) = backend.add(make_job(max_retry_count=1))
    for _ in range(3):
        backend.save(Outcome.rescued(backend.claim_one()))
    read = backend.read(job)
    assert (read.rescue_count, read.current_retry_count, read.run_count) == (3, 0, 0)
    assert (read.state, read.started_at, read.claim_id, read.error_msg) == (State.AVAILABLE, None, None, None)


def test_result_of_none(backend: Backend) -> None:
    """A run without a result leaves none: no JSON null either."""
    backend.add(make_job())
    job = backend.claim_one()
    backend.save(Outcome.finished(job))
    assert backend.read(job).result_json is None


def test_message_of_every_kind(backend: Backend) -> None:
    """Whatever text an error has, it is kept as it is, an empty one too."""
    for message in ("", '"quoted" \\ \'; %s {x} \n\x01 \U0001f40d', "x" * 100_000):
        (job,) = backend.add(make_job())
        backend.save(Outcome.failed(backend.claim_one(), RunError(message=message, type=message, traceback=message)))
        read = backend.read(job)
        (attempt,) = read.attempt_errors
        assert (read.error_msg, attempt.error_msg, attempt.error_type, attempt.traceback) == (message,) * 4


@pytest.mark.parametrize("make", [lambda job, delay: Outcome.retry(job, ERROR, delay=delay), Outcome.snoozed])
@pytest.mark.parametrize("delay", [timedelta(0), timedelta(microseconds=1), -timedelta(days=1)], ids=str)
def test_delays(backend: Backend, make: Any, delay: timedelta) -> None:
    """A delay counts from the moment of saving by the clock of the queue."""
    backend.add(make_job())
    job = backend.claim_one()
    now = backend.clock.advance(SECOND)
    backend.save(make(job, delay))
    assert backend.read(job).start_at == now + delay


def test_a_delay_out_of_the_calendar(backend: Backend) -> None:
    """A delay that leads beyond all time means: in the far future; one that leads before it: at once."""
    backend.add(make_job(payload="late"), make_job(payload="early"))
    late, early = backend.claim(2)
    backend.save(Outcome.retry(late, ERROR, delay=timedelta.max), Outcome.retry(early, ERROR, delay=timedelta.min))
    start_at = backend.read(late).start_at
    assert start_at is not None
    assert start_at > START + timedelta(days=18_000)
    assert backend.claim(9) == [early]


@pytest.mark.parametrize(
    "start_at", [FUTURE, START - HOUR, datetime.fromisoformat("2100-01-01T00:00:00.000001+05:45")], ids=str
)
def test_retry_at_a_moment(backend: Backend, start_at: datetime) -> None:
    """A retry may name its moment instead of a delay."""
    backend.add(make_job())
    job = backend.claim_one()
    backend.save(Outcome.retry(job, ERROR, start_at=start_at))
    assert backend.read(job).start_at == start_at


@pytest.mark.parametrize("moment", CALENDAR, ids=str)
def test_retry_at_the_ends_of_the_calendar(backend: Backend, moment: datetime) -> None:
    """The earliest and latest moments of Python are those of retries like others."""
    backend.add(make_job())
    job = backend.claim_one()
    backend.save(Outcome.retry(job, ERROR, start_at=moment))
    read = backend.read(job).start_at
    assert read is not None
    assert abs(read - moment) < timedelta(days=2)


def test_retry_as_before(backend: Backend) -> None:
    """A retry with neither delay nor moment leaves the job due as it was."""
    backend.add(make_job(start_at=START))
    job = backend.claim_one()
    backend.clock.advance(SECOND)
    backend.save(Outcome.retry(job, ERROR))
    assert backend.read(job).start_at == START


def test_the_last_attempts_are_kept(backend: Backend) -> None:
    """The last 20 failed runs are kept, the newest last; runs that were released are none."""
    (job,) = backend.add(make_job(max_retry_count=100))
    for run in range(1, 26):
        backend.save(Outcome.released(backend.claim_one()))
        backend.clock.advance(SECOND)
        backend.save(Outcome.retry(backend.claim_one(), RunError(message=f"run {run}")))
    read = backend.read(job)
    assert [attempt.run for attempt in read.attempt_errors] == list(range(6, 26))
    assert [attempt.error_msg for attempt in read.attempt_errors] == [f"run {run}" for run in range(6, 26)]
    assert read.attempt_errors[-1].at == backend.clock.moment
    assert (read.run_count, read.current_retry_count, read.error_msg) == (25, 25, None)


def test_attempts_outlive_success(backend: Backend) -> None:
    """A job that succeeds in the end still tells how it failed before, and has no error."""
    backend.add(make_job(max_retry_count=1))
    backend.save(Outcome.retry(backend.claim_one(), ERROR, delay=timedelta(0)))
    job = backend.claim_one()
    backend.save(Outcome.finished(job))
    read = backend.read(job)
    assert ([attempt.error_msg for attempt in read.attempt_errors], read.error_msg) == (["broken"], None)
    assert read.succeeded


def test_mixed_outcomes_in_one_set(backend: Backend) -> None:
    """One set carries outcomes of all kinds, each to its own job."""
    jobs = backend.add(*(make_job(payload=number, max_retry_count=1) for number in range(60)))
    claimed = backend.claim(60)
    saved = backend.save(*(OUTCOMES[list(OUTCOMES)[job.payload % 6]](job) for job in claimed))
    assert saved == {job.id for job in jobs}
    read = sorted(backend.store.get_jobs(saved), key=lambda job: job.payload)
    assert [job.stopped for job in read] == [number % 6 in {0, 1, 5} for number in range(60)]
    assert [job.result is not None for job in read] == [number % 6 == 0 for number in range(60)]
    assert [job.cancelled_at is not None for job in read] == [number % 6 == 5 for number in range(60)]
    assert [job.run_count for job in read] == [int(number % 6 != 4) for number in range(60)]


def test_no_outcomes(backend: Backend) -> None:
    """An empty set saves nothing."""
    assert backend.save() == frozenset()


# --- fences


def reset(backend: Backend, job: Job) -> None:
    backend.store.reset_jobs([job.id])


def claimed_by_another(backend: Backend, job: Job) -> None:
    backend.store.reset_jobs([job.id])
    backend.claim_one()


def deleted(backend: Backend, job: Job) -> None:
    backend.store.delete_jobs([job.id])


def deleted_with_its_bundle(backend: Backend, job: Job) -> None:
    assert job.bundle_id is not None
    backend.store.delete_job_bundles([job.bundle_id])


MEANWHILE: list[Act] = [
    reset, claimed_by_another, succeeded, waits, cancelled, reaped, given_up, deleted, deleted_with_its_bundle,
]  # fmt: skip


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_lost_claims(backend: Backend, meanwhile: Act) -> None:
    """Once a claim was taken away or spent, no outcome, beat or progress of it changes anything or is acknowledged."""
    backend.add_bundle(1)
    job = backend.claim_one(claimant=MORTAL)
    meanwhile(backend, job)
    before = [backend.shown(read) for read in backend.store.get_jobs([job.id])]
    backend.clock.advance(SECOND)
    for outcome in OUTCOMES.values():
        assert backend.save(outcome(job)) == frozenset()
        assert backend.worker_store.make_trip([outcome(job)], ["none"], 1, MORTAL).saved == frozenset()
    assert backend.worker_store.touch_jobs([job.fence]) == frozenset()
    assert not backend.store.save_progress(job.fence, "1")
    assert [backend.shown(read) for read in backend.store.get_jobs([job.id])] == before


@pytest.mark.parametrize("change", ["started_at", "claim_id", "job_id"])
def test_fences(backend: Backend, change: str) -> None:
    """A fence that differs in any part, by a microsecond even, opens nothing."""
    backend.add(make_job(), make_job())
    job, other = backend.claim(2)
    fence = job.fence
    wrong = {
        "started_at": attrs.evolve(fence, started_at=fence.started_at + timedelta(microseconds=1)),
        "claim_id": attrs.evolve(fence, claim_id=new_id()),
        "job_id": attrs.evolve(fence, job_id=new_id()),
    }[change]
    before = backend.shown(job), backend.shown(other)
    assert backend.save(attrs.evolve(Outcome.finished(job), fence=wrong)) == frozenset()
    assert backend.worker_store.touch_jobs([wrong]) == frozenset()
    assert not backend.store.save_progress(wrong, "1")
    assert (backend.shown(job), backend.shown(other)) == before
    assert backend.save(Outcome.finished(job)) == {job.id}


def test_lost_claims_keep_nothing_back(backend: Backend) -> None:
    """In a set, what was lost is left out, and everything else is saved."""
    backend.add(*(make_job() for _ in range(10)))
    jobs = backend.claim(10)
    backend.store.reset_jobs(job.id for job in jobs[:5])
    assert backend.save(*(Outcome.finished(job) for job in jobs)) == {job.id for job in jobs[5:]}
    assert [backend.read(job).stopped for job in jobs] == [False] * 5 + [True] * 5
