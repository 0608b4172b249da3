"""What a backend tells those who listen: facts that have been committed."""

from uuid import UUID

import attrs


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
    """The claim *claim_id* on a job was taken away: the job was cancelled, reset or deleted while it ran."""

    id: UUID
    claim_id: UUID

    def is_of(self, job_id: UUID, claim_id: UUID | None) -> bool:
        """Whether the claim is this one."""
        return (self.id, self.claim_id) == (job_id, claim_id)


@attrs.frozen(kw_only=True)
class Connected:
    """The notifier hears again; whatever was said while it was deaf is lost, so look for yourself."""


Event = JobAvailable | JobStopped | JobBundleStopped | ClaimLost | Connected
