"""What a claim is known by, and what one run of a claimed job led to: the values that a trip carries."""

import enum
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from jobqueue.models import Fence, Job


def claim_shown_by(job: Job | None) -> str:
    """Say for people what has become of the claim on a job, which was found to be lost; None: the job is gone."""
    match job:
        case None:
            return "the job is deleted"
        case Job(stopped_at=None, started_at=None):
            return "nobody has claimed it now"
        case Job(stopped_at=None):
            return f"it shows the claim {job.claim_id} of {job.started_at}, by {job.claimed_by or '(unknown)'}"
        case _:
            return f"it has stopped at {job.stopped_at} ({job.state})"


class OutcomeKind(enum.StrEnum):
    """What becomes of the job."""

    FINISHED = "finished"
    FAILED = "failed"
    RETRY = "retry"
    SNOOZED = "snoozed"
    RELEASED = "released"
    RESCUED = "rescued"
    DISCARDED = "discarded"

    @property
    def stops(self) -> bool:
        """Whether the job has come to an end by it."""
        return self in {OutcomeKind.FINISHED, OutcomeKind.FAILED, OutcomeKind.DISCARDED}


@attrs.frozen(kw_only=True)
class RunError:
    """How a run failed: what is kept on the job, and in its list of attempts."""

    message: str
    type: str = ""
    traceback: str = ""
    data_json: str | None = None
    """The job's ``error_data``."""
    kinds: frozenset[str] = frozenset()
    """The classes that the error is of, as ErrorFilter names them; not kept."""
    back_off: bool = False
    """Whether no more jobs of the type are to be claimed for a while; not kept with the job."""
    back_off_is_shared: bool = False
    """Whether that goes for all processes."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What one run led to; made by the classmethods, which say which values go together."""

    fence: Fence
    kind: OutcomeKind
    bundle_id: UUID | None = None
    result_json: str | None = None
    error: RunError | None = None
    delay: timedelta | None = None
    """When to run again, counted from the moment of saving by the database's clock."""
    start_at: datetime | None = None
    """When to run again, as a moment, if there is no *delay*."""

    def is_shown_by(self, job: Job | None) -> bool:
        """Whether *job* looks as this has made it; a job that is gone cannot tell, and nobody is wronged."""
        if job is None:
            return True
        shows_claim = job.claim_id == self.fence.claim_id
        if not self.kind.stops:
            return not shows_claim
        return shows_claim and job.stopped and (job.cancelled_at is not None) == (self.kind is OutcomeKind.DISCARDED)

    @classmethod
    def finished(cls, job: Job, result_json: str | None = None) -> "Outcome":
        """The run succeeded."""
        return cls(fence=job.fence, bundle_id=job.bundle_id, kind=OutcomeKind.FINISHED, result_json=result_json)

    @classmethod
    def failed(cls, job: Job, error: RunError) -> "Outcome":
        """The run failed, and was the last."""
        return cls(fence=job.fence, bundle_id=job.bundle_id, kind=OutcomeKind.FAILED, error=error)

    @classmethod
    def retry(
        cls, job: Job, error: RunError, *, delay: timedelta | None = None, start_at: datetime | None = None
    ) -> "Outcome":
        """The run failed; another follows after *delay*, or at *start_at*."""
        return cls(
            fence=job.fence,
            bundle_id=job.bundle_id,
            kind=OutcomeKind.RETRY,
            error=error,
            delay=delay,
            start_at=start_at,
        )

    @classmethod
    def snoozed(cls, job: Job, delay: timedelta) -> "Outcome":
        """The handler asked to be run again after *delay*."""
        return cls(fence=job.fence, bundle_id=job.bundle_id, kind=OutcomeKind.SNOOZED, delay=delay)

    @classmethod
    def released(cls, job: Job) -> "Outcome":
        """The job is given back as if it had never been claimed."""
        return cls(fence=job.fence, bundle_id=job.bundle_id, kind=OutcomeKind.RELEASED)

    @classmethod
    def rescued(cls, job: Job) -> "Outcome":
        """The run was cut off with all that it did: the job is taken up again, which counts as a rescue."""
        return cls(fence=job.fence, bundle_id=job.bundle_id, kind=OutcomeKind.RESCUED)

    @classmethod
    def discarded(cls, job: Job, reason: str) -> "Outcome":
        """The handler said that the job is not worth running any more."""
        error = RunError(message=reason)
        return cls(fence=job.fence, bundle_id=job.bundle_id, kind=OutcomeKind.DISCARDED, error=error)


@attrs.frozen(kw_only=True)
class Claimant:
    """For whom jobs are claimed."""

    name: str
    """``host:pid:thread``, for people to read; no logic depends on it."""
    lease: timedelta
    """How long the claim may be silent before it is taken for abandoned."""
    beats: bool = True
    """Whether somebody beats for the claim; if not, it is never taken for abandoned."""


@attrs.frozen(kw_only=True)
class Trip:
    """What one statement and one commit brought: outcomes out, claims in."""

    saved: frozenset[UUID] = frozenset()
    """Ids of the jobs whose outcomes were saved; one that was sent but is not here had lost its claim."""
    claimed: tuple[Job, ...] = ()
    """The jobs claimed, in the order in which they are to be run."""
    next_due_in: timedelta | None = None
    """How long until the next job of the wanted types is due, or a pause ends, as far as is known; None: never."""
    backed_off: frozenset[str] = frozenset()
    """The types that processes back off from, or have backed off from last, all together."""


@attrs.frozen(kw_only=True)
class Rescue:
    """A job that was taken away from a claim that had fallen silent."""

    job_id: UUID
    job_type: str
    claimed_by: str | None
    rescue_count: int
    failed: bool
    """Whether the job was failed because it had been rescued too often already."""
