"""The service over one store and one notifier: checks what it is given, fills in what is left open."""

import os
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from jobqueue.adding import (
    complete_bundle,
    complete_job,
    complete_jobs,
    job_type_named,
    moment_after,
    program_name,
    retries_of,
)
from jobqueue.claim import Claim
from jobqueue.claims import Claims
from jobqueue.context import make_current
from jobqueue.delivery import Delivery
from jobqueue.errors import ClosedError, InvalidJobError, JobBundleNotFoundError, JobNotFoundError
from jobqueue.health import Health, OnError
from jobqueue.limits import COUNT, check_id, check_int, check_moment, check_name, check_text
from jobqueue.listeners import JobBundleStoppedListener, JobStoppedListener, ListenerGroup, Listeners, ServiceListener
from jobqueue.middleware import add_bundle_through, add_job_through
from jobqueue.models import Job, JobBundle, State, Status
from jobqueue.notifier import Notifier
from jobqueue.payload import MAX_PAYLOAD_BYTES
from jobqueue.service import Finishable, JobType
from jobqueue.settings import WorkerSettings
from jobqueue.store import Cursor, JobFilter, Store, cursor_after
from jobqueue.threads import Timeout, seconds_of
from jobqueue.waiting import Waiting, refuse_in_handler

_SECONDS_FOR_POOLS: Final = 10.0
_T = TypeVar("_T")


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
        self._origin = check_name("origin", origin if origin is not None else program_name())
        self.max_payload_bytes: Final = max_payload_bytes
        self._vitals = vitals if vitals is not None else Health()
        self._listeners = Listeners(self._vitals)
        self._delivery = Delivery(self._listeners, store, notifier, self._vitals, lambda: make_current(self))
        self._waiting = Waiting(notifier, settings.poll_interval)
        self._claims = Claims(self)
        self._process = os.getpid()
        # A signal handler that finishes a pool may interrupt whoever holds it.
        self._lock = threading.RLock()
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
        self._check_process()
        if self._closed:
            raise ClosedError("the job queue service was closed: connect again")
        return self._store

    def _check_process(self) -> None:
        """Refuse a forked child, before it waits for a lock that a thread of its parent may have held at the fork."""
        if self._process != os.getpid():
            raise ClosedError(
                f"this job queue service belongs to process {self._process}, from which this one ({os.getpid()}) was "
                "forked: connections cannot be shared, so connect after the fork"
            )

    # --- adding

    def add_job(self, job: Job, *, notify: bool = True, connection: object = None) -> Job:
        """Add *job*; return it as it was stored."""
        store = self._open_store()
        complete = complete_job(job, self._origin, self.max_payload_bytes)
        return self._add_job(store, complete, None, notify=notify, connection=connection)

    def _add_job(self, store: Store, job: Job, delay: timedelta | None, *, notify: bool, connection: object) -> Job:
        def add(job: Job) -> Job:
            store.add_job(job, delay=delay, notify=notify, connection=connection)
            return job

        return add_job_through(self, job, add)

    def add_jobs(self, jobs: Iterable[Job], *, notify: bool = True, connection: object = None) -> list[Job]:
        """Add all of *jobs* or none; return them as they were stored."""
        store = self._open_store()
        kept: list[Job] = []

        def keep(job: Job) -> Job:
            kept.append(job)
            return job

        added = [add_job_through(self, job, keep) for job in complete_jobs(jobs, self._origin, self.max_payload_bytes)]
        if kept:
            store.add_jobs(kept, notify=notify, connection=connection)
        return added

    def add_bundle(self, bundle: JobBundle, *, notify: bool = True, connection: object = None) -> JobBundle:
        """Add a bundle and its members; return it as it was stored."""
        store = self._open_store()

        def add(bundle: JobBundle) -> JobBundle:
            store.add_bundle(bundle, notify=notify, connection=connection)
            return bundle

        return add_bundle_through(self, complete_bundle(bundle, self._origin, self.max_payload_bytes), add)

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
        notify: bool = True,
        connection: object = None,
    ) -> Job:
        """Make a job and add it."""
        # It is complete, and was checked when it was made.
        job = Job.new(
            job_type_named(type_or_handler),
            payload,
            origin=self._origin if origin is None else origin,
            priority=priority,
            start_at=moment_after(start_at, delay),
            max_retry_count=retries_of(type_or_handler) if max_retry_count is None else max_retry_count,
            max_payload_bytes=self.max_payload_bytes,
        )
        return self._add_job(self._open_store(), job, delay, notify=notify, connection=connection)

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
        which = JobFilter.of(state=state, type=type, origin=origin, bundle_id=bundle_id)
        return store.list_jobs(which, limit=check_int("limit", limit, COUNT[1:]), after=cursor_after(after, store))

    def get_status(self) -> Status:
        """Count jobs and bundles."""
        return self._open_store().get_status()

    # --- managing

    def reset_job(self, id: UUID) -> None:
        """Make a job as good as new."""
        if not self._open_store().reset_jobs([check_id(id)]):
            raise JobNotFoundError(id)

    def reset_jobs(self, ids: Iterable[UUID]) -> int:
        """Make several jobs as good as new in one transaction; return how many of them were there."""
        return len(self._open_store().reset_jobs([check_id(id) for id in ids]))

    def replay_job(self, id: UUID) -> bool:
        """Make a job that has failed as good as new."""
        return bool(self._open_store().replay_jobs([check_id(id)]))

    def cancel_job(self, id: UUID) -> bool:
        """Stop a job that has not stopped."""
        return bool(self._open_store().cancel_jobs([check_id(id)]))

    def reschedule_job(self, id: UUID, start_at: datetime | None) -> bool:
        """Have a waiting job be due at another moment."""
        return self._open_store().reschedule_job(check_id(id), check_moment("start_at", start_at))

    def delete_job(self, id: UUID) -> None:
        """Delete a job."""
        if not self._open_store().delete_jobs([check_id(id)]):
            raise JobNotFoundError(id)

    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*."""
        return self._open_store().delete_jobs_from_origin(check_text("origin", origin))

    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*."""
        return self._open_store().delete_jobs_of_type(check_text("type", type))

    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle."""
        return self._open_store().delete_finished_jobs()

    def delete_job_bundle(self, id: UUID) -> None:
        """Delete a bundle with its members."""
        if not self._open_store().delete_job_bundles([check_id(id)]):
            raise JobBundleNotFoundError(id)

    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*, with their members."""
        return self._open_store().delete_job_bundles_from_origin(check_text("origin", origin))

    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*, with their members."""
        return self._open_store().delete_job_bundles_of_type(check_text("type", type))

    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything."""
        self._open_store().delete_all_jobs_and_bundles()

    # --- waiting and hearing

    def wait_for_job(self, id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> Job:
        """Wait until a job has stopped; return it as it then is."""
        self._open_store()
        refuse_in_handler(allowed=allow_in_handler)
        return self._waiting.wait_for_job(check_id(id), self.get_job, seconds_of(timeout))

    def wait_for_bundle(self, id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> JobBundle:
        """Wait until all members of a bundle have stopped; return it as it then is."""
        self._open_store()
        refuse_in_handler(allowed=allow_in_handler)
        return self._waiting.wait_for_bundle(check_id(id), self.get_job_bundle, seconds_of(timeout))

    def claim(self, types: str | Iterable[str], n: int = 1) -> list[Claim]:
        """Claim up to *n* due jobs, to run them by hand."""
        self._open_store()
        return self._claims.claim(types, check_int("n", n, COUNT[1:]))

    @property
    def listeners(self) -> Listeners:
        """Who hears of what has stopped."""
        return self._listeners

    def add_listener(self, listener: ServiceListener) -> None:
        """Have *listener* hear of each job and bundle that has stopped."""
        self._hear_by(self._listeners.of_service, listener)

    def remove_listener(self, listener: ServiceListener) -> None:
        """Have *listener* hear nothing more."""
        self._hear_no_more(lambda: self._listeners.of_service.remove(listener))

    def add_job_stopped_listener(self, listener: JobStoppedListener) -> None:
        """Have ``listener(job, will_retry)`` called for each job that has stopped."""
        self._hear_by(self._listeners.of_jobs, listener)

    def remove_job_stopped_listener(self, listener: JobStoppedListener) -> None:
        """Have *listener* called no more."""
        self._hear_no_more(lambda: self._listeners.of_jobs.remove(listener))

    def add_job_bundle_stopped_listener(self, listener: JobBundleStoppedListener) -> None:
        """Have ``listener(bundle)`` called for each bundle that has stopped."""
        self._hear_by(self._listeners.of_bundles, listener)

    def remove_job_bundle_stopped_listener(self, listener: JobBundleStoppedListener) -> None:
        """Have *listener* called no more."""
        self._hear_no_more(lambda: self._listeners.of_bundles.remove(listener))

    def set_job_bundle_of_type_stopped_listener(self, type: str, listener: JobBundleStoppedListener) -> None:
        """Have ``listener(bundle)`` called for each bundle of *type* that has stopped, in place of any other."""
        self._open_store()
        self._listeners.set_of_bundle_type(check_text("type", type), listener)
        self._delivery.hear(or_undo=lambda: self._listeners.remove_of_bundle_type(type))

    def remove_job_bundle_of_type_stopped_listener(self, type: str) -> None:
        """Have no listener for bundles of *type*."""
        self._hear_no_more(lambda: self._listeners.remove_of_bundle_type(type))

    def remove_all_job_bundle_stopped_listeners(self) -> None:
        """Have no listener for bundles, nor for bundles of a type."""
        self._hear_no_more(self._listeners.clear_of_bundles)

    def _hear_by(self, group: ListenerGroup[_T], listener: _T) -> None:
        self._open_store()
        group.add(listener)
        self._delivery.hear(or_undo=lambda: group.remove(listener))

    def _hear_no_more(self, remove: Callable[[], object]) -> None:
        self._check_process()
        remove()
        self._delivery.adjust()

    def set_on_error(self, on_error: OnError | None) -> None:
        """Have ``on_error(error)`` called with each error of handlers, listeners and threads."""
        self._open_store()
        self._vitals.set_on_error(on_error)

    # --- living and ending

    def health(self) -> dict[str, Any]:
        """Report each thread and connection, and counts of lost claims and refused outcomes."""
        self._check_process()
        return self._vitals.report()

    def attach(self, dependent: Finishable) -> None:
        """Have *dependent* finished before the service closes. Raises ClosedError."""
        self._open_store()
        with self._lock:
            self._open_store()
            self._dependents.add(dependent)

    def detach(self, dependent: Finishable) -> None:
        """Forget *dependent*, which has ended."""
        self._check_process()
        with self._lock:
            self._dependents.discard(dependent)

    def close(self) -> None:
        """Finish worker pools, for at most 10 seconds each, and close connections. A second call raises ClosedError."""
        self._open_store()
        with self._lock:
            dependents = list(self._dependents)
        for dependent in dependents:
            dependent.finish(_SECONDS_FOR_POOLS)
        # Before anything is closed that they need: what was claimed by hand is given back.
        self._claims.close()
        with self._lock:
            store = self._open_store()
            self._closed = True
        self._waiting.wake()
        self._delivery.stop()
        self._notifier.close()
        # Before anybody is waited for who may wait for a connection.
        store.close()
        self._delivery.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A child that was forked within the block leaves it, too.
        if self._process == os.getpid():
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} origin={self._origin!r}{' closed' if self._closed else ''}>"
