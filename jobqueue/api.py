"""The functions of the package: each is the method of the same name of the current service."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.claim import Claim
from jobqueue.context import current_service, default_service
from jobqueue.events import ObservedEvent
from jobqueue.health import OnError
from jobqueue.job_filter import Cursor
from jobqueue.listeners import JobBundleStoppedListener, JobStoppedListener, ServiceListener
from jobqueue.models import Job, State
from jobqueue.observers import Observer
from jobqueue.pauses import PausedType
from jobqueue.retry import RetryPolicy
from jobqueue.service import JobType
from jobqueue.status import Status
from jobqueue.threads import Timeout
from jobqueue.uniqueness import OnConflict, UniqueFor


def add_job(job: Job, *, on_conflict: OnConflict = "ignore", notify: bool = True, connection: object = None) -> Job:
    """Add *job*, in the transaction of *connection* if there is one; see ``Service.add_job``."""
    return current_service().add_job(job, on_conflict=on_conflict, notify=notify, connection=connection)


def add_jobs(
    jobs: Iterable[Job], *, on_conflict: OnConflict = "ignore", notify: bool = True, connection: object = None
) -> list[Job]:
    """Add all of *jobs* or none; see ``Service.add_jobs``."""
    return current_service().add_jobs(jobs, on_conflict=on_conflict, notify=notify, connection=connection)


def add_bundle(bundle: JobBundle, *, notify: bool = True, connection: object = None) -> JobBundle:
    """Add *bundle* and its members; see ``Service.add_bundle``."""
    return current_service().add_bundle(bundle, notify=notify, connection=connection)


def enqueue(
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
    """Make a job and add it, in the transaction of *connection* if there is one; see ``Service.enqueue``."""
    return current_service().enqueue(
        type_or_handler,
        payload,
        origin=origin,
        priority=priority,
        start_at=start_at,
        delay=delay,
        max_retry_count=max_retry_count,
        retry=retry,
        unique_key=unique_key,
        unique_by=unique_by,
        unique_for=unique_for,
        on_conflict=on_conflict,
        notify=notify,
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
    error: str | None = None,
    older_than: timedelta | None = None,
    newer_than: timedelta | None = None,
    archived: bool = False,
    limit: int = 100,
    after: Job | Cursor | None = None,
) -> list[Job]:
    """Read up to *limit* jobs, the newest first; see ``Service.list_jobs``."""
    return current_service().list_jobs(
        state=state,
        type=type,
        origin=origin,
        bundle_id=bundle_id,
        error=error,
        older_than=older_than,
        newer_than=newer_than,
        archived=archived,
        limit=limit,
        after=after,
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


def replay_job(id: UUID) -> bool:
    """Make a job that has failed as good as new; return False in any other case."""
    return current_service().replay_job(id)


def cancel_job(id: UUID) -> bool:
    """Stop a job that has not stopped, for good; return whether there was one; see ``Service.cancel_job``."""
    return current_service().cancel_job(id)


def reschedule_job(id: UUID, start_at: datetime | None) -> bool:
    """Have a job that has not started be due at *start_at* (None: now); return whether there was one."""
    return current_service().reschedule_job(id, start_at)


def pause(type: str, until: datetime | timedelta | None = None, reason: str | None = None) -> PausedType:
    """Have no jobs of *type*, a name or a pattern, claimed by any process; see ``Service.pause``."""
    return current_service().pause(type, until, reason)


def resume(type: str) -> bool:
    """End the pause of *type*; return whether there was one; see ``Service.resume``."""
    return current_service().resume(type)


def paused_types() -> list[PausedType]:
    """Read what is paused now."""
    return current_service().paused_types()


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


def wait_for_job(id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> Job:
    """Wait until a job has stopped; return it as it then is; see ``Service.wait_for_job``."""
    return current_service().wait_for_job(id, timeout, allow_in_handler=allow_in_handler)


def wait_for_bundle(id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> JobBundle:
    """Wait until all members of a bundle have stopped; return it as it then is; see ``Service.wait_for_bundle``."""
    return current_service().wait_for_bundle(id, timeout, allow_in_handler=allow_in_handler)


def claim(types: str | Iterable[str], n: int = 1) -> list[Claim]:
    """Claim up to *n* due jobs of *types*, to run them by hand; see ``Service.claim``."""
    return current_service().claim(types, n)


def add_listener(listener: ServiceListener) -> None:
    """Have *listener* hear of each job and bundle that has stopped; see ``Service.add_listener``."""
    current_service().add_listener(listener)


def remove_listener(listener: ServiceListener) -> None:
    """Have *listener* hear nothing more."""
    current_service().remove_listener(listener)


def add_job_stopped_listener(listener: JobStoppedListener) -> None:
    """Have ``listener(job, will_retry)`` called for each job that has stopped; see the method of Service."""
    current_service().add_job_stopped_listener(listener)


def remove_job_stopped_listener(listener: JobStoppedListener) -> None:
    """Have *listener* called no more."""
    current_service().remove_job_stopped_listener(listener)


def add_job_bundle_stopped_listener(listener: JobBundleStoppedListener) -> None:
    """Have ``listener(bundle)`` called for each bundle that has stopped; see the method of Service."""
    current_service().add_job_bundle_stopped_listener(listener)


def remove_job_bundle_stopped_listener(listener: JobBundleStoppedListener) -> None:
    """Have *listener* called no more."""
    current_service().remove_job_bundle_stopped_listener(listener)


def set_job_bundle_of_type_stopped_listener(type: str, listener: JobBundleStoppedListener) -> None:
    """Have ``listener(bundle)`` called for each bundle of *type* that has stopped, in place of any other."""
    current_service().set_job_bundle_of_type_stopped_listener(type, listener)


def remove_job_bundle_of_type_stopped_listener(type: str) -> None:
    """Have no listener for bundles of *type*."""
    current_service().remove_job_bundle_of_type_stopped_listener(type)


def remove_all_job_bundle_stopped_listeners() -> None:
    """Have no listener for bundles, nor for bundles of a type."""
    current_service().remove_all_job_bundle_stopped_listeners()


def add_observer(observer: Observer, *kinds: type[ObservedEvent]) -> None:
    """Have ``observer(event)`` called for events of *kinds*; none: for all; see ``Service.add_observer``."""
    current_service().add_observer(observer, *kinds)


def remove_observer(observer: Observer) -> None:
    """Have *observer* called no more."""
    current_service().remove_observer(observer)


def set_on_error(on_error: OnError | None) -> None:
    """Have ``on_error(error)`` called for what nobody else is told of; see ``Service.set_on_error``."""
    current_service().set_on_error(on_error)


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
