"""What becomes of a job's row by each thing that is done to it: the twins of the statements in jobqueue_pg.queries."""

import json
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import attrs

from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind

_ATTEMPTS_KEPT: Final = 20
_NOT_RUN: Final = frozenset({OutcomeKind.RELEASED, OutcomeKind.RESCUED})
_LONGEST_DELAY: Final = timedelta(days=100 * 365)

# A day from the ends of Python's calendar, so that a moment can be told in any time zone.
_FIRST_MOMENT: Final = datetime(1, 1, 2, tzinfo=UTC)
_LAST_MOMENT: Final = datetime(9999, 12, 30, tzinfo=UTC)


def added(job: Job, now: datetime, *, delay: timedelta | None = None) -> Job:
    """Return a new row: of *job*, only what an application decides on is taken over."""
    period = job.unique_for if isinstance(job.unique_for, timedelta) else None
    return Job(
        id=job.id,
        type=job.type,
        payload_json=job.payload_json,
        origin=job.origin,
        priority=job.priority,
        start_at=_moment(job.start_at) if delay is None else _after(now, delay),
        max_retry_count=job.max_retry_count,
        retry_policy_json=job.retry_policy_json,
        unique_key=job.unique_key,
        unique_for=job.unique_for,
        unique_until=None if period is None else now + period,
        created_at=now,
        updated_at=now,
    )


def claimed(job: Job, claim_id: UUID, claimant: Claimant, now: datetime) -> Job:
    """Return the row of a job that was claimed."""
    after = attrs.evolve(
        job,
        started_at=now,
        worker_alive_at=now if claimant.beats else None,
        claim_id=claim_id,
        claimed_by=claimant.name,
        cancelled_at=None,
        updated_at=now,
    )
    return _without_key(after) if job.unique_for == "waiting" else after


def as_claimed(job: Job) -> Job:
    """Return a job that was claimed as its worker is told of it: what is kept of its key is none of its business."""
    if job.unique_for is None:
        return job
    return attrs.evolve(job, unique_key=None, unique_key_spent=None, unique_for=None, unique_until=None)


def saved(job: Job, outcome: Outcome, now: datetime) -> Job:
    """Return the row of a claimed job after the run that led to *outcome*."""
    stops = outcome.kind.stops
    # A job that will be retried has not stopped and shows no error; what went wrong is in its attempt_errors.
    error = None if outcome.kind is OutcomeKind.RETRY else outcome.error
    after = attrs.evolve(
        job,
        started_at=job.started_at if stops else None,
        claim_id=job.claim_id if stops else None,
        claimed_by=job.claimed_by if stops else None,
        worker_alive_at=None,
        stopped_at=now if stops else None,
        cancelled_at=now if outcome.kind is OutcomeKind.DISCARDED else None,
        start_at=_start_after(job, outcome, now),
        result_json=outcome.result_json,
        error_msg=None if error is None else error.message,
        error_data_json=None if error is None else error.data_json,
        attempt_errors_json=_attempts_after(job, outcome, now),
        current_retry_count=_retries_after(job, outcome.kind),
        run_count=job.run_count if outcome.kind in _NOT_RUN else job.run_count + 1,
        rescue_count=job.rescue_count + 1 if outcome.kind is OutcomeKind.RESCUED else job.rescue_count,
        updated_at=now,
    )
    return _without_key(after) if stops and _ends_with(job, failed=outcome.kind is OutcomeKind.FAILED) else after


def _ends_with(job: Job, *, failed: bool) -> bool:
    """Whether the scope of the job's key ends when it stops."""
    return job.unique_until is None and not (failed and job.unique_for == "until_succeeded")


def _without_key(job: Job) -> Job:
    """Return *job* as one that holds its key no longer, if it did."""
    if job.unique_key is None:
        return job
    return attrs.evolve(job, unique_key=None, unique_key_spent=job.unique_key)


def _start_after(job: Job, outcome: Outcome, now: datetime) -> datetime | None:
    if outcome.delay is not None:
        return _after(now, max(-_LONGEST_DELAY, min(outcome.delay, _LONGEST_DELAY)))
    return job.start_at if outcome.start_at is None else _moment(outcome.start_at)


def _attempts_after(job: Job, outcome: Outcome, now: datetime) -> str | None:
    error = outcome.error
    if error is None or outcome.kind is OutcomeKind.DISCARDED:
        return job.attempt_errors_json
    attempt = {
        "at": now.isoformat(),
        "run": job.run_count + 1,
        "error_msg": error.message,
        "error_type": error.type,
        "traceback": error.traceback,
        "started_at": None if job.started_at is None else job.started_at.isoformat(),
        "claimed_by": job.claimed_by,
    }
    attempts = [*json.loads(job.attempt_errors_json or "[]"), attempt]
    return json.dumps(attempts[-_ATTEMPTS_KEPT:])


def _retries_after(job: Job, kind: OutcomeKind) -> int:
    if kind is OutcomeKind.RETRY:
        return job.current_retry_count + 1
    return _no_retry_left(job) if kind in {OutcomeKind.FAILED, OutcomeKind.DISCARDED} else job.current_retry_count


def _no_retry_left(job: Job) -> int:
    return max(job.current_retry_count, job.max_retry_count)


def reset(job: Job, now: datetime, *, takes_key_back: bool) -> Job:
    """Return the row of a job that is as good as new."""
    return attrs.evolve(
        job,
        started_at=None,
        worker_alive_at=None,
        claim_id=None,
        claimed_by=None,
        stopped_at=None,
        cancelled_at=None,
        error_msg=None,
        error_data_json=None,
        result_json=None,
        progress_json=None,
        # The moment of a retry that is not wanted any more; not that for which the job was added.
        start_at=None if job.run_count > 0 and not is_due(job, now) else job.start_at,
        current_retry_count=0,
        run_count=0,
        rescue_count=0,
        updated_at=now,
        unique_key=job.unique_key_spent if takes_key_back else job.unique_key,
        unique_key_spent=None if takes_key_back else job.unique_key_spent,
    )


def cancelled(job: Job, now: datetime) -> Job:
    """Return the row of a job that was cancelled before it stopped."""
    after = attrs.evolve(
        job,
        started_at=job.started_at or now,
        worker_alive_at=None,
        stopped_at=now,
        cancelled_at=now,
        error_msg="cancelled",
        error_data_json=None,
        result_json=None,
        current_retry_count=_no_retry_left(job),
        updated_at=now,
    )
    return _without_key(after) if _ends_with(job, failed=False) else after


def rescheduled(job: Job, start_at: datetime | None, now: datetime) -> Job:
    """Return the row of a waiting job that is due at *start_at*."""
    return attrs.evolve(job, start_at=_moment(start_at), updated_at=now)


def rescued(job: Job, now: datetime) -> Job:
    """Return the row of a job that was taken away from a claim that had fallen silent."""
    return attrs.evolve(
        job,
        started_at=None,
        worker_alive_at=None,
        claim_id=None,
        claimed_by=None,
        result_json=None,
        rescue_count=job.rescue_count + 1,
        updated_at=now,
    )


def given_up(job: Job, now: datetime) -> Job:
    """Return the row of a job that was rescued too often already."""
    evidence = {
        "type": "TooManyRescues",
        "rescue_count": job.rescue_count,
        "claimed_by": job.claimed_by,
        "started_at": _told(job.started_at),
        "worker_alive_at": _told(job.worker_alive_at),
    }
    after = attrs.evolve(
        job,
        worker_alive_at=None,
        claim_id=None,
        stopped_at=now,
        error_msg=(
            f"the worker of this job fell silent, and it had been taken up again {job.rescue_count} times before"
        ),
        error_data_json=json.dumps(evidence),
        result_json=None,
        current_retry_count=_no_retry_left(job),
        updated_at=now,
    )
    return _without_key(after) if _ends_with(job, failed=True) else after


def key_freed(job: Job, now: datetime) -> Job:
    """Return the row of a job that held its key for a period that is over."""
    return attrs.evolve(_without_key(job), updated_at=now)


def is_over(job: Job, now: datetime) -> bool:
    """Whether a job held its key for a period that is over."""
    return job.unique_until is not None and job.unique_until <= now


def is_due(job: Job, now: datetime) -> bool:
    """Whether a job need not wait for its start time."""
    return job.start_at is None or job.start_at <= now


def _moment(value: datetime | None) -> datetime | None:
    """Return a moment as it is kept: in UTC, since two of one time zone are compared by what its clocks show."""
    if value is None:
        return None
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        return _FIRST_MOMENT if value.year == _FIRST_MOMENT.year else _LAST_MOMENT
    return max(_FIRST_MOMENT, min(moment, _LAST_MOMENT))


def _after(now: datetime, delay: timedelta) -> datetime | None:
    try:
        return _moment(now + delay)
    except OverflowError:
        return _FIRST_MOMENT if delay < timedelta(0) else _LAST_MOMENT


def _told(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
