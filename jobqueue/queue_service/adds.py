"""The part of the service that adds."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from jobqueue.adding import (
    Distinct,
    complete_bundle,
    complete_job,
    complete_jobs,
    job_type_named,
    moment_after,
    retries_of,
    types_of,
)
from jobqueue.bundle import JobBundle
from jobqueue.events import JobsAdded
from jobqueue.middleware import add_bundle_through, add_job_through, check_adding_middleware, pass_jobs_through
from jobqueue.models import Job
from jobqueue.queue_service.opened import Opened
from jobqueue.retry import RetryPolicy
from jobqueue.service import AddingMiddleware, JobType, Service
from jobqueue.store import Store
from jobqueue.uniqueness import OnConflict, UniqueFor, check_on_conflict


class Adds(Opened):
    """Checks what is added, and fills in what is left open."""

    _add_middleware: tuple[AddingMiddleware, ...] = ()

    @property
    @abstractmethod
    def _service(self) -> Service:
        """The whole of which this is a part."""

    @property
    def add_middleware(self) -> Sequence[AddingMiddleware]:
        """What stands between this service and its rows."""
        return self._add_middleware

    def use(self, middleware: AddingMiddleware) -> None:
        """Have all that is added pass through *middleware*, within what was added before."""
        self._open_store()
        check_adding_middleware(middleware)
        self._add_middleware += (middleware,)

    def add_job(
        self, job: Job, *, on_conflict: OnConflict = "ignore", notify: bool = True, connection: object = None
    ) -> Job:
        """Add *job*; return it as it was stored, or the one that holds its unique key."""
        store = self._open_store()
        complete = complete_job(job, self._origin, self.max_payload_bytes)
        self._known_types.check(complete.type)
        return self._add_job(
            "add_job", store, complete, None, on_conflict=on_conflict, notify=notify, connection=connection
        )

    def _add_job(
        self,
        called: str,
        store: Store,
        job: Job,
        delay: timedelta | None,
        *,
        on_conflict: OnConflict,
        notify: bool,
        connection: object,
    ) -> Job:
        way = check_on_conflict(on_conflict)

        def add(job: Job) -> Job:
            added = store.add_job(job, delay=delay, on_conflict=way, notify=notify, connection=connection)
            self._tell_of([added])
            if self._watch is not None:
                self._note_added(called, [added], way, connection)
            return added

        return add_job_through(self._service, job, add)

    def _note_added(self, called: str, jobs: Sequence[Job], way: OnConflict, connection: object) -> None:
        if way == "replace_payload" or not all(job.is_duplicate for job in jobs):
            self.note_change(called, connection)

    def _tell_of(self, jobs: Iterable[Job]) -> None:
        observers = self._listeners.observers
        if JobsAdded in observers.wanted and (added := tuple(job for job in jobs if not job.is_duplicate)):
            observers.tell(JobsAdded(jobs=added))

    def add_jobs(
        self,
        jobs: Iterable[Job],
        *,
        on_conflict: OnConflict = "ignore",
        notify: bool = True,
        connection: object = None,
    ) -> list[Job]:
        """Add all of *jobs* or none; return them as they were stored, or those that hold their unique keys."""
        store = self._open_store()
        way = check_on_conflict(on_conflict)
        complete = complete_jobs(jobs, self._origin, self.max_payload_bytes)
        self._known_types.check_all(job.type for job in complete)
        passed = pass_jobs_through(self._service, complete)
        if not passed.jobs:
            return passed.answers
        distinct = Distinct.of(passed.jobs, way)
        stored = distinct.spread(store.add_jobs(distinct.jobs, on_conflict=way, notify=notify, connection=connection))
        self._tell_of(stored)
        if self._watch is not None:
            self._note_added("add_jobs", stored, way, connection)
        return passed.answers_for(stored)

    def add_bundle(self, bundle: JobBundle, *, notify: bool = True, connection: object = None) -> JobBundle:
        """Add a bundle and its members; return it as it was stored."""
        store = self._open_store()
        complete = complete_bundle(bundle, self._origin, self.max_payload_bytes)
        self._known_types.check_all(types_of(complete))

        def add(bundle: JobBundle) -> JobBundle:
            store.add_bundle(bundle, notify=notify, connection=connection)
            self._tell_of(bundle.jobs)
            self.note_change("add_bundle", connection)
            return bundle

        return add_bundle_through(self._service, complete, add)

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
        """Make a job and add it."""
        handler = self._known_types.check(type_or_handler)
        # It is complete, and was checked when it was made.
        job = Job.new(
            job_type_named(type_or_handler),
            payload,
            origin=self._origin if origin is None else origin,
            priority=priority,
            start_at=moment_after(start_at, delay),
            max_retry_count=retries_of(handler, retry) if max_retry_count is None else max_retry_count,
            retry=retry,
            unique_key=unique_key,
            unique_by=unique_by,
            unique_for=unique_for,
            max_payload_bytes=self.max_payload_bytes,
        )
        return self._add_job(
            "enqueue", self._open_store(), job, delay, on_conflict=on_conflict, notify=notify, connection=connection
        )
