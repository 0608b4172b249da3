"""Threads of a web application: started in each process that serves it, once it is loaded, and in no other.

Which process that is shows in one of three ways. Its server is recognised while it loads the application (see
``loading``); it is forked as a worker by a server that has loaded the application; or a request has come. So what is
not recognised starts at its first request, and a shell, a test or a one-off command, to which none comes, never.
"""

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Final

from jobqueue.contrib.loading import Loaded, serve_when_forked, serve_when_loaded
from jobqueue.errors import BackendError, ClosedError
from jobqueue.threads import Backoff, StoppableThread
from jobqueue.worker.process import are_left_out, has_program

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS: Final = 0.02
_SECONDS_TO_END: Final = 5.0


class ServingThreads:
    """Has *start* called once in each process that serves the application, in a thread of its own.

    When the database fails, it is called again, until it succeeds; what else goes wrong is logged. So a server boots
    although the database does not answer yet.
    """

    def __init__(self, start: Callable[[], object]) -> None:
        self._start: Final = start
        self._process: int | None = None
        self._closed_in: int | None = None
        self._thread: _Starting | None = None

    def arm(self) -> None:
        """Start when the application is loaded, if this process serves it; and in workers that are forked from it.

        To be called while the application is loaded.
        """
        _armed.add(self)
        serve_when_loaded(self._serve)

    def arm_forked(self) -> None:
        """Start in this process, which was forked from one that had armed this, if it serves the application."""
        serve_when_forked(self._serve)

    def start(self) -> None:
        """Start in this process, whatever it is, unless that was done, or the process does nothing but jobs.

        Raises:
            ClosedError: it was closed in this process.
        """
        if self._closed_in == os.getpid():
            raise ClosedError("the job queue of this application was closed, so that it starts no worker threads")
        if not are_left_out("start_threads()"):
            self._serve(lambda: True)

    def on_request(self) -> None:
        """Start, unless that was done: a request has come. To be called at each, and returns at once.

        A process that does nothing but jobs starts nothing, and serves none: what has come is part of a job.
        """
        if self._process != os.getpid() and not has_program():
            self._serve(lambda: True)

    def close(self) -> None:
        """Start no more; what has started goes on."""
        _armed.discard(self)
        thread = self._thread if self._process == os.getpid() else None
        self._process = self._closed_in = os.getpid()
        if thread is not None:
            thread.stop()
            thread.join(_SECONDS_TO_END)

    def _serve(self, is_loaded: Loaded) -> None:
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        # Not in a copy of the context of a request, which ends.
        self._thread = Context().run(_Starting, self._start, is_loaded)
        self._thread.start()
        atexit.register(self.close)


class _Starting(StoppableThread):
    """Waits until the application is loaded, and starts what it was given."""

    def __init__(self, start: Callable[[], object], is_loaded: Loaded) -> None:
        super().__init__("jobqueue-starting")
        self._start = start
        self._is_loaded = is_loaded
        self._told: str | None = None

    def run(self) -> None:
        while not self._is_loaded():
            if self._stopping.wait(_SECONDS_BETWEEN_LOOKS):
                return
        backoff = Backoff()
        while not self._stopping.is_set() and not self._has_started():
            self._stopping.wait(backoff.next())

    def _has_started(self) -> bool:
        try:
            self._start()
        except BackendError as error:
            self._tell(" ".join(str(error).split()))
            return False
        except Exception:
            # At its end a process starts no more threads.
            if threading.main_thread().is_alive():
                logger.exception("worker threads do not start in this process")
        return True

    def _tell(self, why: str) -> None:
        if why != self._told:
            logger.warning("worker threads cannot start yet: %s", why)
            self._told = why


_armed: Final = weakref.WeakSet[ServingThreads]()


def _arm_again() -> None:
    for each in list(_armed):
        each.arm_forked()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_arm_again)
