"""What happens, as frozen values: what backends tell those who listen, and what observers hear of.

Some arrive from the database, in every process that listens, when they have been committed (``Event``); others are told
by the process in which they happen, there alone (``LocalEvent``).
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

import attrs

from jobqueue.models import Job
from jobqueue.outcomes import OutcomeKind


@attrs.frozen(kw_only=True)
class JobAvailable:
    """*count* jobs of a type may be claimed; *id* and *origin* are the first one's."""

    id: UUID
    type: str
    origin: str
    count: int = 1


@attrs.frozen(kw_only=True)
class JobStopped:
    """A job has stopped; or, if it *will_retry*, a run of it has failed that is not its last."""

    id: UUID
    type: str
    origin: str
    will_retry: bool


@attrs.frozen(kw_only=True)
class JobBundleStopped:
    """All members of a bundle have stopped."""

    id: UUID
    type: str
    origin: str


@attrs.frozen(kw_only=True)
class ClaimLost:
    """The claim *claim_id* on a job was taken away: the job was cancelled, reset or deleted while it ran.

    From the database it says just that. To observers it is told once, by the process that has lost the claim, for
    whatever reason: another one may have taken up the job.
    """

    id: UUID
    claim_id: UUID

    def is_of(self, job_id: UUID, claim_id: UUID | None) -> bool:
        """Whether the claim is this one."""
        return (self.id, self.claim_id) == (job_id, claim_id)


@attrs.frozen(kw_only=True)
class ScheduleChanged:
    """A schedule was added, changed, paused, resumed or removed; that one ticks is no change."""

    name: str


@attrs.frozen(kw_only=True)
class Connected:
    """The notifier hears again; whatever was said while it was deaf is lost, so look for yourself."""


Event = JobAvailable | JobStopped | JobBundleStopped | ClaimLost | ScheduleChanged | Connected
"""What arrives from the database."""


@attrs.frozen(kw_only=True)
class JobsAdded:
    """This process has added *jobs*, some of which may be members of a bundle.

    Those that were added in a transaction of the caller's exist when that commits, and not before.
    """

    jobs: tuple[Job, ...]


@attrs.frozen(kw_only=True)
class JobStarted:
    """A worker of this process begins to run *job*."""

    job: Job

    @property
    def waited(self) -> timedelta | None:
        """For how long the job had been due when it was claimed, by the database's clock; None: it is not known."""
        due_at = self.job.start_at or self.job.created_at
        return None if due_at is None or self.job.started_at is None else self.job.started_at - due_at


@attrs.frozen(kw_only=True)
class RunEnded:
    """A run of *job* has ended in this process; what it led to is about to be saved, or was saved with it."""

    job: Job
    kind: OutcomeKind
    """What becomes of the job, if its claim still stands: ``finished``, ``failed``, ``retry``..."""
    took: timedelta
    error_type: str | None = None
    """The class of the error, when there was one."""


@attrs.frozen(kw_only=True)
class JobRescued:
    """This process has taken a job away from a worker that had fallen silent."""

    id: UUID
    type: str
    claimed_by: str | None
    """``host:pid:thread`` of that worker, for people to read."""
    rescue_count: int
    failed: bool
    """Whether the job was failed, because it had been rescued too often already; else it runs again."""


LocalEvent = JobsAdded | JobStarted | RunEnded | JobRescued | ClaimLost
"""What the process tells in which it happens."""

LOCAL_EVENTS: Final = (JobsAdded, JobStarted, RunEnded, JobRescued, ClaimLost)
COMMITTED_EVENTS: Final = (JobStopped, JobBundleStopped)
"""What observers hear of from the database."""

ObservedEvent = LocalEvent | JobStopped | JobBundleStopped
