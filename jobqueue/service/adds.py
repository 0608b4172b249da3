"""What the service adds."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from jobqueue.bundle import JobBundle
from jobqueue.models import Job
from jobqueue.retry import RetryPolicy
from jobqueue.uniqueness import OnConflict, UniqueFor


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

    def add_job(
        self, job: Job, *, on_conflict: OnConflict = "ignore", notify: bool = True, connection: object = None
    ) -> Job:
        """Add *job*; return it as it was stored, or the one that holds its unique key (``is_duplicate``).

        In the latter case nothing is added. With *on_conflict* ``"raise"`` that is an error; with
        ``"replace_payload"`` the other job gets the payload of this one, if it still waits; if it runs, nothing is
        changed, as what is returned shows. A transaction that is open on *connection* goes on in any case.

        Raises:
            DuplicateJobError: the job's id is there already, or its key is and *on_conflict* says so; or, if it is
                ``pending``, another transaction decides on that which has not ended within two seconds.
        """
        ...

    def add_jobs(
        self,
        jobs: Iterable[Job],
        *,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> list[Job]:
        """Add all of *jobs* or none; return, in their places, what ``add_job`` would return for each.

        Of several with the same unique key, the first is added, and the others are its duplicates.

        Raises:
            DuplicateJobError: as ``add_job``; then none is added.
        """
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
        unique_key: str | None = None,
        unique_by: Sequence[str] | None = None,
        unique_for: UniqueFor | timedelta | None = None,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> Job:
        """Make a job and add it.

        *delay* counts from now by the database's clock, and excludes *start_at*. *retry* is stored with the job, and
        goes before what its handler says. *max_retry_count* None is the number of waits that *retry* lists, or else the
        handler's, when one is given or registered in this process for the type, else 0. *unique_key*, *unique_by* and
        *unique_for* are those of ``Job.new``, *on_conflict* is that of ``add_job``.

        Raises:
            DuplicateJobError: another job holds the unique key; see ``add_job``.
            InvalidJobError: a value is of the wrong type or size; its ``field`` names it.
            PayloadError: the payload cannot be stored as JSON.
        """
        ...
