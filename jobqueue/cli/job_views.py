"""Jobs as people and programs read them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobqueue.cli.snapshot import moment_or_none
from jobqueue.cli.status_screen import spelt
from jobqueue.models import Job

_MOMENTS: Final = (
    "created_at",
    "start_at",
    "started_at",
    "worker_alive_at",
    "stopped_at",
    "cancelled_at",
    "updated_at",
)


def job_as_json(job: Job) -> dict[str, Any]:
    """Return all that a job shows as one JSON object, whose keys stay; moments in ISO 8601."""
    return {
        "id": str(job.id),
        "type": job.type,
        "state": str(job.state),
        "origin": job.origin,
        "priority": job.priority,
        "payload": _value(job.payload_json),
        "result": _value(job.result_json),
        "error_msg": job.error_msg,
        "error_data": _value(job.error_data_json),
        "attempt_errors": _value(job.attempt_errors_json) or [],
        "progress": _value(job.progress_json),
        "max_retry_count": job.max_retry_count,
        "current_retry_count": job.current_retry_count,
        "run_count": job.run_count,
        "rescue_count": job.rescue_count,
        "claimed_by": job.claimed_by,
        "bundle_id": None if job.bundle_id is None else str(job.bundle_id),
        "completes_bundle_id": None if job.completes_bundle_id is None else str(job.completes_bundle_id),
        "unique_key": job.unique_key,
        **{name: moment_or_none(getattr(job, name)) for name in _MOMENTS},
    }


def print_jobs(console: Console, jobs: Sequence[Job]) -> None:
    """Print a table with a row for each of *jobs*; ids are never cut."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("id", no_wrap=True, min_width=36)
    table.add_column("type", overflow="fold")
    table.add_column("state", no_wrap=True, min_width=9)
    table.add_column("age", no_wrap=True)
    table.add_column("error", overflow="fold")
    now = datetime.now(UTC)
    for job in jobs:
        age = "" if job.created_at is None else spelt(max(now - job.created_at, timedelta(0)))
        error = (job.error_msg or "").partition("\n")[0]
        table.add_row(str(job.id), Text(job.type), str(job.state), age, Text(error[:200]))
    console.print(table)


def print_job(console: Console, job: Job) -> None:
    """Print all that there is to know of a job."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(job):
        table.add_row(name, Text(value))
    console.print(table)
    for number, attempt in enumerate(_value(job.attempt_errors_json) or [], start=1):
        console.print(Text(f"\nfailed run {number}", style="bold"))
        console.print(Text(_attempt(attempt)), soft_wrap=True)


def _facts(job: Job) -> list[tuple[str, str]]:
    facts = [
        ("id", str(job.id)),
        ("type", job.type),
        ("state", str(job.state)),
        ("origin", job.origin or ""),
        ("priority", str(job.priority)),
        ("payload", _pretty(job.payload_json)),
        ("result", _pretty(job.result_json)),
        ("error", job.error_msg or ""),
        ("error data", _pretty(job.error_data_json)),
        ("progress", _pretty(job.progress_json)),
        ("runs", f"{job.run_count}, of them {job.rescue_count} rescued" if job.rescue_count else str(job.run_count)),
        ("retries", f"{job.current_retry_count} of {job.max_retry_count}"),
        ("claimed by", job.claimed_by or ""),
        ("bundle", str(job.bundle_id or "")),
        ("unique key", job.unique_key or ""),
        *((name.removesuffix("_at").replace("_", " "), _moment(getattr(job, name))) for name in _MOMENTS),
        ("waited", _between(job.start_at or job.created_at, job.started_at)),
        ("took", _between(job.started_at, job.stopped_at)),
    ]
    return [(name, value) for name, value in facts if value]


def _attempt(attempt: Any) -> str:
    if not isinstance(attempt, dict):
        return json.dumps(attempt)
    told = cast("dict[str, Any]", attempt)
    head = f"{told.get('at')}: {told.get('error_type')}: {told.get('error_msg')}"
    return f"{head}\n{told.get('traceback') or ''}".rstrip()


def _value(text: str | None) -> Any:
    """Return what JSON text says, as far as Python can hold it; else the text."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _pretty(text: str | None) -> str:
    value = _value(text)
    if text is None or isinstance(value, str):
        return text or ""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"


def _between(begin: datetime | None, end: datetime | None) -> str:
    return "" if begin is None or end is None or end < begin else spelt(end - begin)
