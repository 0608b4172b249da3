"""One worker process: works until its supervisor says that it is enough, or is gone."""

import atexit
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from threading import Thread, Timer
from typing import Any, Final

from jobqueue.cli.plan import Plan, PlanError
from jobqueue.cli.signals import Signals
from jobqueue.errors import JobQueueError
from jobqueue.health import DOWN
from jobqueue.worker import WorkerPool
from jobqueue.worker.process import leave_threads_to

logger = logging.getLogger(__name__)

STOP: Final = "stop"
"""Told to a process: claim nothing more, and end when running jobs have ended."""
NOW: Final = "now"
"""Told to a process that ends: wait for them no longer."""

OK: Final = 0
WRONG: Final = 1
"""It could not begin: of what the user has to change, the supervisor was told."""
LATE: Final = 3
"""Jobs had not ended in time: they were released, for others to take."""

_SECONDS_BETWEEN_LOOKS: Final = 1.0
# What a process has to end its own threads, when all is done.
_SECONDS_TO_EXIT: Final = 2.0
_NEEDED: Final = ("workers", "trips")


def work(plan: Plan, supervisor: "Connection[bool | str, str]") -> None:
    """Do what *plan* says, in a process of its own, which this ends; tell *supervisor* whether it is ready to work.

    What it is told in its turn is STOP or NOW; that nobody is there any more means STOP, too.
    """
    _leave_ctrl_c_to_the_supervisor()
    code = _work(plan, supervisor)
    # What multiprocessing leaves out: this is a process of its own, and libraries have registered what is to be done.
    atexit._run_exitfuncs()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    _end_soon(code)
    sys.exit(code)


def _work(plan: Plan, supervisor: "Connection[bool | str, str]") -> int:
    leave_threads_to("jobqueue worker")
    try:
        pool = plan.make_pool()
        with Signals([signal.SIGTERM]) as signals:
            pool.start()
            code = _Shift(pool, supervisor, signals).work(plan)
    except (PlanError, JobQueueError, ValueError) as error:
        with suppress(OSError):
            supervisor.send(str(error))
        return WRONG
    with suppress(JobQueueError):
        pool.service.close()
    return code


def _end_soon(code: int) -> None:
    """End the process with *code* in a while, should threads of the application keep it from ending by itself."""
    timer = Timer(_SECONDS_TO_EXIT, _cut_off, [code])
    timer.daemon = True
    timer.start()


def _cut_off(code: int) -> None:
    left = [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    logger.warning("threads go on at the end of the process, which ends without them: %s", ", ".join(left))
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _leave_ctrl_c_to_the_supervisor() -> None:
    """A terminal sends it to all processes of the group, and the supervisor says what is to be done."""
    for name in ("SIGINT", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
            if hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


class _Shift:
    """A pool at work, and who may end that."""

    def __init__(self, pool: WorkerPool, supervisor: "Connection[bool | str, str]", signals: Signals) -> None:
        self._pool = pool
        self._supervisor = supervisor
        self._signals = signals
        self._answers = list[bool]()

    def work(self, plan: Plan) -> int:
        """Work until told to stop, and finish; return the code to exit with."""
        said: bool | None = None
        while not wait([self._supervisor, self._signals.source], _SECONDS_BETWEEN_LOOKS if said is not None else 0):
            if (ready := self._is_ready()) is not said:
                said = self._say(ready)
        finishing = Thread(target=self._finish, args=(plan,), name="jobqueue-finish")
        finishing.start()
        self._heed_until_finished()
        finishing.join()
        return OK if self._answers[0] else LATE

    def _is_ready(self) -> bool:
        parts = self._pool.service.health()["parts"]
        return not any(parts[name]["state"] == DOWN for name in _NEEDED if name in parts)

    def _say(self, ready: bool) -> bool:  # noqa: FBT001
        with suppress(OSError):
            self._supervisor.send(ready)
        return ready

    def _finish(self, plan: Plan) -> None:
        try:
            self._answers.append(self._pool.finish(plan.finish_within))
        except BaseException:
            self._answers.append(False)
            raise
        finally:
            self._signals.wake()

    def _heed_until_finished(self) -> None:
        sources: list[Any] = [self._supervisor, self._signals.source]
        while not self._answers:
            heard = wait(sources)
            self._signals.take()
            if self._supervisor in heard:
                try:
                    if self._supervisor.recv() == NOW:
                        self._pool.hurry()
                except (EOFError, OSError):
                    sources.remove(self._supervisor)
