"""The part of the service that waits for what happens, and tells listeners of it."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.delivery import Delivery
from jobqueue.events import ObservedEvent
from jobqueue.health import OnError
from jobqueue.limits import check_id, check_text
from jobqueue.listener_group import ListenerGroup
from jobqueue.listeners import JobBundleStoppedListener, JobStoppedListener, Listeners, ServiceListener
from jobqueue.models import Job
from jobqueue.observers import Observer
from jobqueue.queue_service.reads import Reads
from jobqueue.threads import Timeout, seconds_of
from jobqueue.waiting import Waiting, refuse_in_handler

_T = TypeVar("_T")


class Hears(Reads):
    """Listeners are called by the thread of a Delivery, which there is while anybody listens."""

    _delivery: Delivery
    _waiting: Waiting

    def wait_for_job(self, id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> Job:
        """Wait until a job has stopped; return it as it then is."""
        self._open_store()
        refuse_in_handler(allowed=allow_in_handler)
        return self._waiting.wait_for_job(check_id(id), self._get_job_apart, seconds_of(timeout))

    def wait_for_bundle(self, id: UUID, timeout: Timeout, *, allow_in_handler: bool = False) -> JobBundle:
        """Wait until all members of a bundle have stopped; return it as it then is."""
        self._open_store()
        refuse_in_handler(allowed=allow_in_handler)
        return self._waiting.wait_for_bundle(check_id(id), self._get_bundle_apart, seconds_of(timeout))

    def _get_job_apart(self, id: UUID) -> Job:
        # In a transaction of the application, nobody would ever see that it has stopped.
        return self._open_store().apart.get_job(id)

    def _get_bundle_apart(self, id: UUID) -> JobBundle:
        return self._open_store().apart.get_job_bundle(id)

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

    def add_observer(self, observer: Observer, *kinds: type[ObservedEvent]) -> None:
        """Have ``observer(event)`` called for what happens."""
        self._open_store()
        self._listeners.observers.add(observer, *kinds)
        self._delivery.hear(or_undo=lambda: self._listeners.observers.remove(observer))

    def remove_observer(self, observer: Observer) -> None:
        """Have *observer* called no more."""
        self._hear_no_more(lambda: self._listeners.observers.remove(observer))

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
