"""A job and a bundle of the model: what is true of one, and what each act makes of it, by docs/states.md."""

from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

import attrs

from jobqueue import Job, JobBundle, JobDesc, RetryPolicy, State
from jobqueue.models import AttemptError, Fence
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind

GIVEN_UP: Final = "given up"
"""The message of a job that was rescued too often; in which words a backend says it is its own business."""

ATTEMPTS_KEPT: Final = 20


@attrs.define(kw_only=True, eq=False)
class ModelJob:
    """A job, and all that is true of it now."""

    id: UUID | None
    """None until the backend has been asked which id it gave to the job of a completion."""
    type: str
    payload: Any
    origin: str
    priority: int
    start_at: datetime | None
    max_retry_count: int
    retry_policy: RetryPolicy | None
    created_at: datetime
    updated_at: datetime
    bundle_id: UUID | None = None
    completes_bundle_id: UUID | None = None
    current_retry_count: int = 0
    run_count: int = 0
    rescue_count: int = 0
    started_at: datetime | None = None
    claim_id: UUID | None = None
    claimed_by: str | None = None
    worker_alive_at: datetime | None = None
    stopped_at: datetime | None = None
    cancelled_at: datetime | None = None
    error_msg: str | None = None
    error_data: Any = None
    result: Any = None
    attempt_errors: tuple[AttemptError, ...] = ()
    progress: Any = None
    unique_key: str | None = None
    unique_key_spent: str | None = None
    unique_for: Any = None
    unique_until: datetime | None = None
    is_duplicate: bool = False
    lease: timedelta = attrs.field(default=timedelta(0), metadata={"hidden": True})

    @classmethod
    def added(cls, job: Job, now: datetime, delay: timedelta | None = None) -> Self:
        """Return *job* as it is once it was added."""
        return cls(
            id=job.id,
            type=job.type,
            payload=job.payload,
            origin=str(job.origin),
            priority=job.priority,
            start_at=job.start_at if delay is None else now + delay,
            max_retry_count=job.max_retry_count,
            retry_policy=job.retry_policy,
            unique_key=job.unique_key,
            unique_for=job.unique_for,
            unique_until=now + job.unique_for if isinstance(job.unique_for, timedelta) else None,
            bundle_id=job.bundle_id,
            created_at=now,
            updated_at=now,
        )

    # --- what is true of it

    @property
    def is_stopped(self) -> bool:
        return self.stopped_at is not None

    @property
    def is_running(self) -> bool:
        return self.started_at is not None and not self.is_stopped

    def is_running_since_before(self, moment: datetime) -> bool:
        return self.started_at is not None and self.started_at < moment and not self.is_stopped

    @property
    def waits(self) -> bool:
        return self.started_at is None and not self.is_stopped

    @property
    def has_succeeded(self) -> bool:
        return self.is_stopped and self.error_msg is None

    @property
    def has_failed(self) -> bool:
        return self.is_stopped and self.error_msg is not None and self.cancelled_at is None

    @property
    def due_at(self) -> datetime:
        return self.start_at or self.created_at

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it stands among those that wait."""
        return (-self.priority, self.due_at, self.id)

    def is_over(self, now: datetime) -> bool:
        """Whether the period has passed for which it may hold its key."""
        return self.unique_until is not None and self.unique_until <= now

    def is_due(self, now: datetime) -> bool:
        return self.start_at is None or self.start_at <= now

    def is_owned_by(self, fence: Fence) -> bool:
        return self.is_running and (self.id, self.started_at, self.claim_id) == attrs.astuple(fence)

    @property
    def is_beating(self) -> bool:
        return self.is_running and self.worker_alive_at is not None

    def is_silent(self, dead_for: timedelta, now: datetime) -> bool:
        return self.worker_alive_at is not None and now - self.worker_alive_at > max(dead_for, self.lease)

    def state(self, now: datetime) -> State:
        if self.cancelled_at is not None:
            return State.CANCELLED
        if self.is_stopped:
            return State.SUCCEEDED if self.error_msg is None else State.FAILED
        if self.started_at is not None:
            return State.RUNNING
        if self.run_count > 0:
            return State.RETRYING
        return State.AVAILABLE if self.is_due(now) else State.SCHEDULED

    def shown(self) -> dict[str, Any]:
        """Return what a backend has to show of it."""
        return attrs.asdict(self, recurse=False, filter=lambda field, _: "hidden" not in field.metadata)

    def shown_to_worker(self) -> dict[str, Any]:
        """Return what a backend has to show of it to the worker that has claimed it."""
        return self.shown() | dict.fromkeys(("unique_key", "unique_key_spent", "unique_for", "unique_until"))

    # --- what is done to it

    def free_key(self) -> None:
        if self.unique_key is not None:
            self.unique_key, self.unique_key_spent = None, self.unique_key

    def take_key_back(self) -> None:
        self.unique_key, self.unique_key_spent = self.unique_key_spent, None

    def claim(self, claim_id: UUID, claimant: Claimant, now: datetime) -> None:
        if self.unique_for == "waiting":
            self.free_key()
        self.started_at = self.updated_at = now
        self.worker_alive_at = now if claimant.beats else None
        self.claim_id, self.claimed_by, self.lease = claim_id, claimant.name, claimant.lease

    def beat(self, now: datetime) -> None:
        self.worker_alive_at = self.updated_at = now

    def say(self, progress: Any, now: datetime) -> None:
        self.progress, self.updated_at = progress, now

    def end(self, outcome: Outcome, result: Any, error_data: Any, now: datetime) -> None:
        """End a run; *result* and *error_data* are those of the outcome, as values."""
        self.worker_alive_at, self.updated_at = None, now
        if outcome.kind in {OutcomeKind.FAILED, OutcomeKind.RETRY}:
            self._remember(outcome, now)
        if outcome.kind is not OutcomeKind.RELEASED:
            self.run_count += 1
        match outcome.kind:
            case OutcomeKind.FINISHED:
                self._stop(now)
                self.result = result
            case OutcomeKind.FAILED:
                self._stop_with_error(str(outcome.error and outcome.error.message), error_data, now, failed=True)
            case OutcomeKind.DISCARDED:
                self._stop_with_error(str(outcome.error and outcome.error.message), None, now)
                self.cancelled_at = now
            case OutcomeKind.RETRY:
                self.current_retry_count += 1
                self._wait_until(outcome, now)
            case OutcomeKind.SNOOZED | OutcomeKind.RELEASED:
                self._wait_until(outcome, now)

    def _remember(self, outcome: Outcome, now: datetime) -> None:
        assert outcome.error is not None
        error = outcome.error
        attempt = AttemptError(
            at=now,
            run=self.run_count + 1,
            error_msg=error.message,
            error_type=error.type,
            traceback=error.traceback,
            started_at=self.started_at,
            claimed_by=self.claimed_by,
        )
        self.attempt_errors = (*self.attempt_errors, attempt)[-ATTEMPTS_KEPT:]

    def _stop(self, now: datetime, *, failed: bool = False) -> None:
        if self.unique_until is None and not (failed and self.unique_for == "until_succeeded"):
            self.free_key()
        self.worker_alive_at, self.stopped_at, self.updated_at = None, now, now

    def _stop_with_error(self, message: str, data: Any, now: datetime, *, failed: bool = False) -> None:
        self._stop(now, failed=failed)
        self.error_msg, self.error_data = message, data
        self.current_retry_count = max(self.current_retry_count, self.max_retry_count)

    def _wait_until(self, outcome: Outcome, now: datetime) -> None:
        self._lose_claim(now)
        if outcome.delay is not None:
            self.start_at = now + outcome.delay
        elif outcome.start_at is not None:
            self.start_at = outcome.start_at

    def _lose_claim(self, now: datetime) -> None:
        self.started_at = self.claim_id = self.claimed_by = self.worker_alive_at = None
        self.updated_at = now

    def rescue(self, now: datetime) -> None:
        self._lose_claim(now)
        self.rescue_count += 1

    def give_up(self, now: datetime) -> None:
        evidence = {
            "type": "TooManyRescues",
            **{name: getattr(self, name) for name in ("rescue_count", "claimed_by", "started_at", "worker_alive_at")},
        }
        self._stop_with_error(GIVEN_UP, evidence, now, failed=True)
        self.claim_id = None

    def cancel(self, now: datetime) -> None:
        self._stop_with_error("cancelled", None, now)
        self.cancelled_at = now
        self.started_at = self.started_at or now

    def reset(self, now: datetime) -> None:
        self._lose_claim(now)
        if self.run_count > 0 and not self.is_due(now):
            self.start_at = None
        self.stopped_at = self.cancelled_at = self.error_msg = self.error_data = self.result = self.progress = None
        self.current_retry_count = self.run_count = self.rescue_count = 0

    def reschedule(self, start_at: datetime | None, now: datetime) -> None:
        self.start_at, self.updated_at = start_at, now


@attrs.define(kw_only=True, eq=False)
class ModelBundle:
    """A bundle. Its counters are what a count of its members gives: nothing else could be right."""

    id: UUID
    type: str
    origin: str
    on_stopped: JobDesc | None
    delete_when_succeeded: bool
    created_at: datetime
    updated_at: datetime
    num_jobs: int = 0
    num_jobs_stopped: int = 0
    stopped_at: datetime | None = None

    @classmethod
    def added(cls, bundle: JobBundle, now: datetime) -> Self:
        """Return *bundle* as it is once it was added."""
        return cls(
            id=bundle.id,
            type=bundle.type,
            origin=str(bundle.origin),
            on_stopped=bundle.on_stopped,
            delete_when_succeeded=bundle.delete_when_succeeded,
            created_at=now,
            updated_at=now,
            num_jobs=len(bundle.jobs),
        )

    @property
    def may_go_some_day(self) -> bool:
        """Whether it is complete, and asked to be deleted when all have succeeded."""
        return self.delete_when_succeeded and self.stopped_at is not None

    def recount(self, num_jobs: int, num_jobs_stopped: int, now: datetime) -> bool:
        """Take over the result of a count; return whether the bundle has come to be complete by it."""
        if (self.num_jobs, self.num_jobs_stopped) == (num_jobs, num_jobs_stopped):
            return False
        was_open = self.num_jobs_stopped < self.num_jobs
        self.num_jobs, self.num_jobs_stopped, self.updated_at = num_jobs, num_jobs_stopped, now
        if num_jobs_stopped < num_jobs:
            self.stopped_at = None
        elif was_open:
            self.stopped_at = now
            return True
        return False

    def job_of_completion(self, now: datetime) -> ModelJob | None:
        """Return the job that a completion adds, which has no id yet."""
        if self.on_stopped is None:
            return None
        desc = self.on_stopped
        job = Job.new(desc.type, desc.payload, origin=desc.origin or self.origin)
        described = ModelJob.added(job, now)
        described.id, described.completes_bundle_id = None, self.id
        described.priority, described.max_retry_count = desc.priority, desc.max_retry_count
        described.start_at, described.retry_policy = desc.start_at, desc.retry
        return described

    def shown(self) -> dict[str, Any]:
        """Return what a backend has to show of it."""
        return attrs.asdict(self, recurse=False, filter=lambda field, _: field.name != "on_stopped")
