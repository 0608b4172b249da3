"""Bundles: jobs that were added together and come to a common completion, and what describes them beforehand."""

from collections.abc import Iterable
from datetime import datetime
from typing import Self
from uuid import UUID

import attrs

from jobqueue.errors import InvalidJobError
from jobqueue.limits import check_name
from jobqueue.models import Job, new_id
from jobqueue.payload import MAX_PAYLOAD_BYTES, RawJSON
from jobqueue.retry import RetryPolicy


@attrs.frozen(kw_only=False)
class JobDesc:
    """A member-to-be of a bundle, or the job to add when a bundle has stopped; checked when it is used."""

    payload: object = attrs.field(repr=False)
    type: str | None = None
    """None: from the payload's class."""
    origin: str | None = None
    """None: the bundle's."""
    priority: int = 0
    max_retry_count: int | None = None
    """None: as often as *retry* lists waits, else 0."""
    start_at: datetime | None = None
    """None: the bundle's."""
    retry: RetryPolicy | None = None
    """None: as the handler says."""


@attrs.frozen(kw_only=True, eq=False)
class JobBundle:
    """Jobs that were added together and come to a common completion. Bundles are equal when their ids are."""

    id: UUID
    type: str
    origin: str | None = None
    num_jobs: int
    num_jobs_stopped: int = 0
    jobs: tuple[Job, ...] = attrs.field(default=(), repr=False)
    """The members, in the order in which they were described."""
    on_stopped: JobDesc | None = attrs.field(default=None, repr=False)
    """The job that the transaction which stops the last member adds, each time that happens."""
    delete_when_succeeded: bool = False
    """Whether it is to be deleted, some seconds after all members and the *on_stopped* job have succeeded."""
    stopped_at: datetime | None = None
    updated_at: datetime | None = None
    created_at: datetime | None = None

    @classmethod
    def new(
        cls,
        type: str,
        descs: Iterable[JobDesc],
        *,
        origin: str | None = None,
        start_at: datetime | None = None,
        on_stopped: JobDesc | None = None,
        delete_when_succeeded: bool = False,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> Self:
        """Describe a bundle with one job for each of *descs*; *start_at* is for those that name none themselves.

        Raises:
            InvalidJobError: there are no *descs*, or something in them is of the wrong type or size.
            PayloadError: a payload cannot be stored as JSON.
        """
        bundle_id = new_id()
        origin = None if origin is None else check_name("origin", origin)
        if not isinstance(descs, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
            raise InvalidJobError(f"descs must be several JobDesc, not {descs!r:.40}", field="descs")
        described = [_checked_desc(desc) for desc in descs]
        if not described:
            raise InvalidJobError("a bundle needs at least one job: an empty one could never complete", field="descs")
        jobs = tuple(_job_of(desc, origin, start_at, max_payload_bytes, bundle_id=bundle_id) for desc in described)
        return cls(
            id=bundle_id,
            type=check_name("type", type),
            origin=origin,
            num_jobs=len(jobs),
            jobs=jobs,
            on_stopped=None if on_stopped is None else _settled(on_stopped, origin, max_payload_bytes),
            delete_when_succeeded=bool(delete_when_succeeded),
        )

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, JobBundle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def stopped(self) -> bool:
        """Whether every member has stopped."""
        return self.num_jobs_stopped >= self.num_jobs

    @property
    def has_error(self) -> bool:
        """Whether any member that was read with the bundle has an error message."""
        return any(job.has_error for job in self.jobs)


def _checked_desc(desc: object) -> JobDesc:
    if not isinstance(desc, JobDesc):
        raise InvalidJobError(f"a bundle is made of JobDesc, not {type(desc).__qualname__}", field="descs")
    return desc


def _settled(desc: JobDesc, origin: str | None, max_payload_bytes: int) -> JobDesc:
    """Check a description that becomes a job only later, and spell out what it leaves open."""
    job = _job_of(_checked_desc(desc), origin, None, max_payload_bytes, bundle_id=None)
    return attrs.evolve(
        desc,
        payload=RawJSON(job.payload_json),
        type=job.type,
        origin=job.origin,
        max_retry_count=job.max_retry_count,
    )


def _job_of(
    desc: JobDesc, origin: str | None, start_at: datetime | None, max_payload_bytes: int, *, bundle_id: UUID | None
) -> Job:
    job = Job.new(
        desc.type,
        desc.payload,
        origin=desc.origin if desc.origin is not None else origin,
        priority=desc.priority,
        start_at=desc.start_at if desc.start_at is not None else start_at,
        max_retry_count=desc.max_retry_count,
        retry=desc.retry,
        max_payload_bytes=max_payload_bytes,
    )
    # By evolve() it would be made twice; and nobody has seen it yet.
    object.__setattr__(job, "bundle_id", bundle_id)
    return job
