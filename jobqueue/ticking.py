"""Sees to the ticks that are due: any process may at any time, and each tick is enqueued once."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import attrs

from jobqueue.errors import UnavailableError
from jobqueue.events import JobsAdded
from jobqueue.middleware import add_job_through
from jobqueue.models import Job
from jobqueue.schedule_store import Due, ScheduleStore
from jobqueue.schedules import Schedule
from jobqueue.service import Service
from jobqueue.ticks import Skipped, job_of, plan_of

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
                jobs += _tick(service, store, due, look.now)
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
        if store.run(schedule, passed.to_add):
            _tell_of(service, [passed.to_add])
            return passed.answer
    raise UnavailableError(f"schedule {name!r} was changed each time that a job was to be enqueued for it: try again")


def _tick(service: Service, store: ScheduleStore, due: Due, now: datetime) -> list[Job]:
    """Do what is to be done about a schedule; return the jobs that were enqueued, none if others were faster."""
    plan = plan_of(due.schedule, now, is_busy=due.is_busy)
    passed = {job.id: _pass(service, job) for job in plan.jobs}
    ticks = [attrs.evolve(tick, job_id=passed[tick.job_id].id) if tick.job_id else tick for tick in plan.ticks]
    jobs = [each.to_add for each in passed.values() if each.to_add is not None]
    added = store.tick(attrs.evolve(plan, ticks=ticks, jobs=jobs))
    if added is None:
        return []
    _tell_of(service, [job for job in jobs if job.id in added])
    for tick in ticks:
        if tick.skipped is Skipped.MISSED:
            logger.warning(
                "schedule %r has missed its ticks from %s to %s",
                plan.schedule.name,
                tick.tick_at,
                tick.through_at or tick.tick_at,
            )
    return [each.answer for each in passed.values() if each.to_add is None or each.to_add.id in added]


@attrs.frozen
class _Passed:
    """What middleware has made of a job."""

    answer: Job
    """What whoever adds it would be given."""
    to_add: Job | None
    """What is to be stored, unless nothing is."""

    @property
    def id(self) -> UUID:
        return (self.to_add or self.answer).id


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
    if jobs and observers.want(JobsAdded):
        observers.tell(JobsAdded(jobs=tuple(jobs)))


def declare(store: ScheduleStore, declared: Schedule, origin: str) -> None:
    """Keep in the database what the code says of a schedule: if it is not there, or was declared otherwise before.

    *origin* is for jobs, if the code names none.
    """
    new = attrs.evolve(declared, origin=declared.origin or origin)
    if not store.get([declared.name]) and store.add(declared.name, new.timed_from):
        return
    store.change(declared.name, lambda schedule, now: schedule.declared_as(declared, now))
