"""Services that stand in for a real one: one that keeps nothing, and one that fails at everything."""

import inspect
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, NoReturn, cast

from jobqueue.backends.memory.notifier import MemoryNotifier
from jobqueue.backends.memory.queue import MemoryQueue
from jobqueue.backends.memory.schedules import MemorySchedules
from jobqueue.backends.memory.store import MemoryStore
from jobqueue.bundle import JobBundle
from jobqueue.models import Job
from jobqueue.queue_service import QueueService
from jobqueue.schedules import Schedule
from jobqueue.service import Service
from jobqueue.settings import WorkerSettings
from jobqueue.uniqueness import OnConflict

_DEFAULT_SETTINGS: Final = WorkerSettings()


class DoNothingService(QueueService):
    """Takes jobs and bundles, checks them, and forgets them: for programs that run without background work.

    What was added is not there: it is never run, and ``get_job`` raises JobNotFoundError. *connection* may be whatever
    the real service would take, since nothing is added to its transaction.
    """

    def __init__(self, *, settings: WorkerSettings = _DEFAULT_SETTINGS, origin: str | None = None) -> None:
        queue = MemoryQueue()
        store = _ForgetfulStore(queue, schedules=_ForgetfulSchedules)
        super().__init__(store=store, notifier=MemoryNotifier(queue), settings=settings, origin=origin)


class _ForgetfulStore(MemoryStore):
    """The Store that is always empty."""

    def add_job(
        self,
        job: Job,
        *,
        delay: timedelta | None,  # noqa: ARG002
        on_conflict: OnConflict = "ignore",  # noqa: ARG002 - nobody is there who could hold a key
        notify: bool = True,  # noqa: ARG002
        connection: object = None,  # noqa: ARG002
    ) -> Job:
        """Forget *job*."""
        return job

    def add_jobs(
        self,
        jobs: Sequence[Job],
        *,
        on_conflict: OnConflict = "ignore",  # noqa: ARG002
        notify: bool = True,  # noqa: ARG002
        connection: object = None,  # noqa: ARG002
    ) -> Sequence[Job]:
        """Forget *jobs*."""
        return jobs

    def add_bundle(self, bundle: JobBundle, *, notify: bool = True, connection: object = None) -> None:
        """Forget *bundle*."""


class _ForgetfulSchedules(MemorySchedules):
    """The ScheduleStore that is always empty."""

    def add(self, name: str, make: Callable[[datetime], Schedule]) -> Schedule | None:  # noqa: ARG002
        """Forget the schedule that *make* describes."""
        return make(self._session.moment())


def ServiceWithError(error: BaseException) -> Service:  # noqa: N802 - it is called like a class, as DoNothingService is
    """Return a service whose every method and property raises *error*: for what is to be done when the queue fails."""
    return cast("Service", _ServiceWithError(error))


_MEMBERS: Final = {
    name: member
    for protocol in inspect.getmro(Service)
    for name, member in vars(protocol).items()
    if not name.startswith("_")
}


class _ServiceWithError:
    """Has what the protocol has, whatever that is."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name not in _MEMBERS:
            raise AttributeError(f"a Service has no attribute {name!r}", name=name, obj=self)
        if isinstance(_MEMBERS[name], property):
            self._raise()
        return self._raise

    def _raise(self, *_: object, **__: object) -> NoReturn:
        # The same error is raised again and again: it must not drag along where it was raised before.
        raise self._error.with_traceback(None)

    def __repr__(self) -> str:
        return f"ServiceWithError({self._error!r})"
