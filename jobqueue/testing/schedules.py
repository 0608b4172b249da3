"""Some schedules, as if there were no others."""

from collections.abc import Callable, Collection
from datetime import datetime
from uuid import UUID

from jobqueue.models import Job
from jobqueue.schedule_store import ScheduleLook, ScheduleStore
from jobqueue.schedules import Schedule
from jobqueue.ticks import Plan, ScheduleTick


class SchedulesOf:
    """The ScheduleStore *store*, of which only those schedules tick that are wanted."""

    def __init__(self, store: ScheduleStore, is_wanted: Callable[[Schedule], bool]) -> None:
        self._store = store
        self._is_wanted = is_wanted

    def look(self, limit: int, besides: Collection[str] = ()) -> ScheduleLook:
        """Look what has to tick of those that are wanted."""
        others = [schedule.name for schedule in self._store.get() if not self._is_wanted(schedule)]
        return self._store.look(limit, [*besides, *others])

    def tick(self, plan: Plan) -> frozenset[UUID] | None:
        """Do what the store does."""
        return self._store.tick(plan)

    def add(self, name: str, make: Callable[[datetime], Schedule]) -> Schedule | None:
        """Do what the store does."""
        return self._store.add(name, make)

    def change(self, name: str, change: Callable[[Schedule, datetime], Schedule]) -> Schedule | None:
        """Do what the store does."""
        return self._store.change(name, change)

    def remove(self, name: str) -> bool:
        """Do what the store does."""
        return self._store.remove(name)

    def get(self, names: Collection[str] | None = None) -> list[Schedule]:
        """Do what the store does."""
        return self._store.get(names)

    def get_ticks(self, name: str, limit: int) -> list[ScheduleTick]:
        """Do what the store does."""
        return self._store.get_ticks(name, limit)

    def run(self, schedule: Schedule, job: Job) -> Job | None:
        """Do what the store does."""
        return self._store.run(schedule, job)
