"""Schedules and their ticks in memory."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import count
from uuid import UUID

import attrs

from jobqueue.backends.memory import transitions
from jobqueue.backends.memory.change import Change
from jobqueue.backends.memory.conflicts import Conflicts
from jobqueue.backends.memory.rows import Rows
from jobqueue.backends.memory.session import Session
from jobqueue.events import ScheduleChanged
from jobqueue.models import Job
from jobqueue.schedule_store import Due, ScheduleLook
from jobqueue.schedules import Overlap, Schedule
from jobqueue.ticks import TICKS_KEPT, Plan, ScheduleTick, Skipped

_Ticks = dict[tuple[datetime, bool], ScheduleTick]


class MemorySchedules:
    """The ScheduleStore over a MemoryQueue."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, name: str, make: Callable[[datetime], Schedule]) -> Schedule | None:
        """Add the schedule *name* that *make* describes."""
        with self._session.changing() as change:
            if name in change.rows.schedules:
                return None
            added = attrs.evolve(make(change.now), created_at=change.now, updated_at=change.now)
            return _put(change, added)

    def change(self, name: str, change: Callable[[Schedule, datetime], Schedule]) -> Schedule | None:
        """Make of a schedule what *change* describes."""
        with self._session.changing() as changing:
            before = changing.rows.schedules.get(name)
            if before is None:
                return None
            after = change(before, changing.now)
            if after == before:
                return before
            return _put(changing, attrs.evolve(after, version=before.version + 1, updated_at=changing.now))

    def remove(self, name: str) -> bool:
        """Remove a schedule with its history."""
        with self._session.changing() as change:
            change.rows.ticks.pop(name, None)
            if change.rows.schedules.pop(name, None) is None:
                return False
            change.events.append(ScheduleChanged(name=name))
            return True

    def get(self, names: Collection[str] | None = None) -> list[Schedule]:
        """Read schedules, all or those of *names*."""
        with self._session.reading() as rows:
            found = [rows.schedules[name] for name in sorted(rows.schedules)]
        return [schedule for schedule in found if names is None or schedule.name in names]

    def get_ticks(self, name: str, limit: int) -> list[ScheduleTick]:
        """Read the last ticks that were seen to, the newest first."""
        with self._session.reading() as rows:
            ticks = dict(rows.ticks.get(name, {}))
        return [ticks[key] for key in sorted(ticks, reverse=True)[:limit]]

    def look(self, limit: int, besides: Collection[str] = ()) -> ScheduleLook:
        """Look what has to tick."""
        now = self._session.moment()
        with self._session.reading() as rows:
            ticking = sorted(
                (schedule.next_tick_at, schedule.name)
                for schedule in rows.schedules.values()
                if schedule.next_tick_at is not None and schedule.name not in besides
            )
            due = [rows.schedules[name] for next_tick_at, name in ticking if next_tick_at <= now][:limit]
            return ScheduleLook(
                now=now,
                nearest=ticking[0][0] if ticking else None,
                due=[Due(schedule=schedule, is_busy=_is_busy(rows, schedule)) for schedule in due],
            )

    def tick(self, plan: Plan) -> frozenset[UUID] | None:
        """Enqueue the jobs of *plan*, note its ticks, and move its schedule on."""
        with self._session.changing() as change:
            schedule = _unchanged(change.rows, plan.schedule)
            if schedule is None:
                return None
            ticks = change.rows.ticks.setdefault(schedule.name, {})
            new = [tick for tick in plan.ticks if (tick.tick_at, False) not in ticks]
            ids = {tick.job_id for tick in new}
            jobs = _insert(change, [job for job in plan.jobs if job.id in ids])
            added = frozenset(job.id for job in jobs)
            ticks |= {(tick.tick_at, False): _noted(tick, added, change.now) for tick in new}
            _forget_oldest(ticks)
            moved = attrs.evolve(schedule, next_tick_at=plan.next_tick_at, version=schedule.version + 1)
            change.rows.schedules[schedule.name] = moved
            return added

    def run(self, schedule: Schedule, job: Job) -> Job | None:
        """Enqueue *job*, and note it, beside the ticks of *schedule*."""
        with self._session.changing() as change:
            current = _unchanged(change.rows, schedule)
            if current is None:
                return None
            if not _insert(change, [job]):
                holder = change.rows.holder_of(job.type, job.unique_key or "")
                return None if holder is None else attrs.evolve(holder, is_duplicate=True)
            ticks = change.rows.ticks.setdefault(schedule.name, {})
            free = (change.now + timedelta(microseconds=number) for number in count())
            moment = next(moment for moment in free if (moment, True) not in ticks)
            ticks[moment, True] = ScheduleTick(tick_at=moment, job_id=job.id, by_hand=True, noted_at=change.now)
            change.rows.schedules[schedule.name] = attrs.evolve(current, version=current.version + 1)
            return job


def _put(change: Change, schedule: Schedule) -> Schedule:
    change.rows.schedules[schedule.name] = schedule
    change.events.append(ScheduleChanged(name=schedule.name))
    return schedule


def _unchanged(rows: Rows, seen: Schedule) -> Schedule | None:
    """Return a schedule, if it still is as it was *seen*."""
    schedule = rows.schedules.get(seen.name)
    return schedule if schedule is not None and _identity(schedule) == _identity(seen) else None


def _identity(schedule: Schedule) -> tuple[object, ...]:
    return schedule.created_at, schedule.version, schedule.next_tick_at


def _is_busy(rows: Rows, schedule: Schedule) -> bool:
    if schedule.overlap is not Overlap.SKIP:
        return False
    ticks = rows.ticks.get(schedule.name, {})
    jobs = rows.find(tick.job_id for tick in ticks.values() if tick.job_id is not None)
    return any(not job.stopped for job in jobs)


def _insert(change: Change, jobs: Iterable[Job]) -> Sequence[Job]:
    """Add those of *jobs* whose keys are free, and return them."""
    firsts = list({(job.type, job.unique_key or job.id): job for job in reversed(list(jobs))}.values())[::-1]
    held = Conflicts.of(change, firsts, "ignore").settle(change)
    new = [job for job in firsts if job.id not in held]
    change.rows.check_new(new)
    change.insert_jobs([transitions.added(job, change.now) for job in new])
    return new


def _noted(tick: ScheduleTick, added: Collection[UUID], now: datetime) -> ScheduleTick:
    if tick.job_id is None or tick.job_id in added:
        return attrs.evolve(tick, noted_at=now)
    return attrs.evolve(tick, job_id=None, skipped=Skipped.DUPLICATE, noted_at=now)


def _forget_oldest(ticks: _Ticks) -> None:
    for key in sorted(ticks)[:-TICKS_KEPT]:
        del ticks[key]
