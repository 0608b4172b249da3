"""A look at a queue as one screen."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobqueue.cli.snapshot import Snapshot
from jobqueue.models import State
from jobqueue.pauses import covers

_TYPES_SHOWN: Final = 20
_OTHERS_SHOWN: Final = 10
_ALWAYS: Final = frozenset({State.AVAILABLE, State.RUNNING, State.SUCCEEDED, State.FAILED})
_ORDER: Final = (
    State.AVAILABLE,
    State.SCHEDULED,
    State.RETRYING,
    State.RUNNING,
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
)
_SPANS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def screen_of(snapshot: Snapshot) -> RenderableType:
    """Return all that a snapshot tells."""
    parts: list[RenderableType] = [_head(snapshot), _jobs(snapshot)]
    if snapshot.activity.workers:
        parts.append(_workers(snapshot))
    if snapshot.paused:
        parts.append(_paused(snapshot))
    if snapshot.schedules:
        parts.append(_schedules(snapshot))
    return Group(*parts)


def spelt(span: timedelta) -> str:
    """Return a length of time shortly: its two largest units."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"  # noqa: PLR2004
    left, parts = int(seconds), list[str]()
    for unit, length in _SPANS:
        number, left = divmod(left, length)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def _head(snapshot: Snapshot) -> Text:
    connection, activity = snapshot.connection, snapshot.activity
    version = connection.server_version or ""
    notes = [
        note
        for note, holds in (
            ("through a pooler", connection.is_pooled),
            ("READ ONLY: a standby, or set so", connection.is_read_only),
        )
        if holds
    ]
    where = ", ".join([f"{connection.backend} {version}".strip(), f"round trip {spelt(connection.round_trip)}", *notes])
    about = "about " if snapshot.counts.is_estimate else ""
    jobs = "job" if snapshot.counts.num_jobs == 1 else "jobs"
    have = "has" if activity.num_stopped == 1 else "have"
    return Text(
        f"{snapshot.at:%Y-%m-%d %H:%M:%S} UTC   {where}\n"
        f"{about}{snapshot.counts.num_jobs:,} {jobs}; in the last {spelt(activity.within)} {activity.num_stopped:,} "
        f"{have} stopped ({activity.per_second:,.1f} a second), {activity.num_failed:,} of them failed"
    )


def _jobs(snapshot: Snapshot) -> Table:
    counts = snapshot.counts
    states = [state for state in _ORDER if state in _ALWAYS or counts.by_state[state]]
    table = Table("type", title="Jobs", title_justify="left", box=SIMPLE_HEAD)
    for state in states:
        table.add_column(f"~ {state}" if state in counts.estimated_states else state, justify="right")
    table.add_column("oldest due", justify="right")
    due = snapshot.oldest_due
    types = sorted({*counts.by_type_and_state, *due}, key=lambda job_type: (-due.get(job_type, timedelta(0)), job_type))
    for job_type in types[:_TYPES_SHOWN]:
        numbers = counts.by_type_and_state.get(job_type, {})
        pause = " (paused)" if any(covers(paused.type, job_type) for paused in snapshot.paused) else ""
        oldest = spelt(due[job_type]) if job_type in due else ""
        table.add_row(Text(job_type + pause), *(f"{numbers.get(state, 0):,}" for state in states), oldest)
    if len(types) > _TYPES_SHOWN:
        table.add_row(f"and {len(types) - _TYPES_SHOWN:,} more")
    table.add_section()
    oldest_of_all = spelt(max(due.values())) if due else ""
    table.add_row("all", *(f"{counts.by_state[state]:,}" for state in states), oldest_of_all)
    return table


def _workers(snapshot: Snapshot) -> Table:
    rows = (
        (
            worker.name,
            f"{worker.num_running:,}",
            spelt(worker.silent_for),
            "silent" if snapshot.is_silent(worker) else "",
        )
        for worker in snapshot.activity.workers
    )
    return _table("Workers that had jobs lately", ("process", "jobs", "last heard of", ""), rows)


def _paused(snapshot: Snapshot) -> Table:
    rows = (
        (paused.type, "resumed" if paused.until is None else f"{paused.until:%Y-%m-%d %H:%M:%S}", paused.reason or "")
        for paused in snapshot.paused
    )
    return _table("Paused", ("type", "until", "why"), rows)


def _schedules(snapshot: Snapshot) -> Table:
    rows = (
        (
            schedule.name,
            schedule.cron or f"every {schedule.every}",
            "paused" if schedule.next_tick_at is None else f"{schedule.next_tick_at:%Y-%m-%d %H:%M:%S}",
        )
        for schedule in snapshot.schedules
    )
    return _table("Schedules", ("name", "when", "next tick (UTC)"), rows)


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD)
    every = list(rows)
    for row in every[:_OTHERS_SHOWN]:
        table.add_row(*map(Text, row))
    if len(every) > _OTHERS_SHOWN:
        table.add_row(f"and {len(every) - _OTHERS_SHOWN:,} more")
    return table
