"""Who hears what has stopped: the listeners of a service, and how an error of one is kept from the next."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.events import Event, JobBundleStopped, JobStopped
from jobqueue.health import Health
from jobqueue.listener_group import ListenerGroup, check_listener
from jobqueue.models import Job
from jobqueue.observers import Observers

logger = logging.getLogger(__name__)

JobStoppedListener = Callable[[Job, bool], object]
"""Is called with a job that has stopped, and whether it will be retried."""

JobBundleStoppedListener = Callable[[JobBundle], object]
"""Is called with a bundle whose members have all stopped, and with them."""

_T = TypeVar("_T")


class ServiceListener(Protocol):
    """Hears of jobs and bundles without reading them: derive from it, and override what is of interest."""

    # With a return, type checkers take a method for one that does nothing, and not for one that has to be overridden.

    def on_job_stopped(self, id: UUID, type: str, origin: str, will_retry: bool) -> None:  # noqa: ARG002, FBT001
        """Hear that a job has stopped; or, if it *will_retry*, that a run of it has failed which was not its last."""
        return

    def on_job_bundle_stopped(self, id: UUID, type: str, origin: str) -> None:  # noqa: ARG002
        """Hear that all members of a bundle have stopped."""
        return


class Listeners:
    """All listeners of one service. Safe for use by many threads, and by listeners themselves."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self.observers = Observers(health)
        self.of_service = ListenerGroup[ServiceListener]("on_job_stopped", "on_job_bundle_stopped")
        self.of_jobs = ListenerGroup[JobStoppedListener]("__call__")
        self.of_bundles = ListenerGroup[JobBundleStoppedListener]("__call__")
        self._lock = threading.Lock()
        self._of_bundle_types: dict[str, JobBundleStoppedListener] = {}

    def set_of_bundle_type(self, type: str, listener: JobBundleStoppedListener) -> None:
        """Make *listener* the one for bundles of *type*, in place of any other. Raises TypeError as the groups do."""
        check_listener(listener, "__call__")
        with self._lock:
            self._of_bundle_types[type] = listener

    def remove_of_bundle_type(self, type: str) -> None:
        """Have no listener for bundles of *type*; nothing happens if there is none."""
        with self._lock:
            self._of_bundle_types.pop(type, None)

    def clear_of_bundles(self) -> None:
        """Remove all listeners for bundles, those for bundles of a type among them."""
        with self._lock:
            self._of_bundle_types.clear()
        self.of_bundles.clear()

    @property
    def kinds(self) -> frozenset[type[Event]]:
        """The events that anybody wants to hear."""
        kinds = set[type[Event]]()
        if self.of_service.all or self.of_jobs.all:
            kinds.add(JobStopped)
        if self.of_service.all or self.of_bundles.all or self._of_bundle_types:
            kinds.add(JobBundleStopped)
        return self.observers.kinds_to_hear.union(kinds)

    def want(self, event: JobStopped | JobBundleStopped) -> bool:
        """Whether the job or bundle has to be read for anybody."""
        if isinstance(event, JobStopped):
            return bool(self.of_jobs.all)
        # A notification may cut the type of a bundle of another program; then it is not known before it is read.
        return bool(self.of_bundles.all or self._of_bundle_types)

    def tell_event(self, event: JobStopped | JobBundleStopped) -> None:
        """Tell those that want no more than the event."""
        self.observers.tell(event)
        self._tell(self.of_service, lambda listener: _hear(listener, event), f"event of {event.id}")

    def tell_job(self, job: Job, *, will_retry: bool) -> None:
        """Tell the listeners that want the job."""
        self._tell(self.of_jobs, lambda listener: listener(job, will_retry), f"job {job.id}")

    def tell_bundle(self, bundle: JobBundle) -> None:
        """Tell the listeners that want the bundle: first those for all, then the one for its type."""
        self._tell(self.of_bundles, lambda listener: listener(bundle), f"bundle {bundle.id}")
        if (of_type := self._of_bundle_types.get(bundle.type)) is not None:
            self._call(partial(of_type, bundle), f"bundle {bundle.id}")

    def tell_bundle_stopped(self, bundle: JobBundle) -> None:
        """Tell everybody of a bundle that is not stored anywhere."""
        self.tell_event(JobBundleStopped(id=bundle.id, type=bundle.type, origin=bundle.origin or ""))
        self.tell_bundle(bundle)

    def _tell(self, listeners: ListenerGroup[_T], how: Callable[[_T], object], what: str) -> None:
        """Tell each, unless it was removed meanwhile."""
        for listener in listeners.all:
            if listeners.has(listener):
                self._call(partial(how, listener), what)

    def _call(self, call: Callable[[], object], what: str) -> None:
        """Call a listener; what it raises is logged, and goes no further."""
        try:
            call()
        except BaseException as error:
            logger.exception("a listener failed on %s", what)
            self._health.tell_of(error)


def _hear(listener: ServiceListener, event: JobStopped | JobBundleStopped) -> None:
    if isinstance(event, JobStopped):
        listener.on_job_stopped(event.id, event.type, event.origin, event.will_retry)
    else:
        listener.on_job_bundle_stopped(event.id, event.type, event.origin)
