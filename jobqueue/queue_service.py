"""The service over one store and one notifier: checks what it is given, fills in what is left open."""

import os
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import attrs

from jobqueue.errors import ClosedError, InvalidJobError, JobBundleNotFoundError, JobNotFoundError
from jobqueue.health import Health
from jobqueue.limits import COUNT, MAX_NAME_LENGTH, check_id, check_int, check_moment, check_name
from jobqueue.models import Job, JobBundle, State, Status
from jobqueue.notifier import Notifier
from jobqueue.payload import MAX_PAYLOAD_BYTES
from jobqueue.registry import default_registry
from jobqueue.service import Finishable, JobType
from jobqueue.settings import WorkerSettings
from jobqueue.store import Cursor, JobFilter, Store

_SECONDS_FOR_POOLS: Final = 10.0


class QueueService:
    """The Service over one Store and one Notifier. Safe for use by many threads."""

    def __init__(
        self,
        *,
        store: Store,
        notifier: Notifier,
        settings: WorkerSettings,
        origin: str | None = None,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        vitals: Health | None = None,
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._settings = settings
        self._origin = check_name("origin", origin if origin is not None else _program_name())
        self._max_payload_bytes = max_payload_bytes
        self._vitals = vitals if vitals is not None else Health()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._dependents: set[Finishable] = set()
        self._closed = False

    @property
    def settings(self) -> WorkerSettings:
        """The rules for the workers of this service."""
        return self._settings

    @property
    def store(self) -> Store:
        """The rows. Raises ClosedError."""
        return self._open_store()

    @property
    def notifier(self) -> Notifier:
        """The events. Raises ClosedError."""
        self._open_store()
        return self._notifier

    @property
    def vitals(self) -> Health:
        """Where worker pools note how they are doing."""
        return self._vitals

    def _open_store(self) -> Store:
        if self._closed:
            raise ClosedError("the job queue service was closed: connect again")
        if self._process != os.getpid():
            raise ClosedError(
                f"this job queue service belongs to process {self._process}, from which this one ({os.getpid()}) was "
                "forked: connections cannot be shared, so connect after the fork"
            )
        return self._store

    # --- adding

    def add_job(self, job: Job, *, connection: object = None) -> Job:
        """Add *job*; return it as it was stored."""
        return self._add_job(job, None, connection)

    def _add_job(self, job: Job, delay: timedelta | None, connection: object) -> Job:
        store = self._open_store()
        complete = self._with_origin(_checked_job(job))
        store.add_job(complete, delay=delay, connection=connection)
        return complete

    def add_jobs(self, jobs: Iterable[Job], *, connection: object = None) -> list[Job]:
        """Add all of *jobs* or none; return them as they were stored."""
        store = self._open_store()
        if isinstance(jobs, Job):
            raise InvalidJobError("add_jobs takes several jobs: add_job() is for one", field="jobs")
        complete = [self._with_origin(_checked_job(job)) for job in jobs]
        if complete:
            store.add_jobs(complete, connection=connection)
        return complete

    def add_bundle(self, bundle: JobBundle, *, connection: object = None) -> JobBundle:
        """Add a bundle and its members; return it as it was stored."""
        store = self._open_store()
        complete = self._complete_bundle(bundle)
        store.add_bundle(complete, connection=connection)
        return complete

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
        connection: object = None,
    ) -> Job:
        """Make a job and add it."""
        job_type = type_or_handler if isinstance(type_or_handler, str) else _type_of(type_or_handler)
        if max_retry_count is None:
            handler = default_registry.find(job_type) if isinstance(type_or_handler, str) else type_or_handler
            max_retry_count = 0 if handler is None else handler.max_retry_count
        job = Job.new(
            job_type,
            payload,
            origin=origin,
            priority=priority,
            start_at=_start_at(start_at, delay),
            max_retry_count=max_retry_count,
            max_payload_bytes=self._max_payload_bytes,
        )
        return self._add_job(job, delay, connection)

    def _with_origin(self, job: Job) -> Job:
        return job if job.origin is not None else attrs.evolve(job, origin=self._origin)

    def _complete_bundle(self, bundle: object) -> JobBundle:
        if not isinstance(bundle, JobBundle):
            raise InvalidJobError(f"add_bundle takes a JobBundle, not {type(bundle).__qualname__}", field="bundle")
        if not bundle.jobs:
            raise InvalidJobError(f"bundle {bundle.id} has no jobs: it could never complete", field="jobs")
        if bundle.num_jobs != len(bundle.jobs) or any(job.bundle_id != bundle.id for job in bundle.jobs):
            raise InvalidJobError(f"bundle {bundle.id} does not hold its {bundle.num_jobs} members", field="jobs")
        origin = bundle.origin if bundle.origin is not None else self._origin
        on_stopped = bundle.on_stopped
        if on_stopped is not None and on_stopped.origin is None:
            on_stopped = attrs.evolve(on_stopped, origin=origin)
        jobs = tuple(job if job.origin is not None else attrs.evolve(job, origin=origin) for job in bundle.jobs)
        return attrs.evolve(bundle, origin=origin, jobs=jobs, on_stopped=on_stopped)

    # --- reading

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
        limit: int = 100,
        after: Job | Cursor | None = None,
    ) -> list[Job]:
        """Read up to *limit* jobs, the newest first."""
        store = self._open_store()
        which = JobFilter(
            state=None if state is None else _state(state),
            type=None if type is None else check_name("type", type),
            origin=None if origin is None else check_name("origin", origin),
            bundle_id=None if bundle_id is None else check_id(bundle_id),
        )
        return store.list_jobs(which, limit=check_int("limit", limit, COUNT[1:]), after=_cursor(store, after))

    def get_status(self) -> Status:
        """Count jobs and bundles."""
        return self._open_store().get_status()

    # --- resetting and deleting

    def reset_job(self, id: UUID) -> None:
        """Make a job as good as new."""
        if not self._open_store().reset_jobs([check_id(id)]):
            raise JobNotFoundError(id)

    def reset_jobs(self, ids: Iterable[UUID]) -> int:
        """Make several jobs as good as new in one transaction; return how many of them were there."""
        return len(self._open_store().reset_jobs([check_id(id) for id in ids]))

    def delete_job(self, id: UUID) -> None:
        """Delete a job."""
        if not self._open_store().delete_jobs([check_id(id)]):
            raise JobNotFoundError(id)

    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*."""
        return self._open_store().delete_jobs_from_origin(_checked_text("origin", origin))

    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*."""
        return self._open_store().delete_jobs_of_type(_checked_text("type", type))

    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle."""
        return self._open_store().delete_finished_jobs()

    def delete_job_bundle(self, id: UUID) -> None:
        """Delete a bundle with its members."""
        if not self._open_store().delete_job_bundles([check_id(id)]):
            raise JobBundleNotFoundError(id)

    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*, with their members."""
        return self._open_store().delete_job_bundles_from_origin(_checked_text("origin", origin))

    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*, with their members."""
        return self._open_store().delete_job_bundles_of_type(_checked_text("type", type))

    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything."""
        self._open_store().delete_all_jobs_and_bundles()

    # --- living and ending

    def health(self) -> dict[str, Any]:
        """Report each thread and connection, and counts of lost claims and refused outcomes."""
        return self._vitals.report()

    def attach(self, dependent: Finishable) -> None:
        """Have *dependent* finished before the service closes. Raises ClosedError."""
        with self._lock:
            self._open_store()
            self._dependents.add(dependent)

    def detach(self, dependent: Finishable) -> None:
        """Forget *dependent*, which has ended."""
        with self._lock:
            self._dependents.discard(dependent)

    def close(self) -> None:
        """Finish worker pools, for at most 10 seconds each, and close connections. A second call raises ClosedError."""
        with self._lock:
            self._open_store()
            dependents = list(self._dependents)
        for dependent in dependents:
            dependent.finish(_SECONDS_FOR_POOLS)
        with self._lock:
            store = self._open_store()
            self._closed = True
        self._notifier.close()
        store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} origin={self._origin!r}{' closed' if self._closed else ''}>"


def _program_name() -> str:
    """Name the program that runs, as a default for where jobs come from."""
    return (Path(sys.argv[0] if sys.argv else "").name or "python")[:MAX_NAME_LENGTH]


def _checked_job(job: object) -> Job:
    if not isinstance(job, Job):
        raise InvalidJobError(f"a Job is needed, not {type(job).__qualname__}: make one with Job.new()", field="job")
    if job.bundle_id is not None:
        raise InvalidJobError(
            f"job {job.id} is a member of bundle {job.bundle_id}: use add_bundle()", field="bundle_id"
        )
    return job


def _checked_text(field: str, value: object) -> str:
    """Return what is to be compared with a column; another program may have filled that with more than we accept."""
    if not isinstance(value, str):
        raise InvalidJobError(f"{field} must be a str, not {type(value).__qualname__}", field=field)
    return value


def _state(value: str) -> State:
    try:
        return State(value)
    except ValueError:
        raise InvalidJobError(f"{value!r} is not a state: there are {', '.join(State)}", field="state") from None


def _type_of(handler: object) -> str:
    job_type = getattr(handler, "type", None)
    if not isinstance(job_type, str):
        raise InvalidJobError(
            f"enqueue takes a job type or a handler, not {type(handler).__qualname__} {handler!r:.60}", field="type"
        )
    if job_type.endswith("*"):
        raise InvalidJobError(f"the handler is for all types {job_type!r}: name the one of this job", field="type")
    return job_type


def _start_at(start_at: datetime | None, delay: object) -> datetime | None:
    if delay is None:
        return start_at
    if start_at is not None:
        raise InvalidJobError("give start_at or delay, not both", field="delay")
    if not isinstance(delay, timedelta):
        raise InvalidJobError(f"delay must be a timedelta, not {type(delay).__qualname__}", field="delay")
    try:
        return datetime.now(UTC) + delay
    except OverflowError:
        raise InvalidJobError(f"a delay of {delay} leads out of the calendar", field="delay") from None


def _cursor(store: Store, after: Job | Cursor | None) -> Cursor | None:
    if after is None:
        return None
    if not isinstance(after, Job):
        return after
    created_at = after.created_at or store.get_job(after.id).created_at
    if created_at is None:
        raise JobNotFoundError(after.id)
    return created_at, after.id
