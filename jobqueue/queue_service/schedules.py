"""The part of the service that has to do with schedules."""

from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Unpack

import attrs

from jobqueue.adding import job_type_named, retries_of
from jobqueue.errors import DuplicateScheduleError, InvalidJobError, InvalidScheduleError, ScheduleNotFoundError
from jobqueue.limits import COUNT, check_int, check_text
from jobqueue.models import Job
from jobqueue.queue_service.changing import changing
from jobqueue.queue_service.opened import Opened
from jobqueue.retry import RetryPolicy
from jobqueue.schedules import Missed, Overlap, Schedule, ScheduleChanges
from jobqueue.service import JobType, Service
from jobqueue.ticking import run_by_hand, tick_all
from jobqueue.ticks import ScheduleTick


class Schedules(Opened):
    """Schedules are rows; what is due of them is seen to by whoever calls."""

    @property
    @abstractmethod
    def _service(self) -> Service:
        """The whole of which this is a part."""

    @changing
    def add_schedule(
        self,
        name: str,
        type_or_handler: str | JobType,
        payload: object = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        tz: str = "UTC",
        start_at: datetime | None = None,
        missed: Missed | str = Missed.ONE,
        overlap: Overlap | str = Overlap.ALLOW,
        priority: int = 0,
        max_retry_count: int | None = None,
        retry: RetryPolicy | None = None,
        origin: str | None = None,
    ) -> Schedule:
        """Have a job enqueued at each tick."""
        store = self._open_store()
        job_type, handler = self._type_and_handler(name, type_or_handler)
        schedule = Schedule.new(
            name,
            job_type,
            payload,
            cron=cron,
            every=every,
            tz=tz,
            start_at=start_at,
            missed=missed,
            overlap=overlap,
            priority=priority,
            max_retry_count=retries_of(handler, retry) if max_retry_count is None else max_retry_count,
            retry=retry,
            origin=self._origin if origin is None else origin,
            max_payload_bytes=self.max_payload_bytes,
        )
        added = store.schedules.add(name, schedule.timed_from)
        if added is None:
            raise DuplicateScheduleError(name)
        return added

    def _type_and_handler(self, name: str, type_or_handler: str | JobType) -> tuple[str, JobType | None]:
        """Return the type of the jobs of a schedule, and their handler, if it is known. Raises InvalidScheduleError."""
        try:
            return job_type_named(type_or_handler), self._known_types.check(type_or_handler)
        except InvalidJobError as error:
            raise InvalidScheduleError(f"schedule {name!r}: {error}", field=error.field) from error

    @changing
    def change_schedule(self, name: str, **changes: Unpack[ScheduleChanges]) -> Schedule:
        """Change what is named."""
        if (job_type := changes.get("type")) is not None:
            self._type_and_handler(name, job_type)
        return self._change(name, lambda schedule, now: schedule.redefined(changes, now, self.max_payload_bytes))

    def get_schedule(self, name: str) -> Schedule:
        """Read a schedule."""
        found = self._open_store().schedules.get([check_text("name", name)])
        if not found:
            raise ScheduleNotFoundError(name)
        return found[0]

    def get_schedules(self) -> list[Schedule]:
        """Read all schedules."""
        return self._open_store().schedules.get()

    @changing
    def pause_schedule(self, name: str) -> Schedule:
        """Have a schedule not tick until it is resumed."""
        return self._change(name, _paused)

    @changing
    def resume_schedule(self, name: str) -> Schedule:
        """Have a schedule tick again, after now."""
        return self._change(name, _resumed)

    def _change(self, name: str, change: Callable[[Schedule, datetime], Schedule]) -> Schedule:
        changed = self._open_store().schedules.change(check_text("name", name), change)
        if changed is None:
            raise ScheduleNotFoundError(name)
        return changed

    @changing
    def run_schedule_now(self, name: str) -> Job:
        """Enqueue a job as a schedule has it."""
        job = run_by_hand(self._service, self._open_store().schedules, check_text("name", name))
        if job is None:
            raise ScheduleNotFoundError(name)
        return job

    @changing
    def remove_schedule(self, name: str) -> bool:
        """Remove a schedule and its history."""
        return self._open_store().schedules.remove(check_text("name", name))

    def get_schedule_ticks(self, name: str, limit: int = 100) -> list[ScheduleTick]:
        """Read what has become of the last ticks."""
        store = self._open_store().schedules
        ticks = store.get_ticks(check_text("name", name), check_int("limit", limit, COUNT[1:]))
        if not ticks and not store.get([name]):
            raise ScheduleNotFoundError(name)
        return ticks

    @changing
    def tick_schedules(self) -> list[Job]:
        """Enqueue a job for each tick that is due now."""
        ticked = tick_all(self._service, self._open_store().schedules)
        for error in ticked.failures.values():
            raise error
        return list(ticked.jobs)


def _paused(schedule: Schedule, now: datetime) -> Schedule:
    return schedule if schedule.paused else attrs.evolve(schedule, paused_at=now, next_tick_at=None)


def _resumed(schedule: Schedule, now: datetime) -> Schedule:
    return attrs.evolve(schedule, paused_at=None).timed_from(now) if schedule.paused else schedule
