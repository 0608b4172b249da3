"""A service that is made when it is first needed: once in each process."""

import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

import attrs

from jobqueue.errors import ClosedError, JobQueueError
from jobqueue.service import Service


@attrs.define(eq=False)
class _Making:
    """One attempt to make a service: under way in a thread, or done."""

    thread: int = attrs.field(factory=threading.get_ident)
    outcome: Future[Service] = attrs.field(factory=Future[Service])


@attrs.define(eq=False)
class _OfProcess:
    """What there is in one process: locks and connections are of no use in those that are forked from it."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    service: Service | None = None
    making: _Making | None = None


class LazyService:
    """Calling it returns the service that ``make()`` has made, in this process, when it was called for the first time.

    Threads that call meanwhile wait for it. An error of *make* is raised in all of them, and the next call tries again.
    A forked child makes a service of its own, and leaves that of its parent alone. What was made is closed when the
    interpreter exits. To be given to ``jobqueue.context.set_service_source``.
    """

    def __init__(self, make: Callable[[], Service]) -> None:
        self._make: Final = make
        # That of a parent is kept, in the child: collecting it could end sessions that are in use.
        self._of_processes = dict[int, _OfProcess]()

    def __call__(self) -> Service:
        """Return the service of this process.

        Raises:
            JobQueueError: *make* itself asks for the service.
            ClosedError: it was closed while it was made.
            Exception: whatever *make* raises.
        """
        here = self._here()
        return here.service or self._made(here)

    @property
    def is_made(self) -> bool:
        """Whether this process has a service."""
        return self._here().service is not None

    def close(self) -> None:
        """Close the service, if this process has made one; the next call makes another."""
        here = self._here()
        with here.lock:
            service, here.service, here.making = here.service, None, None
        if service is not None:
            with suppress(ClosedError):
                service.close()

    def _here(self) -> _OfProcess:
        process = os.getpid()
        return self._of_processes.get(process) or self._of_processes.setdefault(process, _OfProcess())

    def _made(self, here: _OfProcess) -> Service:
        with here.lock:
            making = here.making
            if making is None:
                making = here.making = _Making()
                ours = True
            else:
                ours = False
        if ours:
            self._make_in(here, making)
        elif making.thread == threading.get_ident() and not making.outcome.done():
            raise JobQueueError("the job queue service is asked for by what makes it")
        return making.outcome.result()

    def _make_in(self, here: _OfProcess, making: _Making) -> None:
        try:
            service = self._make()
        except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is asked for
            with here.lock:
                if here.making is making:
                    here.making = None
            making.outcome.set_exception(error)
            return
        with here.lock:
            is_wanted = here.making is making
            if is_wanted:
                here.service = service
        if is_wanted:
            _close_at_exit(self)
            making.outcome.set_result(service)
        else:
            service.close()
            making.outcome.set_exception(ClosedError("the job queue service was closed while it was made"))


def _close_at_exit(lazy: LazyService) -> None:
    # Pools are started later, and so finished earlier.
    atexit.unregister(lazy.close)
    atexit.register(lazy.close)
