"""Threads that wait for a job or bundle to stop: they hear of it, and look for themselves now and then."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Final, TypeVar
from uuid import UUID

from jobqueue.bundle import JobBundle
from jobqueue.errors import BackendError, JobQueueError, LockTimeoutError, UnavailableError
from jobqueue.events import Event, JobBundleStopped, JobStopped
from jobqueue.job_context import current_job_context
from jobqueue.models import Job
from jobqueue.notifier import Notifier
from jobqueue.patience import patience

_SECONDS_WHEN_DEAF: Final = 0.5

_Kind = type[JobStopped] | type[JobBundleStopped]
_Model = TypeVar("_Model", Job, JobBundle)


class Waiting:
    """All who wait for something in one service, over one subscription to each kind of event."""

    def __init__(self, notifier: Notifier, poll_interval: timedelta) -> None:
        self._notifier = notifier
        self._poll_seconds = poll_interval.total_seconds()
        self._subscribing = threading.Lock()
        self._unsubscribe: dict[_Kind, Callable[[], None]] = {}
        # A lock of its own, for the notifier may tell something while it is asked to subscribe.
        self._lock = threading.Lock()
        self._waiters: dict[_Kind, dict[UUID, list[threading.Event]]] = {JobStopped: {}, JobBundleStopped: {}}

    def wait_for_job(self, job_id: UUID, get: Callable[[UUID], Job], timeout: float | None) -> Job:
        """Return the job as *get* finds it when it has stopped.

        *timeout* is in seconds; None is for ever. What *get* raises is raised, unless the database does not answer.

        Raises:
            TimeoutError: it has not stopped within *timeout*.
        """
        return self._wait(JobStopped, job_id, get, timeout)

    def wait_for_bundle(self, bundle_id: UUID, get: Callable[[UUID], JobBundle], timeout: float | None) -> JobBundle:
        """Return the bundle as *get* finds it when all its members have stopped; as ``wait_for_job``."""
        return self._wait(JobBundleStopped, bundle_id, get, timeout)

    def wake(self) -> None:
        """Have all who wait look for themselves."""
        with self._lock:
            heard = [heard for by_id in self._waiters.values() for waiters in by_id.values() for heard in waiters]
        for event in heard:
            event.set()

    def _wait(self, kind: _Kind, id: UUID, get: Callable[[UUID], _Model], timeout: float | None) -> _Model:
        deadline = None if timeout is None else time.monotonic() + timeout
        left, heard = timeout, None
        with ExitStack() as hearing:
            while True:
                if heard is not None:
                    heard.clear()
                found, trouble = _look(get, id, left)
                if found is not None and found.stopped:
                    return found
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(_lateness(kind, id, found, timeout)) from trouble
                if heard is None:
                    # Only who has to wait listens; and then looks again, at what was not to be heard before that.
                    heard = hearing.enter_context(self._hearing_of(kind, id))
                else:
                    pause = self._pause(trouble)
                    heard.wait(pause if left is None else min(pause, left))

    def _pause(self, trouble: BackendError | None) -> float:
        """Return after how many seconds to look, if nothing is heard."""
        is_deaf = trouble is not None or not self._notifier.is_listening
        return min(self._poll_seconds, _SECONDS_WHEN_DEAF) if is_deaf else self._poll_seconds

    @contextmanager
    def _hearing_of(self, kind: _Kind, id: UUID) -> Generator[threading.Event]:
        heard = threading.Event()
        with self._subscribing:
            if kind not in self._unsubscribe:
                self._unsubscribe[kind] = self._notifier.subscribe(self._receive, kind)
            with self._lock:
                self._waiters[kind].setdefault(id, []).append(heard)
        try:
            yield heard
        finally:
            with self._subscribing:
                if self._forget(kind, id, heard):
                    self._unsubscribe.pop(kind)()

    def _forget(self, kind: _Kind, id: UUID, heard: threading.Event) -> bool:
        """Return whether that was the last one who waited for something of this kind."""
        with self._lock:
            waiters = self._waiters[kind]
            waiters[id].remove(heard)
            if not waiters[id]:
                del waiters[id]
            return not waiters

    def _receive(self, event: Event) -> None:
        if not isinstance(event, JobStopped | JobBundleStopped):
            self.wake()
            return
        with self._lock:
            waiters = list(self._waiters[type(event)].get(event.id, ()))
        for heard in waiters:
            heard.set()


def refuse_in_handler(*, allowed: bool) -> None:
    """Raise JobQueueError when a handler is calling, unless that is *allowed*."""
    context = current_job_context.get()
    if context is not None and not allowed:
        raise JobQueueError(
            f"the handler of job {context.job.id} ({context.job.type}) would block a worker thread, and what it waits "
            "for may wait for that thread: enqueue what is to follow, or say allow_in_handler=True"
        )


def _look(get: Callable[[UUID], _Model], id: UUID, left: float | None) -> tuple[_Model | None, BackendError | None]:
    """Look once, with the patience that is *left*; a database that does not answer is a reason to look again."""
    try:
        with patience(left):
            return get(id), None
    except (UnavailableError, LockTimeoutError) as error:
        return None, error


def _lateness(kind: _Kind, id: UUID, found: Job | JobBundle | None, timeout: float | None) -> str:
    name = "job" if kind is JobStopped else "bundle"
    if isinstance(found, Job):
        state = f"it is {found.state}"
    elif found is not None:
        state = f"{found.num_jobs_stopped} of its {found.num_jobs} jobs have"
    else:
        state = "the database does not answer"
    return f"{name} {id} has not stopped within {timeout:g} s: {state}"
