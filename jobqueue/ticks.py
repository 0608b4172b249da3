"""Which ticks of a schedule are due, which of them lead to jobs, and why the others do not. No clock, no I/O."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import attrs

from jobqueue.models import Job, new_id
from jobqueue.recurrence import latest
from jobqueue.schedules import Missed, Overlap, Schedule

ON_TIME_WITHIN: Final = timedelta(seconds=30)
"""How late a tick may be enqueued without having been missed."""

MOST_MADE_UP_FOR: Final = 1000
"""How many missed ticks lead to jobs at most."""

TICKS_KEPT: Final = 1200
"""How many of its last ticks a schedule remembers: what was missed, too, when so many were made up for."""

BYTES_AT_A_TIME: Final = 4 * 2**20
"""How much payload is enqueued at once, before the rest is left to the next look."""

_MOST_AT_A_TIME: Final = 100
_MOST_ON_TIME: Final = int(ON_TIME_WITHIN.total_seconds()) + 2


class Skipped(StrEnum):
    """Why a tick has led to no job."""

    MISSED = "missed"
    OVERLAP = "overlap"
    DUPLICATE = "duplicate"
    """Another job holds the unique key that middleware gave to this one."""
    DROPPED = "dropped"
    """Middleware has added none."""


@attrs.frozen(kw_only=True)
class ScheduleTick:
    """What has become of a tick; or, with *through_at*, of all from *tick_at* to that one, which were skipped."""

    tick_at: datetime
    through_at: datetime | None = None
    job_id: UUID | None = None
    """The job that was enqueued; None when the tick was skipped."""
    skipped: Skipped | None = None
    by_hand: bool = False
    """Whether it is no tick, but ``run_schedule_now`` has enqueued the job."""
    noted_at: datetime | None = None
    """When that was, by the database's clock."""


@attrs.frozen
class Plan:
    """What a look at a schedule leads to: all of it, or, when somebody has changed the schedule meanwhile, nothing."""

    schedule: Schedule
    ticks: Sequence[ScheduleTick]
    jobs: Sequence[Job]
    """Those that *ticks* name."""
    next_tick_at: datetime | None


def plan_of(schedule: Schedule, now: datetime, *, is_busy: bool) -> Plan:
    """Plan what to do about the ticks of *schedule* that are due at *now*, of which there is one at least.

    *is_busy* says whether an earlier job of it has not stopped. Not all need be seen to: the rest is then next.
    """
    first = schedule.next_tick_at
    assert first is not None
    due = latest(schedule.recurrence, first, now, _most_wanted(schedule, first, now) + 1)
    wanted = _wanted(schedule, first, due, now)
    passed_over = due[: len(due) - len(wanted)]
    at_a_time = max(1, min(_MOST_AT_A_TIME, BYTES_AT_A_TIME // len(schedule.payload_json)))
    done, left = wanted[:at_a_time], wanted[at_a_time:]
    jobs = [_job_at(schedule, tick_at) for tick_at in done]
    if schedule.overlap is Overlap.SKIP:
        jobs = [] if is_busy else jobs[:1]
    ticks = [
        *_missed(first, passed_over),
        *(ScheduleTick(tick_at=tick_at, job_id=job.id) for tick_at, job in zip(done, jobs, strict=False)),
        *(ScheduleTick(tick_at=tick_at, skipped=Skipped.OVERLAP) for tick_at in done[len(jobs) :]),
    ]
    return Plan(schedule, ticks, jobs, left[0] if left else next(schedule.recurrence.after(now), None))


def job_of(schedule: Schedule, start_at: datetime | None) -> Job:
    """Make a job as *schedule* has it."""
    return Job(
        id=new_id(),
        type=schedule.type,
        payload_json=schedule.payload_json,
        origin=schedule.origin,
        priority=schedule.priority,
        start_at=start_at,
        max_retry_count=schedule.max_retry_count,
        retry_policy_json=schedule.retry_policy_json,
    )


def _job_at(schedule: Schedule, tick_at: datetime) -> Job:
    return job_of(schedule, tick_at)


def _most_wanted(schedule: Schedule, first: datetime, now: datetime) -> int:
    if now - first <= ON_TIME_WITHIN or schedule.missed is Missed.SKIP:
        return _MOST_ON_TIME
    return 1 if schedule.missed is Missed.ONE else MOST_MADE_UP_FOR


def _wanted(schedule: Schedule, first: datetime, due: Sequence[datetime], now: datetime) -> Sequence[datetime]:
    """Return those that lead to jobs, of the last that are *due*: all, or more than can be wanted."""
    if now - first <= ON_TIME_WITHIN:
        return due
    if schedule.missed is Missed.SKIP:
        return [tick_at for tick_at in due if now - tick_at <= ON_TIME_WITHIN]
    return due[-1:] if schedule.missed is Missed.ONE else due[-MOST_MADE_UP_FOR:]


def _missed(first: datetime, passed_over: Sequence[datetime]) -> Sequence[ScheduleTick]:
    """Note those that were *passed_over*, of which there may be more between *first* and the first of them."""
    if not passed_over:
        return ()
    last = passed_over[-1]
    return [ScheduleTick(tick_at=first, through_at=None if last == first else last, skipped=Skipped.MISSED)]
