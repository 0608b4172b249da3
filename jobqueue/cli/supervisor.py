"""Keeps worker processes at work: starts them, starts them again when they die, and ends them."""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from math import inf
from multiprocessing.connection import wait

from jobqueue.cli.beginning import Beginning
from jobqueue.cli.child import Child, how_ended
from jobqueue.cli.signals import ENDING, OF_SUPERVISORS, RELOADING, Signals
from jobqueue.cli.worker_process import LATE, OK, WRONG

logger = logging.getLogger(__name__)


class Supervisor:
    """Keeps *children* at work until it is told to end them, and tells *on_ready* when all are ready, or not any more.

    Before it starts them, it calls *prepare*; signals that arrive meanwhile are heeded afterwards.

    SIGTERM and SIGINT end them: they claim nothing more, and running jobs go on for as long as the plan says. A second
    signal has them let their jobs go, a third one kills them. SIGHUP starts them anew, one after the other.
    """

    def __init__(
        self,
        children: Sequence[Child],
        on_ready: Callable[[bool], object],
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self._children = children
        self._on_ready = on_ready
        self._prepare = prepare
        self._beginning = Beginning(len(children))
        self._was_ready = False
        self._to_reload = list[Child]()
        self._is_ending = False
        self.refusal: str | None = None  # why the processes could not begin, if they could not
        self._code = OK

    def run(self) -> int:
        """Work until all processes have ended, in the main thread; return the code to exit with."""
        with Signals(OF_SUPERVISORS) as signals:
            try:
                self._prepare()
                self._heed_all(signals)
                if not self._is_ending:
                    for child in self._children:
                        self._start(child)
                self._supervise(signals)
            except Exception:
                logger.exception("the supervisor has failed: worker processes are ending")
                self._code = WRONG
                self._end_by_all_means(signals)
        return self._code

    def _supervise(self, signals: Signals) -> None:
        while any(child.is_wanted for child in self._children):
            sources = [each for child in self._children for each in child.sources]
            wait([signals.source, *sources], self._patience())
            self._heed_all(signals)
            for child in self._children:
                self._attend_to(child)
            self._tell_and_reload()

    def _end_by_all_means(self, signals: Signals) -> None:
        """Leave running jobs their time although something is wrong here, and nobody knows what."""
        try:
            if not self._is_ending:
                self._end()
            self._supervise(signals)
        finally:
            for child in self._children:
                child.wait_for_end()
                child.kill()

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            logger.error("no worker process can be started (%s): tried again in %.1f s", error, child.pause)  # noqa: TRY400

    def _patience(self) -> float | None:
        due_at = min(child.due_at for child in self._children)
        return None if due_at == inf else max(0.0, due_at - time.monotonic())

    def _heed_all(self, signals: Signals) -> None:
        for number in signals.take():
            self._heed(number)

    def _heed(self, number: int) -> None:
        if number in ENDING:
            logger.info("%s: worker processes are %s", signal.Signals(number).name, self._end())
        elif number == RELOADING and not self._is_ending:
            logger.info("SIGHUP: worker processes are started anew, one after the other")
            self._to_reload = list(self._children)

    def _end(self) -> str:
        for child in self._children:
            if self._is_ending:
                child.hurry()
            else:
                child.ask_to_end()
                child.starts_at = None
        done, self._is_ending = "hurried" if self._is_ending else "ending", True
        return done

    def _attend_to(self, child: Child) -> None:
        if child.listen():
            logger.info("worker process %s is ready", child.pid)
        if child.has_ended:
            self._take_leave_of(child)
        elif child.ends_at is not None and child.ends_at <= time.monotonic():
            logger.error("worker process %s has not ended in time, and is killed", child.pid)
            child.kill()
        elif child.starts_at is not None and child.starts_at <= time.monotonic():
            self._start(child)

    def _take_leave_of(self, child: Child) -> None:
        pid, was_asked, had_jobs, said = child.pid, child.ends_at is not None, child.has_been_ready, child.refusal
        code = child.take_leave()
        self._beginning.is_over |= had_jobs
        if refusal := self._beginning.refusal_of(code, said, is_ending=self._is_ending):
            # To try again would not help.
            self.refusal, self._code = refusal, WRONG
            if not self._is_ending:
                self._end()
        elif self._is_ending:
            self._code = LATE if self._code == OK and had_jobs and code != OK else self._code
        if self._is_ending:
            child.starts_at = None
        elif was_asked and code == OK:
            logger.info("worker process %s has ended", pid)
        else:
            how = f"{how_ended(code)}: {said}" if said else how_ended(code)
            logger.error("worker process %s has ended (%s): another one starts in %.1f s", pid, how, child.pause)

    def _tell_and_reload(self) -> None:
        is_ready = not self._is_ending and all(child.is_ready for child in self._children)
        self._beginning.is_over |= any(child.has_been_ready for child in self._children)
        if is_ready is not self._was_ready:
            self._was_ready = is_ready
            self._on_ready(is_ready)
        if is_ready and self._to_reload:
            self._to_reload.pop().ask_to_end()
