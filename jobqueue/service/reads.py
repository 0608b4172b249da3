"""What the service reads."""

from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.counting import JobCounts
from jobqueue.inspecting import Activity, ConnectionCheck
from jobqueue.job_filter import Cursor
from jobqueue.models import Job, State
from jobqueue.status import Status


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
        error: str | None = None,
        older_than: timedelta | None = None,
        newer_than: timedelta | None = None,
        archived: bool = False,
        limit: int = 100,
        after: Job | Cursor | None = None,
    ) -> list[Job]:
        """Read up to *limit* jobs, the newest first; go on with ``after=`` the last one of the page before.

        *error* is a part of their error messages, in whatever case; *older_than* and *newer_than* are about when they
        were added. With *archived* it is jobs in the archive that are read, and not those in the queue.
        """
        ...

    def get_status(self) -> Status:
        """Count jobs and bundles, each of them: that takes a while when there are many."""
        ...

    def count_jobs(self) -> JobCounts:
        """Count jobs by type and state, in some milliseconds.

        Where there are many, the numbers of some states are estimates, which ``estimated_states`` names: as a rule
        succeeded jobs, and of the others those that are more than some thousands.
        """
        ...

    def oldest_due_age(self) -> dict[str, timedelta]:
        """Say of each type that has jobs which are due and wait, for how long the first of them has been due.

        That is since its ``start_at``, or since it was added. It takes as many steps as there are priorities among the
        waiting jobs of each type.
        """
        ...

    def recent_activity(self) -> Activity:
        """Say what has stopped in the last minute, and which processes have worked.

        It looks at the 5,000 jobs that were claimed last, whatever the number of jobs: where these were claimed in less
        than a minute, it is about that time. Jobs count that are still there.
        """
        ...

    def check_connection(self) -> ConnectionCheck:
        """Ask the database for its version, and whether it takes changes; take the time of a round trip."""
        ...
