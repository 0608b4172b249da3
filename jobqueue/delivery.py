"""How events reach listeners: through a bounded queue, in a thread of their own, with one read for many jobs.

Not in the notifier's thread: a listener may be slow, or wait for something itself, and workers must hear of jobs
meanwhile.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from jobqueue.errors import BackendError, JobBundleNotFoundError, UnavailableError
from jobqueue.events import Connected, Event, JobBundleStopped, JobStopped
from jobqueue.health import Health
from jobqueue.listeners import Listeners
from jobqueue.models import Job
from jobqueue.notifier import Notifier
from jobqueue.store import Store
from jobqueue.threads import Backoff, StoppableThread

logger = logging.getLogger(__name__)

MAX_WAITING_EVENTS: Final = 10_000
"""How many events may wait for slow listeners; what comes then is dropped, and counted as ``dropped_events``."""

_MAX_BATCH: Final = 100
_SECONDS_TO_CONNECT: Final = 5.0
_SECONDS_TO_JOIN: Final = 5.0

_Stopped = JobStopped | JobBundleStopped
_T = TypeVar("_T")


class Delivery:
    """Delivers the events of one service to its listeners, from the first listener on."""

    def __init__(self, listeners: Listeners, store: Store, notifier: Notifier, health: Health) -> None:
        self._listeners = listeners
        self._store = store
        self._notifier = notifier
        self._health = health
        self._lock = threading.Lock()
        self._unsubscribe: dict[type[Event], Callable[[], None]] = {}
        self._thread: _DeliveryThread | None = None
        self._closed = False

    def adjust(self) -> None:
        """Subscribe to what the listeners want to hear, and to nothing else; return when it is heard.

        That may be after a few seconds, when the database does not answer: then events are heard as soon as it does.
        """
        with self._lock:
            if self._closed:
                return
            kinds = self._listeners.kinds
            for kind in self._unsubscribe.keys() - kinds:
                self._unsubscribe.pop(kind)()
            heard = [self._subscribe(kind) for kind in kinds - self._unsubscribe.keys()]
        for connected in heard:
            if not connected.wait(_SECONDS_TO_CONNECT):
                logger.warning("listeners will hear nothing until the database answers")

    def _subscribe(self, kind: type[Event]) -> threading.Event:
        if self._thread is None:
            self._thread = _DeliveryThread(self._listeners, self._store, self._health)
            self._thread.start()
        thread, connected = self._thread, threading.Event()

        def receive(event: Event) -> None:
            if isinstance(event, JobStopped | JobBundleStopped):
                thread.put(event)
            elif isinstance(event, Connected):
                connected.set()

        self._unsubscribe[kind] = self._notifier.subscribe(receive, kind)
        return connected

    def close(self) -> None:
        """Deliver no more. Safe to call twice, and from a listener."""
        with self._lock:
            self._closed = True
            unsubscribe, self._unsubscribe = list(self._unsubscribe.values()), {}
        for end in unsubscribe:
            end()
        if self._thread is not None:
            self._thread.stop()
            if not self._thread.join(_SECONDS_TO_JOIN):
                logger.warning("a listener has not come back within %g s", _SECONDS_TO_JOIN)


class _DeliveryThread(StoppableThread):
    """Takes events from the queue, reads what listeners want to see of them, and tells the listeners."""

    def __init__(self, listeners: Listeners, store: Store, health: Health) -> None:
        super().__init__("jobqueue-events")
        self._listeners = listeners
        self._store = store
        self._health = health
        self._vital = health.vital("events")
        self._changed = threading.Condition()
        self._events = deque[_Stopped]()
        self._is_dropping = False

    def put(self, event: _Stopped) -> None:
        """Take an event, or drop it when too many wait already."""
        with self._changed:
            fits = len(self._events) < MAX_WAITING_EVENTS
            starts_to_drop, self._is_dropping = not fits and not self._is_dropping, not fits
            if fits:
                self._events.append(event)
                self._changed.notify()
        if not fits:
            self._health.count("dropped_events")
        if starts_to_drop:
            logger.warning("listeners are too slow: %d events wait for them, and more are dropped", MAX_WAITING_EVENTS)

    def stop(self) -> None:
        """Ask the thread to end."""
        super().stop()
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        """Deliver until stopped."""
        while batch := self._take():
            self._attempt(partial(self._deliver, batch))

    def _take(self) -> list[_Stopped]:
        """Wait for events and return them; none when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._stopping.is_set())
            if self._stopping.is_set():
                return []
            return [self._events.popleft() for _ in range(min(_MAX_BATCH, len(self._events)))]

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
        jobs = self._read(lambda: self._store.get_jobs(ids)) if ids else None
        return {job.id: job for job in jobs or ()}

    def _tell_bundle(self, bundle_id: UUID) -> None:
        try:
            bundle = self._read(lambda: self._store.get_job_bundle(bundle_id))
        except JobBundleNotFoundError:
            logger.debug("bundle %s was deleted before its listeners could be told", bundle_id)
            return
        if bundle is not None:
            self._listeners.tell_bundle(bundle)

    def _read(self, read: Callable[[], _T]) -> _T | None:
        """Read, however long the database takes to answer; None when the thread is to end, or the read is refused."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                found = read()
            except UnavailableError as error:
                if self._vital.failed(error):
                    logger.warning("listeners have to wait, the database does not answer: %s", error)
                self._stopping.wait(backoff.next())
            except BackendError as error:
                logger.exception("listeners are not told of some events")
                self._health.tell_of(error)
                return None
            else:
                if self._vital.succeeded():
                    logger.info("listeners go on, the database answers again")
                return found
        return None
