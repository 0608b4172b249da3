"""The part of the service that reads."""

from datetime import datetime, timedelta
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.counting import JobCounts
from jobqueue.errors import InvalidJobError, JobNotFoundError
from jobqueue.inspecting import Activity, ConnectionCheck
from jobqueue.job_filter import Cursor, JobFilter
from jobqueue.limits import COUNT, check_id, check_int, check_moment
from jobqueue.models import Job, State
from jobqueue.queue_service.opened import Opened
from jobqueue.status import Status
from jobqueue.store import Store


class Reads(Opened):
    """Reads jobs and bundles as they are at the moment."""

    def get_job(self, id: UUID) -> Job:
        """Read a job."""
        return self._open_store().get_job(check_id(id))

    def get_job_bundle(self, id: UUID) -> JobBundle:
        """Read a bundle with its members."""
        return self._open_store().get_job_bundle(check_id(id))

    def get_all_jobs_to_do(self) -> list[Job]:
        """Read all jobs that have not stopped."""
        return self._open_store().get_all_jobs_to_do()

    def get_all_jobs_started_before(self, t: datetime) -> list[Job]:
        """Read all running jobs that were claimed before *t*."""
        store = self._open_store()
        moment = check_moment("t", t)
        if moment is None:
            raise InvalidJobError("t must be a datetime, not None", field="t")
        return store.get_all_jobs_started_before(moment)

    def get_all_jobs_with_errors(self) -> list[Job]:
        """Read all jobs with an error message."""
        return self._open_store().get_all_jobs_with_errors()

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
        """Read up to *limit* jobs, the newest first."""
        store = self._open_store()
        which = JobFilter.of(
            state=state,
            type=type,
            origin=origin,
            bundle_id=bundle_id,
            error=error,
            older_than=older_than,
            newer_than=newer_than,
            archived=archived,
        )
        return store.list_jobs(which, limit=check_int("limit", limit, COUNT[1:]), after=_cursor_after(after, store))

    def get_status(self) -> Status:
        """Count jobs and bundles."""
        return self._open_store().get_status()

    def count_jobs(self) -> JobCounts:
        """Count jobs by type and state, some by an estimate."""
        return self._open_store().counting.count_jobs()

    def oldest_due_age(self) -> dict[str, timedelta]:
        """Say of each type for how long the first of its jobs has been due."""
        return self._open_store().counting.oldest_due_age()

    def recent_activity(self) -> Activity:
        """Say what has stopped lately, and who has worked."""
        return self._open_store().inspecting.recent_activity()

    def check_connection(self) -> ConnectionCheck:
        """Say how the database is reached."""
        return self._open_store().inspecting.check_connection()


def _cursor_after(after: object, store: Store) -> Cursor | None:
    """Return the place that an application means by *after*: a job, or its created_at and id, or None.

    Raises:
        InvalidJobError: it is something else.
        JobNotFoundError: it is a job that was never read, and is not there.
    """
    match after:
        case None:
            return None
        case Job(id=job_id):
            created_at = after.created_at or store.get_job(job_id).created_at
        case (datetime() as moment, UUID() as job_id):
            created_at = check_moment("after", moment)
        case _:
            raise InvalidJobError(f"after takes a Job, or its created_at and id, not {after!r:.60}", field="after")
    if created_at is None:
        raise JobNotFoundError(job_id)
    return created_at, job_id
