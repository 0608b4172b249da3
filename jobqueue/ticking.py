"""Sees to the ticks that are due: any process may at any time, and each tick is enqueued once."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import attrs

from jobqueue.errors import UnavailableError
from jobqueue.events import JobsAdded
from jobqueue.middleware import add_job_through
from jobqueue.models import Job
from jobqueue.schedule_store import ScheduleStore
from jobqueue.schedules import Schedule
from jobqueue.service import Service
from jobqueue.ticks import BYTES_AT_A_TIME, Plan, ScheduleTick, Skipped, job_of, plan_of

logger = logging.getLogger(__name__)

_MOST_ROUNDS: Final = 100
_MOST_SCHEDULES: Final = 20
_MOST_ATTEMPTS: Final = 100


@attrs.frozen
class Ticked:
    """What a round over all schedules has done."""

    jobs: Sequence[Job]
    """Those that were enqueued."""
    failures: Mapping[str, Exception]
    """What has kept schedules, by their names, from ticking."""
    next_in: timedelta | None
    """When the next tick of any other is due; zero when there is more to do, None when there is none to come."""


def tick_all(service: Service, store: ScheduleStore) -> Ticked:
    """Enqueue a job for each tick that is due by the database's clock, through the middleware of *service*.

    What keeps one schedule from ticking, such as a time zone that this machine does not know, keeps no other.

    Raises:
        UnavailableError: the database does not answer.
    """
    jobs = list[Job]()
    failures = dict[str, Exception]()
    for _ in range(_MOST_ROUNDS):
        look = store.look(_MOST_SCHEDULES, failures.keys())
        if not look.due:
            return Ticked(jobs, failures, None if look.nearest is None else look.nearest - look.now)
        for due in look.due:
            try:
                plan, passed = _pass_all(service, plan_of(due.schedule, look.now, is_busy=due.is_busy))
            except Exception as error:  # noqa: BLE001 - also when a server of its own is away
                failures[due.schedule.name] = error
                continue
            try:
                jobs += _tick(service, store, plan, passed)
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the others have to tick
                failures[due.schedule.name] = error
    return Ticked(jobs, failures, timedelta(0))


def run_by_hand(service: Service, store: ScheduleStore, name: str) -> Job | None:
    """Enqueue a job as the schedule *name* has it, beside its ticks; None when there is no such schedule."""
    for _ in range(_MOST_ATTEMPTS):
        schedule = next(iter(store.get([name])), None)
        if schedule is None:
            return None
        passed = _pass(service, job_of(schedule, None))
        if passed.to_add is None:
            return passed.answer
        stored = store.run(schedule, passed.to_add)
        if stored is not None and stored.is_duplicate:
            return stored
        if stored is not None:
            _tell_of(service, [passed.to_add])
            return passed.answer
    raise UnavailableError(f"schedule {name!r} was changed each time that a job was to be enqueued for it: try again")


def _tick(service: Service, store: ScheduleStore, plan: Plan, passed: Sequence["_Passed"]) -> list[Job]:
    """Do what is to be done about a schedule; return the jobs that were enqueued, none if others were faster."""
    added = store.tick(plan)
    if added is None:
        return []
    _tell_of(service, [job for job in plan.jobs if job.id in added])
    for tick in plan.ticks:
        if tick.skipped is Skipped.MISSED:
            logger.warning(
                "schedule %r has missed its ticks from %s to %s",
                plan.schedule.name,
                tick.tick_at,
                tick.through_at or tick.tick_at,
            )
    return [each.answer for each in passed if each.to_add is None or each.to_add.id in added]


def _pass_all(service: Service, plan: Plan) -> tuple[Plan, Sequence["_Passed"]]:
    """Return *plan* as middleware has it, and what that has made of its jobs.

    It may enlarge them: what is more than can be enqueued at once is cut off, and is next.
    """
    planned = {job.id: job for job in plan.jobs}
    ticks = list[ScheduleTick]()
    passed = list[_Passed]()
    size = 0
    for tick in plan.ticks:
        if tick.job_id is None:
            ticks.append(tick)
            continue
        if size >= BYTES_AT_A_TIME:
            plan = attrs.evolve(plan, next_tick_at=tick.tick_at)
            break
        each = _pass(service, planned[tick.job_id])
        passed.append(each)
        ticks.append(each.noted(tick))
        size += 0 if each.to_add is None else len(each.to_add.payload_json)
    jobs = [each.to_add for each in passed if each.to_add is not None]
    return attrs.evolve(plan, ticks=ticks, jobs=jobs), passed


@attrs.frozen
class _Passed:
    """What middleware has made of a job."""

    answer: Job
    """What whoever adds it would be given."""
    to_add: Job | None
    """What is to be stored, unless nothing is."""

    def noted(self, tick: ScheduleTick) -> ScheduleTick:
        """Return *tick* with the job that it leads to."""
        if self.to_add is None:
            return attrs.evolve(tick, job_id=None, skipped=Skipped.DROPPED)
        return attrs.evolve(tick, job_id=self.to_add.id)


def _pass(service: Service, job: Job) -> _Passed:
    kept: Job | None = None

    def keep(job: Job) -> Job:
        nonlocal kept
        kept = job
        return job

    answer = add_job_through(service, job, keep)
    return _Passed(answer, kept)


def _tell_of(service: Service, jobs: Sequence[Job]) -> None:
    observers = service.listeners.observers
    if jobs and JobsAdded in observers.wanted:
        observers.tell(JobsAdded(jobs=tuple(jobs)))


def declare(store: ScheduleStore, declared: Schedule, origin: str) -> None:
    """Keep in the database what the code says of a schedule: if it is not there, or was declared otherwise before.

    *origin* is for jobs, if the code names none.
    """
    new = attrs.evolve(declared, origin=declared.origin or origin)
    if not store.get([declared.name]) and store.add(declared.name, new.timed_from):
        return
    store.change(declared.name, lambda schedule, now: schedule.declared_as(declared, now))
