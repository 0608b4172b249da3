"""The functions of the package: each is the method of the same name of the current service."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobqueue.context import current_service, default_service
from jobqueue.models import Job, JobBundle, State, Status
from jobqueue.service import JobType
from jobqueue.store import Cursor


def add_job(job: Job, *, connection: object = None) -> Job:
    """Add *job*, in the transaction of *connection* if there is one; see ``Service.add_job``."""
    return current_service().add_job(job, connection=connection)


def add_jobs(jobs: Iterable[Job], *, connection: object = None) -> list[Job]:
    """Add all of *jobs* or none; see ``Service.add_jobs``."""
    return current_service().add_jobs(jobs, connection=connection)


def add_bundle(bundle: JobBundle, *, connection: object = None) -> JobBundle:
    """Add *bundle* and its members; see ``Service.add_bundle``."""
    return current_service().add_bundle(bundle, connection=connection)


def enqueue(
    type_or_handler: str | JobType,
    payload: object,
    *,
    origin: str | None = None,
    priority: int = 0,
    start_at: datetime | None = None,
    delay: timedelta | None = None,
    max_retry_count: int | None = None,
    connection: object = None,
) -> Job:
    """Make a job and add it, in the transaction of *connection* if there is one; see ``Service.enqueue``."""
    return current_service().enqueue(
        type_or_handler,
        payload,
        origin=origin,
        priority=priority,
        start_at=start_at,
        delay=delay,
        max_retry_count=max_retry_count,
        connection=connection,
    )


def get_job(id: UUID) -> Job:
    """Read a job. Raises JobNotFoundError."""
    return current_service().get_job(id)


def get_job_bundle(id: UUID) -> JobBundle:
    """Read a bundle with its members. Raises JobBundleNotFoundError."""
    return current_service().get_job_bundle(id)


def get_all_jobs_to_do() -> list[Job]:
    """Read all jobs that have not stopped: waiting, delayed and running ones."""
    return current_service().get_all_jobs_to_do()


def get_all_jobs_started_before(t: datetime) -> list[Job]:
    """Read all running jobs that were claimed before *t*."""
    return current_service().get_all_jobs_started_before(t)


def get_all_jobs_with_errors() -> list[Job]:
    """Read all jobs with an error message."""
    return current_service().get_all_jobs_with_errors()


def list_jobs(
    *,
    state: State | str | None = None,
    type: str | None = None,
    origin: str | None = None,
    bundle_id: UUID | None = None,
    limit: int = 100,
    after: Job | Cursor | None = None,
) -> list[Job]:
    """Read up to *limit* jobs, the newest first; see ``Service.list_jobs``."""
    return current_service().list_jobs(
        state=state, type=type, origin=origin, bundle_id=bundle_id, limit=limit, after=after
    )


def get_status() -> Status:
    """Count jobs and bundles."""
    return current_service().get_status()


def reset_job(id: UUID) -> None:
    """Make a job as good as new. Raises JobNotFoundError."""
    current_service().reset_job(id)


def reset_jobs(ids: Iterable[UUID]) -> int:
    """Make several jobs as good as new; return how many of them were there."""
    return current_service().reset_jobs(ids)


def delete_job(id: UUID) -> None:
    """Delete a job. Raises JobNotFoundError."""
    current_service().delete_job(id)


def delete_jobs_from_origin(origin: str) -> int:
    """Delete all jobs that came from *origin*; return how many."""
    return current_service().delete_jobs_from_origin(origin)


def delete_jobs_of_type(type: str) -> int:
    """Delete all jobs of *type*; return how many."""
    return current_service().delete_jobs_of_type(type)


def delete_finished_jobs() -> int:
    """Delete all jobs that succeeded and are in no bundle; return how many."""
    return current_service().delete_finished_jobs()


def delete_job_bundle(id: UUID) -> None:
    """Delete a bundle with its members. Raises JobBundleNotFoundError."""
    current_service().delete_job_bundle(id)


def delete_job_bundles_from_origin(origin: str) -> int:
    """Delete all bundles that came from *origin*, with their members; return how many bundles."""
    return current_service().delete_job_bundles_from_origin(origin)


def delete_job_bundles_of_type(type: str) -> int:
    """Delete all bundles of *type*, with their members; return how many bundles."""
    return current_service().delete_job_bundles_of_type(type)


def delete_all_jobs_and_bundles() -> None:
    """Delete everything."""
    current_service().delete_all_jobs_and_bundles()


def health() -> dict[str, Any]:
    """Report threads, connections and counts of the current service; see ``Service.health``."""
    return current_service().health()


def close() -> None:
    """Close the default service, which stays in place: later calls raise ClosedError.

    Raises:
        NotInitializedError: there is none.
        ClosedError: it was closed before.
    """
    default_service().close()
