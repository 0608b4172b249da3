"""The threads of a worker pool: who they are, in which order they start, and the script by which they end."""

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from jobqueue.errors import BackendError
from jobqueue.events import Event, JobAvailable
from jobqueue.job_context import JobContext
from jobqueue.outcomes import Outcome
from jobqueue.registry import Registry
from jobqueue.service import Service
from jobqueue.threads import Backoff, StoppableThread
from jobqueue.worker.carrier import Carrier
from jobqueue.worker.contact import Contact
from jobqueue.worker.dispatcher import MAX_TRIPS, Dispatcher
from jobqueue.worker.heartbeat import Heartbeat
from jobqueue.worker.keeper import Keeper
from jobqueue.worker.lost_claims import LostClaims
from jobqueue.worker.maintenance import Maintenance
from jobqueue.worker.runner import Beating, Runner, Unbeaten

logger = logging.getLogger(__name__)

_LONGEST_LOCK_TIMEOUT: Final = timedelta(seconds=2)
_SECONDS_FOR_INTERRUPTED: Final = 1.0
_SECONDS_FOR_HELPERS: Final = 5.0


class Worker(StoppableThread):
    """Runs one job after the other, as the dispatcher gives them out."""

    def __init__(self, name: str, dispatcher: Dispatcher, runner: Runner) -> None:
        super().__init__(name)
        self._dispatcher = dispatcher
        self._runner = runner

    @property
    def context(self) -> JobContext | None:
        """The run that goes on at this moment."""
        return self._runner.context

    def run(self) -> None:
        """Work until the dispatcher says that it is over."""
        backoff = Backoff()
        while True:
            try:
                if (job := self._dispatcher.next_job()) is None:
                    return
                self._dispatcher.hand_in(*self._runner.run(job))
                backoff.reset()
            except Exception:
                # Nothing is known that leads here; but a thread that ended unseen would be worse than one that tells.
                logger.exception("%s goes on after an error of its own", self.name)
                self._stopping.wait(backoff.next())


class Crew:
    """The threads of one worker pool, over a store of their own."""

    def __init__(self, service: Service, registry: Registry, num_workers: int) -> None:
        self._service = service
        self._registry = registry
        settings = service.settings
        health = service.vitals
        self._dead_for = settings.dead_for.total_seconds()
        # While a trip waits for a lock it holds others, whose beats wait for it: it must be over well within dead_for.
        self._store = service.store.for_workers(lock_timeout=min(_LONGEST_LOCK_TIMEOUT, settings.dead_for / 8))
        self._contact = Contact(health.vital("workers"), settings.dead_for)
        lost_claims = LostClaims(health)
        carrier = Carrier(
            self._store,
            registry.patterns(),
            settings,
            name=f"{platform.node()}:{os.getpid()}",
            contact=self._contact,
            lost_claims=lost_claims,
            health=health,
        )
        self._dispatcher = Dispatcher(carrier, settings, self._contact)
        self._keeper = Keeper(
            self._dispatcher,
            store=self._store,
            interval=settings.heartbeat_interval,
            contact=self._contact,
            lost_claims=lost_claims,
        )
        self._maintenance = Maintenance(self._store, settings, self._contact)
        self._heartbeats: list[Heartbeat] = []
        if settings.heartbeat_interval is not None:
            self._heartbeats = [
                Heartbeat(
                    f"jobqueue-heartbeat-{number}",
                    interval=settings.heartbeat_interval,
                    dead_for=settings.dead_for,
                    store=self._store,
                    contact=self._contact,
                    lost_claims=lost_claims,
                )
                for number in range(num_workers)
            ]
        beatings: Sequence[Beating] = self._heartbeats or [Unbeaten()] * num_workers
        self._workers = [
            Worker(f"jobqueue-worker-{number}", self._dispatcher, Runner(service, registry, beating))
            for number, beating in enumerate(beatings)
        ]
        self._unsubscribe: Callable[[], None] = _nothing

    def start(self) -> None:
        """Start all threads; the workers last."""
        if not self._registry.patterns():
            logger.warning("worker threads start without any handler: they will claim nothing")
        for thread in (self._keeper, self._maintenance, *self._heartbeats, *self._workers):
            thread.start()
        self._unsubscribe = self._service.notifier.subscribe(self._hear)
        logger.info(
            "started %d worker threads for %s; they use %d connections, the listener one more",
            len(self._workers),
            ", ".join(self._registry.patterns()) or "no job type",
            MAX_TRIPS + 1,
        )

    def _hear(self, event: Event) -> None:
        if not isinstance(event, JobAvailable) or self._registry.find(event.type) is not None:
            self._dispatcher.ring()

    @property
    def includes_current_thread(self) -> bool:
        """Whether one of the workers is asking."""
        return any(worker.is_current for worker in self._workers)

    def stop(self) -> None:
        """Have nothing more claimed."""
        self._dispatcher.close()

    def end(self, deadline: float | None) -> bool:
        """End all threads; return whether all jobs had ended by *deadline*, and what they led to is saved."""
        _join(self._workers, deadline)
        late = self._let_go_of_running_jobs()
        # Workers that still live wait for the database, with outcomes in hand, or had not come to start their job.
        self._dispatcher.abandon()
        saved = self._dispatcher.wait_until_saved(self._dead_for if deadline is None else _SECONDS_FOR_INTERRUPTED)
        if not saved:
            logger.error("some outcomes could not be saved: the claims of their jobs fall silent, and they run again")
        late += self._let_go_of_running_jobs()
        self._end_helpers()
        return saved and not late

    def _let_go_of_running_jobs(self) -> list[JobContext]:
        """Tell handlers that nobody waits any longer, and release the jobs of those that do not listen."""
        running = [context for worker in self._workers if (context := worker.context) and not context.is_cancelled]
        if not running:
            return []
        for context in running:
            context.interrupt()
        _join(self._workers, time.monotonic() + _SECONDS_FOR_INTERRUPTED)
        self._release([context for worker in self._workers if (context := worker.context) is not None])
        return running

    def _release(self, contexts: Sequence[JobContext]) -> None:
        if not contexts:
            return
        for context in contexts:
            context.lose()
            logger.warning(
                "job %s (%s) is still running: it is released, and may run elsewhere from now on",
                context.job.id,
                context.job.type,
                extra={"job_id": str(context.job.id), "job_type": context.job.type},
            )
        try:
            self._store.save_outcomes([Outcome.released(context.job) for context in contexts])
        except BackendError as error:
            logger.error("jobs could not be released, they will be rescued in %g s: %s", self._dead_for, error)  # noqa: TRY400

    def _end_helpers(self) -> None:
        self._unsubscribe()
        helpers = [self._keeper, self._maintenance, *self._heartbeats]
        for helper in helpers:
            helper.stop()
        for helper in helpers:
            if not helper.join(_SECONDS_FOR_HELPERS):
                logger.warning("thread %s has not ended within %g s", helper.name, _SECONDS_FOR_HELPERS)
        self._dispatcher.end()
        self._store.close()
        logger.info("stopped %d worker threads", len(self._workers))


def _nothing() -> None:
    pass


def _join(threads: Sequence[StoppableThread], deadline: float | None) -> None:
    for thread in threads:
        thread.join(_seconds_until(deadline))


def _seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
