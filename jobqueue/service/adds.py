"""What the service adds."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from jobqueue.bundle import JobBundle
from jobqueue.models import Job
from jobqueue.retry import RetryPolicy


class JobType(Protocol):
    """Something that jobs can be enqueued for: a handler, seen from the service."""

    @property
    def type(self) -> str:
        """The job type."""
        ...

    @property
    def max_retry_count(self) -> int:
        """How often its jobs are run again, unless they say otherwise."""
        ...


class Adds(Protocol):
    """Add jobs and bundles."""

    def add_job(self, job: Job, *, notify: bool = True, connection: object = None) -> Job:
        """Add *job*; return it as it was stored. Raises DuplicateJobError when its id is there already."""
        ...

    def add_jobs(self, jobs: Iterable[Job], *, notify: bool = True, connection: object = None) -> list[Job]:
        """Add all of *jobs* or none; return them as they were stored. Raises DuplicateJobError."""
        ...

    def add_bundle(self, bundle: JobBundle, *, notify: bool = True, connection: object = None) -> JobBundle:
        """Add a bundle with all its members, or nothing; return it as it was stored. Raises DuplicateJobError."""
        ...

    def enqueue(
        self,
        type_or_handler: str | JobType,
        payload: object,
        *,
        origin: str | None = None,
        priority: int = 0,
        start_at: datetime | None = None,
        delay: timedelta | None = None,
        max_retry_count: int | None = None,
        retry: RetryPolicy | None = None,
        notify: bool = True,
        connection: object = None,
    ) -> Job:
        """Make a job and add it.

        *delay* counts from now by the database's clock, and excludes *start_at*. *retry* is stored with the job, and
        goes before what its handler says. *max_retry_count* None is the number of waits that *retry* lists, or else the
        handler's, when one is given or registered in this process for the type, else 0.

        Raises:
            InvalidJobError: a value is of the wrong type or size; its ``field`` names it.
            PayloadError: the payload cannot be stored as JSON.
        """
        ...
