"""What the service reads."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.models import Job, State
from jobqueue.status import Status
from jobqueue.store import Cursor


class Reads(Protocol):
    """Read jobs and bundles as they are at the moment."""

    def get_job(self, id: UUID) -> Job:
        """Read a job. Raises JobNotFoundError."""
        ...

    def get_job_bundle(self, id: UUID) -> JobBundle:
        """Read a bundle with its members. Raises JobBundleNotFoundError."""
        ...

    def get_all_jobs_to_do(self) -> list[Job]:
        """Read all jobs that have not stopped: waiting, delayed and running ones."""
        ...

    def get_all_jobs_started_before(self, t: datetime) -> list[Job]:
        """Read all running jobs that were claimed before *t*, the oldest claim first."""
        ...

    def get_all_jobs_with_errors(self) -> list[Job]:
        """Read all jobs with an error message, the first stopped first."""
        ...

    def list_jobs(
        self,
        *,
        state: State | str | None = None,
        type: str | None = None,
        origin: str | None = None,
        bundle_id: UUID | None = None,
        limit: int = 100,
        after: Job | Cursor | None = None,
    ) -> list[Job]:
        """Read up to *limit* jobs, the newest first; go on with ``after=`` the last one of the page before."""
        ...

    def get_status(self) -> Status:
        """Count jobs and bundles."""
        ...
