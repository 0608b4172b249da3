"""How events reach listeners: through a bounded queue, in a thread of their own, with one read for many jobs.

Not in the notifier's thread: a listener may be slow, or wait for something itself, and workers must hear of jobs
meanwhile.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextvars import Context
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import attrs

from jobqueue.errors import (
    BackendError,
    JobBundleNotFoundError,
    JobQueueError,
    LockTimeoutError,
    RefusedError,
    UnavailableError,
)
from jobqueue.events import Connected, Event, JobBundleStopped, JobStopped
from jobqueue.health import Health
from jobqueue.listeners import Listeners
from jobqueue.models import Job
from jobqueue.notifier import Notifier
from jobqueue.patience import patience
from jobqueue.store import Store
from jobqueue.threads import Backoff, StoppableThread

logger = logging.getLogger(__name__)

MAX_WAITING_EVENTS: Final = 10_000
"""How many events may wait for slow listeners; what comes then is dropped, and counted as ``dropped_events``."""

MAX_BATCH: Final = 100
"""How many events are taken at a time, with one read for the jobs among them."""

_SECONDS_TO_CONNECT: Final = 5.0
_SECONDS_TO_JOIN: Final = 5.0
_SECONDS_TO_READ: Final = 30.0

_Stopped = JobStopped | JobBundleStopped
_T = TypeVar("_T")


@attrs.define(eq=False)
class _Subscription:
    """One kind of event that is subscribed to."""

    connected: threading.Event = attrs.field(factory=threading.Event)
    is_deaf: bool = False
    """Whether the notifier says that it is connected, and hears nothing even so."""
    end: Callable[[], None] = lambda: None


class Delivery:
    """Delivers the events of one service to its listeners, from the first listener on.

    *prepare* is called in the thread, before it delivers anything: for what listeners find in their context.
    """

    def __init__(
        self,
        listeners: Listeners,
        store: Store,
        notifier: Notifier,
        health: Health,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self._prepare = prepare
        self._listeners = listeners
        self._store = store
        self._notifier = notifier
        self._health = health
        self._lock = threading.Lock()
        self._subscriptions: dict[type[Event], _Subscription] = {}
        self._thread: _DeliveryThread | None = None
        self._closed = False

    def hear(self, *, or_undo: Callable[[], None]) -> None:
        """Adjust, and return when everything that is committed from now on will be heard.

        That is after 5 seconds at the latest, when the database does not answer: then events are heard as soon as it
        does. Whoever added a listener says how to undo that, if it raises.

        Raises:
            JobQueueError: nothing can ever be heard, since the service polls only.
            ClosedError: it was closed meanwhile.
        """
        try:
            self._hear()
        except JobQueueError:
            or_undo()
            self.adjust()
            raise

    def _hear(self) -> None:
        deadline = time.monotonic() + _SECONDS_TO_CONNECT
        self.adjust()
        with self._lock:
            subscriptions = list(self._subscriptions.values())
        for subscription in subscriptions:
            if not subscription.connected.wait(max(0, deadline - time.monotonic())):
                logger.warning("listeners will hear nothing until the database answers")
                return
            if subscription.is_deaf:
                raise JobQueueError(
                    "this service polls only, and would never call a listener: connect with listen_conninfo, which "
                    "leads past a pooler, instead of poll_only; or wait for jobs, or have a bundle's on_stopped do it"
                )

    def adjust(self) -> None:
        """Subscribe to what the listeners want to hear, and to nothing else."""
        with self._lock:
            if self._closed:
                return
            kinds = self._listeners.kinds
            for kind in self._subscriptions.keys() - kinds:
                self._subscriptions.pop(kind).end()
            for kind in kinds - self._subscriptions.keys():
                self._subscriptions[kind] = self._subscribe(kind)

    def _subscribe(self, kind: type[Event]) -> _Subscription:
        if self._thread is None:
            # In no context: the first listener may be added by a handler, or in a test mode, which will have ended.
            self._thread = Context().run(_DeliveryThread, self._listeners, self._store, self._health, self._prepare)
            self._thread.start()
        thread, subscription = self._thread, _Subscription()

        def receive(event: Event) -> None:
            if isinstance(event, JobStopped | JobBundleStopped):
                thread.put(event)
            elif isinstance(event, Connected):
                subscription.is_deaf = not self._notifier.is_listening
                subscription.connected.set()

        subscription.end = self._notifier.subscribe(receive, kind)
        return subscription

    def stop(self) -> None:
        """Deliver no more, but for the event that a listener is hearing. Safe to call twice, and from a listener."""
        with self._lock:
            self._closed = True
            subscriptions, self._subscriptions = list(self._subscriptions.values()), {}
        for subscription in subscriptions:
            subscription.end()
            subscription.connected.set()
        if self._thread is not None:
            self._thread.stop()

    def join(self) -> None:
        """Wait for the thread to end, for at most 5 seconds; a listener that calls this is not waited for."""
        thread = self._thread
        if thread is not None and not thread.is_current and not thread.join(_SECONDS_TO_JOIN):
            logger.warning("a listener has not come back within %g s", _SECONDS_TO_JOIN)


class _DeliveryThread(StoppableThread):
    """Takes events from the queue, reads what listeners want to see of them, and tells the listeners."""

    def __init__(self, listeners: Listeners, store: Store, health: Health, prepare: Callable[[], object]) -> None:
        super().__init__("jobqueue-events")
        self._prepare = prepare
        self._listeners = listeners
        self._store = store
        self._health = health
        self._vital = health.vital("events")
        self._changed = threading.Condition()
        self._events = deque[_Stopped]()
        self._num_dropped = 0

    def put(self, event: _Stopped) -> None:
        """Take an event, or drop it when too many wait already."""
        with self._changed:
            fits = len(self._events) < MAX_WAITING_EVENTS
            if fits:
                self._events.append(event)
                self._changed.notify()
                return
            self._num_dropped += 1
            is_first = self._num_dropped == 1
        self._health.count("dropped_events")
        if is_first:
            logger.warning("listeners are too slow: %d events wait for them, and more are dropped", MAX_WAITING_EVENTS)

    def stop(self) -> None:
        """Ask the thread to end."""
        super().stop()
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        """Deliver until stopped."""
        self._prepare()
        while batch := self._take():
            self._attempt(partial(self._deliver, batch))

    def _take(self) -> list[_Stopped]:
        """Wait for events and return them; none when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._stopping.is_set())
            if self._stopping.is_set():
                return []
            batch = [self._events.popleft() for _ in range(min(MAX_BATCH, len(self._events)))]
            num_dropped = 0
            if not self._events:
                num_dropped, self._num_dropped = self._num_dropped, 0
        if num_dropped:
            logger.warning("listeners have caught up; they were not told of %d events", num_dropped)
        return batch

    def _deliver(self, batch: Sequence[_Stopped]) -> None:
        jobs = self._jobs_of(batch)
        for event in batch:
            if self._stopping.is_set():
                return
            self._listeners.tell_event(event)
            if isinstance(event, JobStopped):
                if (job := jobs.get(event.id)) is not None:
                    self._listeners.tell_job(job, will_retry=event.will_retry)
            elif self._listeners.want(event):
                self._tell_bundle(event.id)

    def _jobs_of(self, batch: Sequence[_Stopped]) -> dict[UUID, Job]:
        """Read the jobs that are wanted, as they are by now; those that were deleted meanwhile are not there."""
        ids = {event.id for event in batch if isinstance(event, JobStopped) and self._listeners.want(event)}
        if not ids:
            return {}
        try:
            jobs = self._read(lambda: self._store.get_jobs(ids)) or []
        except Exception as error:  # noqa: BLE001 - reading them singly shows what is wrong
            jobs = [] if self._is_shut_out(error) else self._read_singly(ids)
        return {job.id: job for job in jobs}

    def _read_singly(self, ids: Collection[UUID]) -> list[Job]:
        """Read jobs so that those which cannot be read do not keep the others from listeners."""
        jobs: list[Job] = []
        errors: list[Exception] = []
        for id_ in ids:
            try:
                jobs += self._read(partial(self._store.get_jobs, [id_])) or []
            except Exception as error:  # noqa: BLE001 - whatever makes it unreadable
                errors.append(error)
        if errors:
            self._give_up(f"{len(errors)} jobs, which", errors[0])
        return jobs

    def _tell_bundle(self, bundle_id: UUID) -> None:
        try:
            bundle = self._read(lambda: self._store.get_job_bundle(bundle_id))
        except JobBundleNotFoundError:
            logger.debug("bundle %s was deleted before its listeners could be told", bundle_id)
        except Exception as error:  # noqa: BLE001 - the next event is another story
            if not self._is_shut_out(error):
                self._give_up(f"bundle {bundle_id}, which", error)
        else:
            if bundle is not None:
                self._listeners.tell_bundle(bundle)

    def _is_shut_out(self, error: Exception) -> bool:
        """Return whether *error* is not about rows but about their tables; if so, it has been told, the first time."""
        if not isinstance(error, BackendError) or isinstance(error, RefusedError):
            return False
        if self._vital.failed(error):
            logger.error("listeners are not told of jobs and bundles, which cannot be read: %s", error)
        return True

    def _give_up(self, what: str, error: Exception) -> None:
        logger.error("listeners are not told of %s cannot be read", what, exc_info=error)
        self._health.tell_of(error)

    def _read(self, read: Callable[[], _T]) -> _T | None:
        """Read, however long the database takes to answer; None when the thread is to end."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                with patience(_SECONDS_TO_READ):
                    found = read()
            except (UnavailableError, LockTimeoutError) as error:
                if self._vital.failed(error):
                    logger.warning("listeners have to wait, the database does not answer: %s", error)
                self._stopping.wait(backoff.next())
            except Exception:
                if self._stopping.is_set():
                    return None  # the store may be closed already
                raise
            else:
                if self._vital.succeeded():
                    logger.warning("listeners go on, the database answers again")
                return found
        return None
