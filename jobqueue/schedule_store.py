"""The rows of schedules and their ticks: the port that every backend implements."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import attrs

from jobqueue.models import Job
from jobqueue.schedules import Schedule
from jobqueue.ticks import Plan, ScheduleTick


@attrs.frozen(kw_only=True)
class Due:
    """A schedule that has to tick, and whether an earlier job of it has not stopped, which is asked if that matters."""

    schedule: Schedule
    is_busy: bool


@attrs.frozen(kw_only=True)
class ScheduleLook:
    """What there is to do, by the database's clock."""

    now: datetime
    nearest: datetime | None
    """The next tick of all that were looked at; None: there is none to come."""
    due: Sequence[Due]


class ScheduleStore(Protocol):
    """Each method is one statement or one transaction, by the database's clock. Whoever changes a row locks it alone.

    Everybody hears of what is changed by ``add``, ``change`` and ``remove`` (a ScheduleChanged).
    """

    def add(self, name: str, make: Callable[[datetime], Schedule]) -> Schedule | None:
        """Add the schedule *name* that *make* describes, given what time it is; None when there is one."""
        ...

    def change(self, name: str, change: Callable[[Schedule, datetime], Schedule]) -> Schedule | None:
        """Lock a schedule, have *change* describe what becomes of it, and return that; None when it is not there."""
        ...

    def remove(self, name: str) -> bool:
        """Remove a schedule with its history; return whether it was there. Its jobs stay."""
        ...

    def get(self, names: Collection[str] | None = None) -> list[Schedule]:
        """Read schedules, all or those of *names*, in the order of their names."""
        ...

    def get_ticks(self, name: str, limit: int) -> list[ScheduleTick]:
        """Read the last ticks that were seen to, the newest first."""
        ...

    def look(self, limit: int, besides: Collection[str] = ()) -> ScheduleLook:
        """Look what has to tick, the longest due first, up to *limit*; but for those called *besides*."""
        ...

    def tick(self, plan: Plan) -> frozenset[UUID] | None:
        """Enqueue the jobs of *plan*, note its ticks, and move its schedule on; None, and nothing, if that has changed.

        A tick that was noted before stays as it is, and its job is not enqueued: no tick is ever enqueued twice. One
        whose job wants a unique key that another holds is noted as a duplicate. Return the ids of the jobs that were
        enqueued. Of the ticks that were noted, the last 1,200 or so are kept.
        """
        ...

    def run(self, schedule: Schedule, job: Job) -> Job | None:
        """Enqueue *job*, and note it, beside the ticks of *schedule*; return None if that has changed.

        Return *job*, or, as a duplicate, the one that holds its unique key; then nothing is noted.
        """
        ...
