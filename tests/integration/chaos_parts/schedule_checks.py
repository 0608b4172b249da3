"""What must be true of schedules that tick each second, and have to make up for all that was missed."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

import attrs

from tests.integration.chaos_parts.findings import Findings
from tests.integration.chaos_parts.history import Change, History
from tests.integration.chaos_parts.plan import EVERY, SCHEDULES

_SCHEDULE = ("schedule insert", "schedule", "schedule delete")


@attrs.define
class _Life:
    """What a schedule has seen to since it was added, until it is removed."""

    ticks: set[datetime] = attrs.field(factory=set[datetime])


def each_tick_once(history: History) -> Findings:
    """Whenever a schedule moves on, what it leaves behind was seen to, each tick once, whatever fails meanwhile."""
    findings = Findings()
    lives: dict[str, _Life] = {}
    noted = _ticks_by_transaction(history)
    for change in history.changes_of(*_SCHEDULE):
        if change.subject == "schedule insert":
            lives[change.id] = _Life()
        ticks = [tick for tick in noted.pop((change.transaction, change.id), ()) if not tick.after["by_hand"]]
        life = lives[change.id]
        for tick in ticks:
            moment = datetime.fromisoformat(tick.after["tick_at"])
            findings.look(moment not in life.ticks, f"the tick at {moment} was seen to twice", change.id)
            findings.look(tick.after["skipped"] != "missed", f"the tick at {moment} was left out", change.id)
            life.ticks.add(moment)
        for moment in _left_behind(change):
            findings.look(moment in life.ticks, f"nobody has seen to the tick at {moment}", change.id)
    for (_, name), ticks in noted.items():
        problem = f"{len(ticks)} ticks were noted by somebody who has not moved it on"
        findings.look(all(tick.after["by_hand"] for tick in ticks), problem, name)
    return findings


def each_tick_its_job(history: History) -> Findings:
    """Each tick that was not skipped has one job, added with it; and each job of a schedule has its tick."""
    findings = Findings()
    added = {change.id: change for change in history.changes_of("job insert")}
    ticks: dict[str, list[Change]] = defaultdict(list)
    for tick in history.changes_of("schedule_tick insert"):
        job = tick.after["job_id"]
        if job is None:
            is_allowed = SCHEDULES[tick.id] == "skip"
            findings.look(is_allowed, f"its tick at {tick.after['tick_at']} has led to no job", tick.id)
            continue
        ticks[job].append(tick)
        together = job in added and added[job].transaction == tick.transaction
        problem = f"it is of the tick at {tick.after['tick_at']}, and was not added with it, or is not there"
        findings.look(together and job in history.jobs, problem, job)
    for id_, row in history.jobs.items():
        if row["type"] in SCHEDULES:
            number = len(ticks[id_])
            findings.look(number == 1, f"it has {number} ticks", id_)
    return findings


@attrs.define
class _Going:
    """The jobs of a schedule that go on."""

    now: set[str] = attrs.field(factory=set[str])
    lately: set[str] = attrs.field(factory=set[str])
    """Those that have gone on at some moment since the schedule was changed: whoever sees to it looked after that."""


def skipping_never_overlaps(history: History) -> Findings:
    """A schedule that skips ticks while a job of it goes on adds no second one, and skips none when nothing goes on.

    A job that was run by hand may overlap with others.
    """
    findings = Findings()
    noted = _ticks_by_transaction(history)
    by_hand = {tick.after["job_id"] for ticks in noted.values() for tick in ticks if tick.after["by_hand"]}
    of = {name: _Going() for name, overlap in SCHEDULES.items() if overlap == "skip"}
    for change in history.changes_of("schedule insert", "schedule", "job insert", "job"):
        name = change.id if change.subject.startswith("schedule") else change.after["type"]
        if name not in of:
            continue
        going = of[name]
        if change.subject == "schedule":
            ticks = noted[change.transaction, name]
            is_busy = bool(going.lately) or any(tick.after["job_id"] is not None for tick in ticks)
            is_skipped = any(tick.after["skipped"] == "overlap" for tick in ticks)
            findings.look(is_busy or not is_skipped, f"it has skipped a tick at {change.wall:.3f} for nothing", name)
            going.lately = set(going.now)
        elif change.subject == "job insert":
            problem = f"it was added while {going.now} went on"
            findings.look(not going.now or change.id in by_hand, problem, change.id)
            going.now.add(change.id)
            going.lately.add(change.id)
        elif change.subject == "job" and change.after["stopped_at"] is not None:
            going.now.discard(change.id)
        elif change.subject == "schedule insert":
            # What it has left from an earlier life is not its business.
            of[name] = _Going()
    return findings


def _ticks_by_transaction(history: History) -> dict[tuple[int, str], list[Change]]:
    found: dict[tuple[int, str], list[Change]] = defaultdict(list)
    for change in history.changes_of("schedule_tick insert"):
        found[change.transaction, change.id].append(change)
    return found


def _left_behind(change: Change) -> Iterator[datetime]:
    """Yield the ticks from which a schedule has moved on to a later one. When it is paused, it forgets the next one."""
    before, after = change.before.get("next_tick_at"), change.after.get("next_tick_at")
    if before is None or after is None:
        return
    moment, end = datetime.fromisoformat(before), datetime.fromisoformat(after)
    while moment < end:
        yield moment
        moment += EVERY
