"""Run all that is due, in the test's own thread and, if it has one, its own transaction."""

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from jobqueue.clock import going_by
from jobqueue.context import current_service, use_service
from jobqueue.errors import HandlerNotFoundError, RefusedError, RegistrationError
from jobqueue.job_context import JobContext
from jobqueue.limits import COUNT, check_int, check_type_or_pattern
from jobqueue.middleware import WorkMiddleware
from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind
from jobqueue.pauses import covers
from jobqueue.registry import Registry, default_registry
from jobqueue.schedule_store import ScheduleStore
from jobqueue.schedules import Schedule
from jobqueue.service import Service
from jobqueue.store import Within, WorkerStore
from jobqueue.testing.clock import Clock, clock_in_force
from jobqueue.testing.runs import Drained, DrainError, Run
from jobqueue.testing.schedules import SchedulesOf
from jobqueue.ticking import declare, tick_all
from jobqueue.worker.atomic import AtomicRuns
from jobqueue.worker.lanes import types_of_lane
from jobqueue.worker.lost_claims import LostClaims
from jobqueue.worker.runner import Runner, Unbeaten
from jobqueue.worker.saving import failure_of

_RUNS_SHOWN: Final = 20
_AT_ONCE: Final = timedelta(0)
_FAILURES: Final = frozenset({OutcomeKind.FAILED, OutcomeKind.RETRY})


def drain(
    connection: object = None,
    *,
    clock: Clock | None = None,
    service: Service | None = None,
    registry: Registry = default_registry,
    types: str | Iterable[str] | None = None,
    middleware: Sequence[WorkMiddleware] = (),
    max_runs: int = 1000,
    raise_errors: bool = True,
) -> Drained:
    """Run the jobs that are due, and those that they lead to, until nothing is due; return the runs in their order.

    It all happens here, in this thread, the way worker threads do it: jobs are claimed by the same statements, run by
    the handlers of *registry* through *middleware*, and saved by the same statements. Within the transaction that is
    open on *connection*, and by nothing else: the handlers' own calls of the service are a part of it, too; nothing is
    committed. None: as calls of the service without a connection, each a transaction of its own.

    Time passes on *clock*, or on the one that is in force, or else not at all. When it was moved since the last time,
    what has become due meanwhile is done in order, each at its moment: retries, delayed jobs and what they lead to, and
    ticks of schedules, those that *registry* declares among them. Jobs that are due later stay; so does what is paused.

    With *types* (names and patterns) only such jobs are run, and only schedules of such jobs tick. What a handler
    raises is raised, once that was saved, and the drain is over; with *raise_errors* False it goes on, and the runs
    tell of it.

    Raises:
        DrainError: *max_runs* runs and ticks have not been enough; or, with *raise_errors*, a job has failed without
            an error of its handler.
        RegistrationError: a type has no handler.
        TypeError: *connection* is nothing whose transaction can be joined, or *clock* is no Clock.
        BackendError: the database has refused, or failed.
    """
    service = current_service() if service is None else service
    wanted = _wanted(types, registry)
    bound = _Bound(check_int("max_runs", max_runs, COUNT[1:]))

    def is_wanted(schedule: Schedule) -> bool:
        return types is None or any(covers(each, schedule.type) for each in wanted)

    with service.store.within(connection) as within:
        draining = _Draining(
            service,
            within,
            _clock_for(clock, within.worker_store),
            registry=registry,
            middleware=middleware,
            types=wanted,
            bound=bound,
            raise_errors=raise_errors,
        )
        declared = [schedule for schedule in registry.schedules() if is_wanted(schedule)]
        return draining.drain(declared, SchedulesOf(within.worker_store.schedules, is_wanted))


def _wanted(types: str | Iterable[str] | None, registry: Registry) -> Sequence[str]:
    """Return the names and patterns for which to claim. Raises RegistrationError."""
    if types is None:
        return registry.patterns()
    named = [types] if isinstance(types, str) else types
    return list(dict.fromkeys(found for name in named for found in _with_handler(name, registry)))


def _with_handler(name: str, registry: Registry) -> Sequence[str]:
    check_type_or_pattern("types", name)
    try:
        return types_of_lane(name, registry)
    except RegistrationError:
        raise HandlerNotFoundError(f"types= names {name!r}, for which no handler is registered") from None


def _clock_for(clock: Clock | None, store: WorkerStore) -> Clock:
    """Return the clock to go by, which is not behind what the rows say that were added without it."""
    if not isinstance(clock, Clock | None):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise TypeError(f"clock must be a Clock of jobqueue.testing, or None, not {clock!r:.60}")
    in_force = clock_in_force()
    if in_force is not None and clock in {None, in_force}:
        return in_force
    # A transaction's time stands still at its beginning, and a server's clock may be ahead of this machine's.
    now = max(datetime.now(UTC), store.schedules.look(1).now)
    if clock is None:
        return Clock(now)
    return clock.catch_up(now)


class _Draining:
    """One drain, which goes from moment to moment at which something is due."""

    def __init__(
        self,
        service: Service,
        within: Within,
        clock: Clock,
        *,
        registry: Registry,
        middleware: Sequence[WorkMiddleware],
        types: Sequence[str],
        bound: "_Bound",
        raise_errors: bool,
    ) -> None:
        self._service = service
        self._within = within
        self._store = within.worker_store
        self._clock = clock
        self._at = clock.drained_until
        self._types = types
        self._bound = bound
        self._raise_errors = raise_errors
        self._caught = _Caught()
        self._runner = self._runner_of(registry, [self._caught, *middleware])

    def _runner_of(self, registry: Registry, middleware: Sequence[WorkMiddleware]) -> Runner:
        service, settings = self._service, self._service.settings
        observers = service.listeners.observers
        lost_claims = LostClaims(service.vitals, self._store, settings.dead_for, tell=observers.tell)
        atomic_runs = AtomicRuns(
            self._store,
            registry,
            max_rescues=settings.max_rescues,
            lost_claims=lost_claims,
            health=service.vitals,
            middleware=middleware,
        )
        return Runner(service, registry, atomic_runs, Unbeaten(), middleware)

    def drain(self, declared: Sequence[Schedule], schedules: ScheduleStore) -> Drained:
        """Do all that is due until the time of the clock."""
        with going_by(lambda: self._at), use_service(self._service):
            for schedule in declared:
                declare(schedules, schedule, self._service.origin)
            try:
                self._pass_the_time(schedules)
            finally:
                self._clock.note_drained(self._at)
        return Drained(tuple(self._bound.runs))

    def _pass_the_time(self, schedules: ScheduleStore) -> None:
        until = self._clock.now()
        while True:
            next_in = self._do_what_is_due(schedules)
            if self._at == until:
                return
            is_next = next_in is not None and next_in > _AT_ONCE and self._at + next_in < until
            self._at = self._at + next_in if next_in is not None and is_next else until

    def _do_what_is_due(self, schedules: ScheduleStore) -> timedelta | None:
        """Tick, and run what is due, until there is nothing more at this moment; return in how long there is more."""
        while True:
            next_tick_in = self._tick(schedules)
            num_runs = len(self._bound.runs)
            next_job_in = self._run_all()
            if len(self._bound.runs) == num_runs:
                return min((each for each in (next_tick_in, next_job_in) if each is not None), default=None)

    def _tick(self, schedules: ScheduleStore) -> timedelta | None:
        ticked = tick_all(self._service, schedules)
        for error in ticked.failures.values():
            raise error
        self._bound.note_ticks(len(ticked.jobs))
        return ticked.next_in

    def _run_all(self) -> timedelta | None:
        while True:
            trip = self._store.make_trip((), self._types, 1, self._claimant())
            if not trip.claimed:
                return trip.next_due_in
            [job] = trip.claimed
            if self._bound.is_reached:
                self._store.save_outcomes([Outcome.released(job)])
                self._bound.refuse(job)
            self._run(job)

    def _claimant(self) -> Claimant:
        settings = self._service.settings
        return Claimant(
            name=f"{platform.node()}:{os.getpid()}:drain",
            lease=settings.dead_for,
            beats=settings.heartbeat_interval is not None,
        )

    def _run(self, job: Job) -> None:
        self._caught.error = None
        with self._within.guard():
            ended, _ = self._runner.run(job)
        outcome = ended.saved if ended.outcome is None else self._saved(ended.outcome)
        error = self._error_of(job, outcome)
        self._bound.runs.append(
            Run(
                job=job,
                kind=None if outcome is None else outcome.kind,
                result_json=None if outcome is None else outcome.result_json,
                error=error,
            )
        )
        if error is not None and (self._raise_errors or not isinstance(error, Exception)):
            raise error

    def _saved(self, outcome: Outcome) -> Outcome | None:
        """Save *outcome*; return what was saved, which is a failure when the database has refused it; None: nothing."""
        try:
            return outcome if self._store.save_outcomes([outcome]) else None
        except RefusedError as refusal:
            failure = failure_of(outcome, refusal)
            return failure if self._store.save_outcomes([failure]) else None

    def _error_of(self, job: Job, outcome: Outcome | None) -> BaseException | None:
        caught = self._caught.error
        if outcome is None or outcome.kind not in _FAILURES:
            return None if isinstance(caught, Exception) else caught
        if caught is None:
            message = "" if outcome.error is None else outcome.error.message
            return DrainError(f"job {job.id} of type {job.type!r} has failed: {message}")
        caught.add_note(f"raised by job {job.id} of type {job.type!r} in run {job.run_count + 1}; {outcome.kind}")
        return caught


class _Caught:
    """Work middleware that keeps what a run raises."""

    error: BaseException | None = None

    def __call__(self, context: JobContext, run: Callable[[], object]) -> object:  # noqa: ARG002 - as all of them
        """Run, and keep the error."""
        try:
            return run()
        except BaseException as error:
            self.error = error
            raise


class _Bound:
    """The runs so far, and how many there may be."""

    def __init__(self, most: int) -> None:
        self.runs: list[Run] = []
        self._most = most
        self._ticks = 0

    def note_ticks(self, number: int) -> None:
        """Count ticks. Raises DrainError when they are too many."""
        self._ticks += number
        if len(self.runs) + self._ticks > self._most:
            raise self._error("a schedule may tick for jobs that are not run here")

    @property
    def is_reached(self) -> bool:
        """Whether there may be no more."""
        return len(self.runs) + self._ticks >= self._most

    def refuse(self, job: Job) -> NoReturn:
        """Raise DrainError, as *job* would be one too many."""
        raise self._error(f"the next is job {job.id} of type {job.type!r}: it may enqueue itself for ever")

    def _error(self, why: str) -> DrainError:
        last = Drained(tuple(self.runs[-_RUNS_SHOWN:]))
        return DrainError(
            f"after {len(self.runs)} runs and {self._ticks} ticks of schedules there is more to do, and {why}, or the "
            f"clock was moved far. The last runs were {last}. Leave others out by types=, or allow more by max_runs="
        )
