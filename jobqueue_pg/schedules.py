"""Schedules and their ticks as rows in PostgreSQL."""

import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import attrs

from jobqueue.models import Job
from jobqueue.schedule_store import Due, ScheduleLook
from jobqueue.schedules import Missed, Overlap, Schedule
from jobqueue.ticks import TICKS_KEPT, Plan, ScheduleTick, Skipped
from jobqueue_pg import rows
from jobqueue_pg.database import Database
from jobqueue_pg.joining import Lent
from jobqueue_pg.queries import scheduling as queries

# To find the last one that is kept costs more than all else that a tick does.
_TICKS_FORGOTTEN_AT_ONCE: Final = 50


class PostgresSchedules:
    """The ScheduleStore on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, make: Callable[[datetime], Schedule]) -> Schedule | None:
        """Add the schedule *name* that *make* describes."""

        def work(connection: Lent) -> bool:
            ((now,),) = self._database.execute(connection, queries.ASK_THE_TIME, {}).fetchall()
            added = self._database.execute(connection, queries.ADD_SCHEDULE, _parameters(make(now)))
            return added.rowcount == 1

        return self._get(name) if self._database.transact(work) else None

    def change(self, name: str, change: Callable[[Schedule, datetime], Schedule]) -> Schedule | None:
        """Lock a schedule, and make of it what *change* describes."""

        def work(connection: Lent) -> bool:
            found = self._database.execute(connection, queries.LOCK_SCHEDULE, {"name": name}).fetchone()
            if found is None:
                return False
            before = _schedule_of(found[1:])
            after = change(before, found[0])
            if after != before:
                self._database.execute(connection, queries.CHANGE_SCHEDULE, _parameters(after))
            return True

        return self._get(name) if self._database.transact(work) else None

    def _get(self, name: str) -> Schedule | None:
        return next(iter(self.get([name])), None)

    def remove(self, name: str) -> bool:
        """Remove a schedule with its history."""
        return self._database.change(queries.REMOVE_SCHEDULE, {"name": name}) == 1

    def get(self, names: Collection[str] | None = None) -> list[Schedule]:
        """Read schedules, all or those of *names*."""
        which = {"names": None if names is None else list(names)}
        return [_schedule_of(row) for row in self._database.fetch(queries.GET_SCHEDULES, which)]

    def get_ticks(self, name: str, limit: int) -> list[ScheduleTick]:
        """Read the last ticks that were seen to, the newest first."""
        found = self._database.fetch(queries.GET_TICKS, {"name": name, "limit": limit})
        return [_tick_of(row) for row in found]

    def look(self, limit: int, besides: Collection[str] = ()) -> ScheduleLook:
        """Look what has to tick."""
        found = self._database.fetch(queries.LOOK_AT_SCHEDULES, {"limit": limit, "besides": list(besides)})
        (now, nearest), name = found[0][:2], found[0][2]
        due = [] if name is None else [Due(schedule=_schedule_of(row[2:-1]), is_busy=bool(row[-1])) for row in found]
        return ScheduleLook(now=now, nearest=nearest, due=due)

    def tick(self, plan: Plan) -> frozenset[UUID] | None:
        """Enqueue the jobs of *plan*, note its ticks, and move its schedule on."""
        jobs = self._spelt(plan.jobs)
        parameters = {
            **_version(plan.schedule),
            "next_tick_at": plan.next_tick_at,
            "ticks": json.dumps([_record(tick) for tick in plan.ticks]),
            "jobs": jobs,
            "kept": TICKS_KEPT,
            "forgets": len(plan.ticks) > 1 or plan.schedule.version % _TICKS_FORGOTTEN_AT_ONCE == 0,
        }
        found = self._database.fetch(queries.TICK, parameters)
        return frozenset(found[0][0]) if found else None

    def run(self, schedule: Schedule, job: Job) -> Job | None:
        """Enqueue *job*, and note it, beside the ticks of *schedule*."""
        ((is_unchanged, is_added),) = self._database.fetch(
            queries.RUN_SCHEDULE, {**_version(schedule), "jobs": self._spelt([job])}
        )
        if not is_unchanged or is_added:
            return job if is_added else None
        holders = self._database.fetch(queries.HOLDER_OF_KEY, {"type": job.type, "unique_key": job.unique_key})
        return next((attrs.evolve(rows.job_of_row(row), is_duplicate=True) for row in holders), None)

    def _spelt(self, jobs: Sequence[Job]) -> str:
        """Spell jobs for a statement that adds them, with such keys free as nobody holds any longer."""
        text = rows.job_recordset(jobs)
        if any(job.unique_key is not None for job in jobs):
            self._database.change(queries.FREE_KEYS_OF_JOBS, {"jobs": text})
        return text


def _version(schedule: Schedule) -> dict[str, object]:
    return {
        "name": schedule.name,
        "created_at": schedule.created_at,
        "version": schedule.version,
        "expected": schedule.next_tick_at,
    }


def _record(tick: ScheduleTick) -> dict[str, str | None]:
    return {
        "tick_at": tick.tick_at.isoformat(),
        "through_at": None if tick.through_at is None else tick.through_at.isoformat(),
        "job_id": None if tick.job_id is None else str(tick.job_id),
        "skipped": tick.skipped,
    }


def _parameters(schedule: Schedule) -> dict[str, object]:
    return {
        **attrs.asdict(schedule, recurse=False),
        "missed": str(schedule.missed),
        "overlap": str(schedule.overlap),
        "payload": schedule.payload_json,
        "retry_policy": schedule.retry_policy_json,
    }


def _schedule_of(row: rows.Row) -> Schedule:
    """Make a schedule of the columns SCHEDULE_COLUMNS."""
    return Schedule(
        name=row[0],
        type=row[1],
        payload_json=row[2],
        cron=row[3],
        every=row[4],
        tz=row[5],
        start_at=row[6],
        missed=Missed(row[7]),
        overlap=Overlap(row[8]),
        priority=row[9],
        max_retry_count=row[10],
        retry_policy_json=row[11],
        origin=row[12],
        next_tick_at=row[13],
        paused_at=row[14],
        version=row[15],
        declared=row[16],
        created_at=row[17],
        updated_at=row[18],
    )


def _tick_of(row: rows.Row) -> ScheduleTick:
    return ScheduleTick(
        tick_at=row[0],
        through_at=row[1],
        job_id=row[2],
        skipped=None if row[3] is None else Skipped(row[3]),
        by_hand=row[4],
        noted_at=row[5],
    )
