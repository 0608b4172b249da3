"""What the service hears, and whom it tells."""

from typing import Protocol
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.events import ObservedEvent
from jobqueue.health import OnError
from jobqueue.listeners import JobBundleStoppedListener, JobStoppedListener, Listeners, ServiceListener
from jobqueue.models import Job
from jobqueue.observers import Observer
from jobqueue.threads import Timeout


class Hears(Protocol):
    """Wait for jobs and bundles to stop, or be told."""

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

    def add_observer(self, observer: Observer, *kinds: type[ObservedEvent]) -> None:
        """Have ``observer(event)`` called for events of *kinds*, classes of ``jobqueue.events``; none: for all.

        Those of ``LOCAL_EVENTS`` come from this process alone, in the thread in which they happen, which waits for the
        observer. JobStopped and JobBundleStopped come from all processes, when they are committed, as for listeners;
        a service that polls only cannot hear of them. What an observer raises is logged, and told to the function for
        errors.

        Raises:
            TypeError: it cannot be called, or there is no such event.
            JobQueueError: the service polls only, and was asked for more than ``LOCAL_EVENTS``.
        """
        ...

    def remove_observer(self, observer: Observer) -> None:
        """Have *observer* called no more."""
        ...

    def set_on_error(self, on_error: OnError | None) -> None:
        """Have ``on_error(error)`` called for what nobody else is told of, in place of whoever was; None: nobody.

        That is: what handlers, retry schedules and listeners raise, and what keeps threads from the database (once,
        when it begins). It is called in the thread where that happens; what it raises is logged.
        """
        ...
