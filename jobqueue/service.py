"""What an application holds to add, read, reset and delete jobs: the port, whatever stands behind it."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from jobqueue.claim import Claim
from jobqueue.health import Health, OnError
from jobqueue.listeners import JobBundleStoppedListener, JobStoppedListener, Listeners, ServiceListener
from jobqueue.models import Job, JobBundle, State, Status
from jobqueue.notifier import Notifier
from jobqueue.retry import RetryPolicy
from jobqueue.settings import WorkerSettings
from jobqueue.store import Cursor, Store
from jobqueue.threads import Timeout


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


class Finishable(Protocol):
    """Something that works for a service and has to end before it: a worker pool."""

    def finish(self, timeout: float | timedelta | None = None) -> bool:
        """Stop and wait; return whether everything has ended."""
        ...


class AddingMiddleware(Protocol):
    """What may stand between a service and its rows; see ``jobqueue.AddMiddleware``."""

    def add_job(self, service: "Service", job: Job, add: Callable[[Job], Job]) -> Job:
        """Add *job*, or do something else."""
        ...

    def add_bundle(self, service: "Service", bundle: JobBundle, add: Callable[[JobBundle], JobBundle]) -> JobBundle:
        """Add *bundle*, or do something else."""
        ...


class Service(Protocol):
    """Add, read, reset and delete jobs.

    Every method raises ClosedError once the service is closed, but for ``health``, ``detach`` and those that remove
    listeners, which still work; and BackendError when the database fails. With *connection*, a job is added in the
    transaction that is open on it: it exists when that commits. Without *notify*, no worker is woken for it: it is
    found by whoever looks next, after ``poll_interval`` at the latest.
    """

    @property
    def settings(self) -> WorkerSettings:
        """The rules for the workers of this service."""
        ...

    @property
    def max_payload_bytes(self) -> int:
        """How long payloads and results may be, as JSON in UTF-8."""
        ...

    @property
    def store(self) -> Store:
        """The rows, for worker pools."""
        ...

    @property
    def notifier(self) -> Notifier:
        """The events, for worker pools."""
        ...

    @property
    def add_middleware(self) -> Sequence[AddingMiddleware]:
        """What stands between this service and its rows, the outermost first."""
        ...

    def use(self, middleware: AddingMiddleware) -> None:
        """Have all that is added pass through *middleware*, within what was added before. It stays for good."""
        ...

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

    def reset_job(self, id: UUID) -> None:
        """Make a job as good as new: no error, no result, no retry used. A running one's claim is lost.

        Raises JobNotFoundError.
        """
        ...

    def reset_jobs(self, ids: Iterable[UUID]) -> int:
        """Make several jobs as good as new in one transaction; return how many of them were there."""
        ...

    def replay_job(self, id: UUID) -> bool:
        """Make a job that has failed as good as new; return False, and change nothing, in any other case."""
        ...

    def cancel_job(self, id: UUID) -> bool:
        """Stop a job that has not stopped, for good; return whether there was one.

        A running one stops at once as far as the queue goes: its claim is lost, its handler is told by its context,
        and what that still leads to is not saved.
        """
        ...

    def reschedule_job(self, id: UUID, start_at: datetime | None) -> bool:
        """Have a job that has not started be due at *start_at* (None: now); return whether there was one."""
        ...

    def delete_job(self, id: UUID) -> None:
        """Delete a job, also a running one (its claim is lost), also out of its bundle. Raises JobNotFoundError."""
        ...

    def delete_jobs_from_origin(self, origin: str) -> int:
        """Delete all jobs that came from *origin*; return how many."""
        ...

    def delete_jobs_of_type(self, type: str) -> int:
        """Delete all jobs of *type*; return how many."""
        ...

    def delete_finished_jobs(self) -> int:
        """Delete all jobs that succeeded and are in no bundle; return how many."""
        ...

    def delete_job_bundle(self, id: UUID) -> None:
        """Delete a bundle with its members. Raises JobBundleNotFoundError."""
        ...

    def delete_job_bundles_from_origin(self, origin: str) -> int:
        """Delete all bundles that came from *origin*, with their members; return how many bundles."""
        ...

    def delete_job_bundles_of_type(self, type: str) -> int:
        """Delete all bundles of *type*, with their members; return how many bundles."""
        ...

    def delete_all_jobs_and_bundles(self) -> None:
        """Delete everything."""
        ...

    def wait_for_job(self, id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> Job:
        """Wait until a job has stopped; return it as it then is, whatever became of it.

        *timeout* is in seconds, or a timedelta; None: for ever. A database that does not answer meanwhile is waited
        for.

        Raises:
            TimeoutError: it has not stopped within *timeout*.
            JobNotFoundError: it is not there, or its transaction is not committed: at once; or it is deleted meanwhile:
                within ``settings.poll_interval``.
            JobQueueError: a handler is calling, which would block a worker thread, and *allow_in_handler* is false.
        """
        ...

    def wait_for_bundle(self, id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> JobBundle:
        """Wait until all members of a bundle have stopped; return it, with them, as it then is.

        Raises as ``wait_for_job``, with JobBundleNotFoundError.
        """
        ...

    def claim(self, types: str | Iterable[str], n: int = 1) -> list[Claim]:
        """Claim up to *n* due jobs of *types* (names and patterns), to run them by hand.

        Raises InvalidJobError when one of *types* is neither.
        """
        ...

    @property
    def listeners(self) -> Listeners:
        """Who hears of what has stopped."""
        ...

    def add_listener(self, listener: ServiceListener) -> None:
        """Have *listener* hear of each job and bundle that has stopped, wherever; nothing is read for it.

        Whatever is committed after this call returns is heard, in the order of commits; but not what is committed while
        the connection to the database is lost, nor what does not fit into the queue of 10,000 events that wait for slow
        listeners (``dropped_events`` in ``health()``). Have a bundle's ``on_stopped`` do what must not be missed.

        Listeners are called one after the other, in a thread of the service's, in which it is the current service.
        Whatever one raises is logged, told to the function for errors, and kept from the next.

        Raises, like the other methods that add a listener:
            TypeError: it has not the methods to hear.
            JobQueueError: the service was opened to poll only, and would never call it.
        """
        ...

    def remove_listener(self, listener: ServiceListener) -> None:
        """Have *listener* hear nothing more."""
        ...

    def add_job_stopped_listener(self, listener: JobStoppedListener) -> None:
        """Have ``listener(job, will_retry)`` called for each job that has stopped, with the job as it then is.

        With *will_retry*, a run of it has failed that was not its last. Jobs that are deleted by then are passed over.
        """
        ...

    def remove_job_stopped_listener(self, listener: JobStoppedListener) -> None:
        """Have *listener* called no more; once for each time that it was added."""
        ...

    def add_job_bundle_stopped_listener(self, listener: JobBundleStoppedListener) -> None:
        """Have ``listener(bundle)`` called for each bundle that has stopped, with its members."""
        ...

    def remove_job_bundle_stopped_listener(self, listener: JobBundleStoppedListener) -> None:
        """Have *listener* called no more; once for each time that it was added."""
        ...

    def set_job_bundle_of_type_stopped_listener(self, type: str, listener: JobBundleStoppedListener) -> None:
        """Have ``listener(bundle)`` called for each bundle of *type* that has stopped, in place of any other."""
        ...

    def remove_job_bundle_of_type_stopped_listener(self, type: str) -> None:
        """Have no listener for bundles of *type*."""
        ...

    def remove_all_job_bundle_stopped_listeners(self) -> None:
        """Have no listener for bundles, nor for bundles of a type."""
        ...

    def set_on_error(self, on_error: OnError | None) -> None:
        """Have ``on_error(error)`` called for what nobody else is told of, in place of whoever was; None: nobody.

        That is: what handlers, retry schedules and listeners raise, and what keeps threads from the database (once,
        when it begins). It is called in the thread where that happens; what it raises is logged.
        """
        ...

    @property
    def vitals(self) -> Health:
        """Where worker pools note how they are doing."""
        ...

    def health(self) -> dict[str, Any]:
        """Report each thread and connection, and counts of lost claims and refused outcomes.

        Under ``parts`` each has its state, since when, and the class of its last error. Works on a closed service, too.
        """
        ...

    def attach(self, dependent: Finishable) -> None:
        """Have *dependent* finished before the service closes. Raises ClosedError."""
        ...

    def detach(self, dependent: Finishable) -> None:
        """Forget *dependent*, which has ended."""
        ...

    def close(self) -> None:
        """Close connections and threads of the service. A second call raises ClosedError."""
        ...
