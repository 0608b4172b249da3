"""Threads that wait for a job or bundle to stop: they hear of it, and look for themselves now and then."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeVar
from uuid import UUID

from jobqueue.errors import JobQueueError, UnavailableError
from jobqueue.events import Event, JobBundleStopped, JobStopped
from jobqueue.job_context import current_job_context
from jobqueue.models import Job, JobBundle
from jobqueue.notifier import Notifier

_SECONDS_WHEN_DEAF: Final = 0.5

_Kind = type[JobStopped] | type[JobBundleStopped]
_Model = TypeVar("_Model", Job, JobBundle)


class Waiting:
    """All who wait for something in one service, over one subscription to each kind of event."""

    def __init__(self, notifier: Notifier, poll_interval: timedelta) -> None:
        self._notifier = notifier
        self._poll_seconds = poll_interval.total_seconds()
        # Reentrant, since a notifier may tell a subscriber that it is connected while it subscribes.
        self._lock = threading.RLock()
        self._waiters: dict[_Kind, list[tuple[UUID, threading.Event]]] = {JobStopped: [], JobBundleStopped: []}
        self._unsubscribe: dict[_Kind, Callable[[], None]] = {}

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
            heard = [heard for waiters in self._waiters.values() for _, heard in waiters]
        for event in heard:
            event.set()

    def _wait(self, kind: _Kind, id: UUID, get: Callable[[UUID], _Model], timeout: float | None) -> _Model:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._hearing_of(kind, id) as heard:
            while True:
                heard.clear()
                found, trouble = _look(get, id)
                if found is not None and found.stopped:
                    return found
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(_lateness(kind, id, found, timeout)) from trouble
                deaf = trouble is not None or not self._notifier.is_listening
                pause = min(self._poll_seconds, _SECONDS_WHEN_DEAF) if deaf else self._poll_seconds
                heard.wait(pause if left is None else min(pause, left))

    @contextmanager
    def _hearing_of(self, kind: _Kind, id: UUID) -> Generator[threading.Event]:
        heard = threading.Event()
        waiter = (id, heard)
        with self._lock:
            self._waiters[kind].append(waiter)
            if kind not in self._unsubscribe:
                self._unsubscribe[kind] = self._notifier.subscribe(self._receive, kind)
        try:
            yield heard
        finally:
            with self._lock:
                self._waiters[kind].remove(waiter)
                if not self._waiters[kind]:
                    self._unsubscribe.pop(kind)()

    def _receive(self, event: Event) -> None:
        if not isinstance(event, JobStopped | JobBundleStopped):
            self.wake()
            return
        with self._lock:
            waiters = list(self._waiters[type(event)])
        for id_, heard in waiters:
            if id_ == event.id:
                heard.set()


def refuse_in_handler(*, allowed: bool) -> None:
    """Raise JobQueueError when a handler is calling, unless that is *allowed*."""
    context = current_job_context.get()
    if context is not None and not allowed:
        raise JobQueueError(
            f"the handler of job {context.job.id} ({context.job.type}) would block a worker thread, and what it waits "
            "for may wait for that thread: enqueue what is to follow, or say allow_in_handler=True"
        )


def _look(get: Callable[[UUID], _Model], id: UUID) -> tuple[_Model | None, UnavailableError | None]:
    """Look once; a database that does not answer is a reason to look again."""
    try:
        return get(id), None
    except UnavailableError as error:
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
