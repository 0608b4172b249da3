"""The threads of a worker pool: who they are, in which order they start, and the script by which they end."""

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from jobqueue.events import ClaimLost, Connected, Event, JobAvailable, ScheduleChanged
from jobqueue.job_context import JobContext
from jobqueue.middleware import WorkMiddleware, end_thread
from jobqueue.models import Job
from jobqueue.registry import Registry
from jobqueue.service import Service
from jobqueue.threads import Backoff, StoppableThread
from jobqueue.worker.atomic import AtomicRuns
from jobqueue.worker.back_offs import BackOffs
from jobqueue.worker.carrier import Carrier
from jobqueue.worker.contact import Contact
from jobqueue.worker.desk import Desk
from jobqueue.worker.dispatcher import Dispatcher
from jobqueue.worker.gate import Gate, GateFunction
from jobqueue.worker.heartbeat import Heartbeat
from jobqueue.worker.keeper import Keeper
from jobqueue.worker.lanes import Lanes, demands_of
from jobqueue.worker.lost_claims import LostClaims
from jobqueue.worker.maintenance import Maintenance
from jobqueue.worker.runner import Beating, Runner, Unbeaten
from jobqueue.worker.scheduler import Scheduler

logger = logging.getLogger(__name__)

_LONGEST_LOCK_TIMEOUT: Final = timedelta(seconds=2)
_SECONDS_FOR_LATE_JOBS: Final = 1.0
_SECONDS_TO_SAVE: Final = 1.0
_SECONDS_TO_JOIN: Final = 1.0
_TYPES_TO_LOG: Final = 10


class Worker(StoppableThread):
    """Runs one job after the other, as the dispatcher gives them out."""

    def __init__(
        self,
        name: str,
        dispatcher: Dispatcher,
        desk: Desk,
        runner: Runner,
        back_offs: BackOffs,
        *,
        middleware: Sequence[WorkMiddleware],
    ) -> None:
        super().__init__(name)
        self._middleware = middleware
        self._dispatcher = dispatcher
        self._desk = desk
        self._runner = runner
        self._back_offs = back_offs

    @property
    def context(self) -> JobContext | None:
        """The run that goes on at this moment."""
        return self._runner.context

    def run(self) -> None:
        """Work until the dispatcher says that it is over."""
        try:
            self._work()
        finally:
            end_thread(self._middleware)

    def _work(self) -> None:
        backoff = Backoff()
        while True:
            job = None
            try:
                if (job := self._dispatcher.next_job(self._desk)) is None:
                    return
                if self._dispatcher.admits(job):
                    self._run(job)
                backoff.reset()
            except Exception:
                if self._stopping.is_set():
                    return  # the store is closed
                if job is not None:
                    self._dispatcher.note_end(job, 0.0)
                # Nothing is known that leads here; but a thread that ended unseen would be worse than one that tells.
                logger.exception("%s goes on after an error of its own", self.name)
                self._stopping.wait(backoff.next())

    def _run(self, job: Job) -> None:
        ran, seconds = self._runner.run(job)
        led_to = ran.led_to
        concerns_back_offs = self._back_offs.note_end(job, led_to, seconds)
        if ran.outcome is None:
            self._dispatcher.note_end(job, seconds)
        else:
            self._dispatcher.hand_in(ran.outcome, seconds, may_be_saved=ran.may_be_saved)
        if led_to is not None and concerns_back_offs:
            self._back_offs.tell_others(job, led_to, seconds)
            self._dispatcher.note_back_off()


class Crew:
    """The threads of one worker pool, over a store of their own."""

    def __init__(
        self,
        service: Service,
        registry: Registry,
        num_workers: int,
        middleware: Sequence[WorkMiddleware] = (),
        *,
        lanes: Lanes | None = None,
        is_open: GateFunction | None = None,
    ) -> None:
        self._service = service
        self._registry = registry
        settings = service.settings
        health, observers = service.vitals, service.listeners.observers
        self._dead_for = settings.dead_for.total_seconds()
        demands = demands_of(registry, settings, num_workers, lanes or {})
        self._store = service.store.for_workers(
            # While a trip waits for a lock it holds others, whose beats wait for it: it must be over within dead_for.
            lock_timeout=min(_LONGEST_LOCK_TIMEOUT, settings.dead_for / 8),
            atomic_connections=settings.atomic_connections if demands[0].has_atomic else 0,
            transactions=registry.transactions(),
        )
        self._contact = Contact(health.vital("workers"), settings.dead_for)
        self._lost_claims = LostClaims(health, self._store, settings.dead_for, tell=observers.tell)
        carrier = Carrier(
            self._store,
            settings,
            name=f"{platform.node()}:{os.getpid()}",
            contact=self._contact,
            lost_claims=self._lost_claims,
            health=health,
        )
        back_offs = BackOffs(self._store, time.monotonic)
        self._dispatcher = Dispatcher(carrier, demands, settings, self._contact, back_offs)
        self.set_gate(is_open)
        self._keeper = Keeper(
            self._dispatcher,
            store=self._store,
            interval=settings.heartbeat_interval,
            contact=self._contact,
            lost_claims=self._lost_claims,
        )
        self._maintenance = Maintenance(
            self._store,
            settings,
            contact=self._contact,
            dispatcher=self._dispatcher,
            health=health,
            tell=observers.tell,
        )
        self._scheduler = Scheduler(
            service,
            self._store.schedules,
            registry.schedules(),
            contact=self._contact,
            dispatcher=self._dispatcher,
            health=health,
        )
        self._heartbeats: list[Heartbeat] = []
        if settings.heartbeat_interval is not None:
            self._heartbeats = [
                Heartbeat(
                    f"jobqueue-heartbeat-{number}",
                    interval=settings.heartbeat_interval,
                    dead_for=settings.dead_for,
                    store=self._store,
                    contact=self._contact,
                    lost_claims=self._lost_claims,
                )
                for number in range(num_workers)
            ]
        atomic_runs = AtomicRuns(
            self._store,
            registry,
            max_rescues=settings.max_rescues,
            lost_claims=self._lost_claims,
            health=health,
            middleware=middleware,
        )
        beatings: Sequence[Beating] = self._heartbeats or [Unbeaten()] * num_workers
        self._workers = [
            Worker(
                f"jobqueue-worker-{number}",
                self._dispatcher,
                desk,
                Runner(service, registry, atomic_runs, beating, middleware),
                back_offs,
                middleware=middleware,
            )
            for number, (beating, desk) in enumerate(zip(beatings, self._seats(), strict=True))
        ]
        self._unsubscribe: Callable[[], None] = _nothing

    def _seats(self) -> list[Desk]:
        """Return the desk of each worker."""
        return [desk for desk in self._dispatcher.desks for _ in range(desk.demand.num_workers)]

    def start(self) -> None:
        """Start all threads; the workers last."""
        if not self._registry.patterns():
            logger.warning("worker threads start without any handler: they will claim nothing")
        for thread in (self._keeper, self._maintenance, self._scheduler, *self._heartbeats, *self._workers):
            thread.start()
        self._unsubscribe = self._service.notifier.subscribe(self._hear, JobAvailable, ClaimLost, ScheduleChanged)
        types = self._registry.patterns()
        others = f" and {len(types) - _TYPES_TO_LOG} more" if len(types) > _TYPES_TO_LOG else ""
        logger.info(
            "started %d worker threads for %s%s",
            len(self._workers),
            ", ".join(types[:_TYPES_TO_LOG]) or "no job type",
            others,
        )

    def _hear(self, event: Event) -> None:
        match event:
            case ClaimLost():
                self._lose(event)
            case ScheduleChanged():
                self._scheduler.wake()
            case JobAvailable() if self._registry.find(event.type) is None:
                pass
            case Connected():
                self._dispatcher.ring()
                self._scheduler.wake()
                # Of claims that were taken away meanwhile nobody has told.
                for heartbeat in self._heartbeats:
                    heartbeat.beat_now()
            case JobAvailable():
                self._dispatcher.ring(event.type)
            case _:
                pass

    def _lose(self, claim: ClaimLost) -> None:
        """Have a claim that was taken away not started, or its run told of it. What is missed here, the beats find."""
        fences = [fence for fence in self._dispatcher.kept_fences() if claim.is_of(fence.job_id, fence.claim_id)]
        for fence in self._dispatcher.drop(fences):
            self._lost_claims.note_told(fence)
            self._lost_claims.forget(fence)
        for context in self._contexts():
            if claim.is_of(context.job.id, context.job.claim_id):
                context.lose()
                self._lost_claims.note_told(context.job.fence)

    def poll_every(self, interval: timedelta) -> None:
        """Have idle workers look at the queue at least this often."""
        self._dispatcher.poll_every(interval.total_seconds())

    def set_gate(self, is_open: GateFunction | None) -> None:
        """Ask *is_open* before each claim, in place of any other."""
        vital = self._service.vitals.vital("gate")
        gate = None if is_open is None else Gate(is_open, self._registry.patterns(), vital)
        self._dispatcher.set_gate(gate)

    @property
    def includes_current_thread(self) -> bool:
        """Whether one of the workers is asking."""
        return any(worker.is_current for worker in self._workers)

    def stop(self) -> None:
        """Have nothing more claimed."""
        self._dispatcher.close()

    def hurry(self) -> None:
        """Have an end that waits for jobs, or will, wait no longer."""
        self._dispatcher.hurry()

    def end(self, deadline: float | None) -> bool:
        """End all threads; return whether all jobs had ended by *deadline*, and what they led to is saved.

        No call of the database is waited for much longer than that: those that are still out are broken off.
        """
        in_time = self._dispatcher.wait_for_jobs(_seconds_until(deadline))
        if not in_time:
            self._let_go_of_running_jobs()
        saved = self._dispatcher.wait_until_saved(self._seconds_to_save(deadline))
        if not saved:
            logger.error(
                "the database did not answer in time: what is not saved runs again, elsewhere, when its claim has been "
                "silent for long enough"
            )
        self._dispatcher.abandon()
        self._end_threads(_SECONDS_TO_JOIN if saved else 0.0)
        return saved and in_time

    def _seconds_to_save(self, deadline: float | None) -> float:
        # After dead_for without an answer, others have taken the claims away.
        seconds = self._dead_for if deadline is None else deadline - time.monotonic()
        return max(seconds, _SECONDS_TO_SAVE)

    def _let_go_of_running_jobs(self) -> None:
        """Tell handlers that nobody waits any longer, and release the jobs of those that do not listen."""
        for context in self._contexts():
            context.interrupt()
        self._dispatcher.wait_for_jobs(_SECONDS_FOR_LATE_JOBS)
        for context in self._contexts():
            if not self._dispatcher.release(context.job):
                continue  # it has just ended
            context.lose()
            logger.warning(
                "job %s (%s) is still running: it is released, and may run elsewhere from now on",
                context.job.id,
                context.job.type,
                extra={"job_id": str(context.job.id), "job_type": context.job.type},
            )

    def _contexts(self) -> list[JobContext]:
        return [context for worker in self._workers if (context := worker.context) is not None]

    def _end_threads(self, patience: float) -> None:
        self._unsubscribe()
        self._dispatcher.end()
        threads = [*self._workers, self._keeper, self._maintenance, self._scheduler, *self._heartbeats]
        for thread in threads:
            thread.stop()
        hung = [worker for worker in self._workers if worker.context is not None]
        others = [thread for thread in threads if thread not in hung]
        _join(others, time.monotonic() + patience)
        self._store.close()
        _join(others, time.monotonic() + _SECONDS_TO_JOIN)
        late = [thread.name for thread in threads if thread.is_alive]
        if late:
            logger.warning("threads that have not ended: %s", ", ".join(late))
        logger.info("stopped %d worker threads", len(self._workers))


def _nothing() -> None:
    pass


def _join(threads: Sequence[StoppableThread], deadline: float | None) -> None:
    for thread in threads:
        thread.join(_seconds_until(deadline))


def _seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
