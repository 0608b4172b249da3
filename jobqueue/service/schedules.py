"""What the service does again and again: schedules, which enqueue a job at each of their ticks."""

from datetime import datetime, timedelta
from typing import Protocol, Unpack

from jobqueue.models import Job
from jobqueue.retry import RetryPolicy
from jobqueue.schedules import Missed, Overlap, Schedule, ScheduleChanges
from jobqueue.service.adds import JobType
from jobqueue.ticks import ScheduleTick


class Schedules(Protocol):
    """Add, change, pause and remove schedules.

    They are kept in the database, and each worker pool sees to their ticks: each leads to one job, however many pools
    there are. What is changed is heeded by all of them within a second, where they listen.
    """

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
        """Have a job enqueued at each tick; return the schedule as it was stored.

        It ticks at the moments of *cron* in the time zone *tz*; or *every* second or more, the first time at
        *start_at*, or else when that has passed once. *start_at* keeps the ticks of *cron* before it from happening,
        too; those before now do not in any case. *payload* None is ``{}``. *missed* says what becomes of ticks that
        nobody has enqueued within 30 seconds, *overlap* of those while an earlier job of the schedule has not stopped.
        The rest is as with ``enqueue``.

        Each job has the time of its tick as its ``start_at``.

        Raises:
            DuplicateScheduleError: there is a schedule *name*.
            InvalidScheduleError: a value is of the wrong type or size, *cron* cannot be read or never comes true, *tz*
                is not known here; its ``field`` names it.
            PayloadError: the payload cannot be stored as JSON.
        """
        ...

    def change_schedule(self, name: str, **changes: Unpack[ScheduleChanges]) -> Schedule:
        """Change what is named, as ``add_schedule`` has it and *type*; return the schedule as it then is.

        A change of *cron*, *every*, *tz* or *start_at* sets the next tick, after now: ticks that are due by then, and
        were not enqueued yet, do not happen. *cron* replaces *every* and *start_at*, and the other way round. Code that
        declares the schedule (``@scheduled``) undoes the change when it is itself changed, and not before.

        Raises ScheduleNotFoundError, and as ``add_schedule``.
        """
        ...

    def get_schedule(self, name: str) -> Schedule:
        """Read a schedule. Raises ScheduleNotFoundError."""
        ...

    def get_schedules(self) -> list[Schedule]:
        """Read all schedules, by their names."""
        ...

    def pause_schedule(self, name: str) -> Schedule:
        """Have a schedule not tick until it is resumed, whoever restarts meanwhile. Raises ScheduleNotFoundError."""
        ...

    def resume_schedule(self, name: str) -> Schedule:
        """Have a schedule tick again, after now: ticks of the time of the pause do not happen.

        Raises ScheduleNotFoundError.
        """
        ...

    def run_schedule_now(self, name: str) -> Job:
        """Enqueue a job as a schedule has it, to be run at once; its ticks go on as before, paused or not.

        Where middleware gives it a unique key that another job holds, return that one, as ``enqueue`` does.

        Raises ScheduleNotFoundError.
        """
        ...

    def remove_schedule(self, name: str) -> bool:
        """Remove a schedule and its history, not its jobs; return whether it was there.

        One that code declares is back when a worker pool starts that runs this code: pause such a one.
        """
        ...

    def get_schedule_ticks(self, name: str, limit: int = 100) -> list[ScheduleTick]:
        """Read what has become of the last ticks, of which 1,200 are kept; the newest first.

        Raises ScheduleNotFoundError.
        """
        ...

    def tick_schedules(self) -> list[Job]:
        """Enqueue a job for each tick that is due now; return those jobs. Worker pools do so by themselves.

        What keeps a schedule from ticking is raised when the others have ticked.
        """
        ...
