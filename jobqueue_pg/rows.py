"""From rows to models and from models to parameters. The order of columns is that in queries/columns.py."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.errors import PayloadError
from jobqueue.models import Fence, FreshJob, Job
from jobqueue.outcomes import Claimant, Outcome, OutcomeKind, Rescue, RunError
from jobqueue.payload import MAX_PAYLOAD_BYTES, RawJSON, dump_json, load_json
from jobqueue.stored_policy import policy_json, policy_of_json

Row = Sequence[Any]

_NUM_JOB_COLUMNS: Final = 30
_MAX_JOBS_IN_STATEMENT: Final = 10_000
_MAX_BYTES_IN_STATEMENT: Final = 32 * MAX_PAYLOAD_BYTES
_CHARACTERS_IN_BLOCK: Final = 65_536
_NULL: Final = r"\N"
_NAMES_TO_REMEMBER: Final = 256
_MAX_DELAY_SECONDS: Final = 100 * 365 * 86_400.0
_KINDS: Final = {kind: f',"kind":"{kind.value}"' for kind in OutcomeKind}


def job_of_row(row: Row) -> Job:
    """Make a job of the columns JOB_COLUMNS."""
    return FreshJob(
        id=row[0],
        bundle_id=row[1],
        type=row[2],
        payload_json=row[3],
        priority=row[4],
        origin=row[5],
        max_retry_count=row[6],
        current_retry_count=row[7],
        start_at=row[8],
        started_at=row[9],
        worker_alive_at=row[10],
        created_at=row[11],
        updated_at=row[12],
        claim_id=row[13],
        claimed_by=row[14],
        run_count=row[15],
        rescue_count=row[16],
        attempt_errors_json=row[17],
        completes_bundle_id=row[18],
        progress_json=row[19],
        stopped_at=row[20],
        cancelled_at=row[21],
        error_msg=row[22],
        error_data_json=row[23],
        result_json=row[24],
        retry_policy_json=row[25],
        unique_key=row[26],
        unique_key_spent=row[27],
        unique_for=row[28] if row[29] is None else row[29] - row[11],
        unique_until=row[29],
    )


def job_of_claimed_row(row: Row, started_at: datetime, claim_id: UUID, claimant: Claimant) -> Job:
    """Make a job of the columns CLAIMED_COLUMNS, and of what its claim has set."""
    return FreshJob(
        id=row[0],
        bundle_id=row[1],
        type=row[2],
        payload_json=row[3],
        priority=row[4],
        origin=row[5],
        max_retry_count=row[6],
        current_retry_count=row[7],
        start_at=row[8],
        created_at=row[9],
        run_count=row[10],
        rescue_count=row[11],
        attempt_errors_json=row[12],
        completes_bundle_id=row[13],
        progress_json=row[14],
        error_msg=row[15],
        error_data_json=row[16],
        result_json=row[17],
        retry_policy_json=row[18],
        started_at=started_at,
        updated_at=started_at,
        worker_alive_at=started_at if claimant.beats else None,
        claim_id=claim_id,
        claimed_by=claimant.name,
    )


def bundle_of_rows(rows: Sequence[Row]) -> JobBundle | None:
    """Make a bundle of its own row, and those of its members; None: it has no row, which would be the first.

    Each has the columns JOB_COLUMNS and then BUNDLE_COLUMNS.
    """
    row: Row = rows[0][_NUM_JOB_COLUMNS:] if rows else (None,)
    if row[0] is None:
        return None
    return JobBundle(
        id=row[0],
        type=row[1],
        origin=row[2],
        num_jobs=row[3],
        num_jobs_stopped=row[4],
        delete_when_succeeded=row[5],
        stopped_at=row[6],
        updated_at=row[7],
        created_at=row[8],
        on_stopped=None if row[9] is None else _desc(row[9:]),
        jobs=tuple(map(job_of_row, rows[1:])),
    )


def _desc(row: Row) -> JobDesc:
    return JobDesc(
        _plain_or_raw(row[1]),
        type=row[0],
        origin=row[2],
        priority=row[3],
        max_retry_count=row[4],
        start_at=row[5],
        retry=None if row[6] is None else policy_of_json(row[6]),
    )


def _plain_or_raw(text: str) -> object:
    try:
        return load_json(text)
    except PayloadError:
        return RawJSON(text)


def rescue_of_row(row: Row) -> Rescue:
    """Make a rescue of what REAP_JOBS returns."""
    return Rescue(job_id=row[0], job_type=row[1], claimed_by=row[2], rescue_count=row[3], failed=row[4])


def job_parameters(job: Job, delay: timedelta | None) -> dict[str, str | None]:
    """Return the parameters of ADD_JOB, as texts: so they need no adapting, and are of one type whatever they are."""
    return {
        "id": job.id.hex,
        "type": job.type,
        "payload": job.payload_json,
        "priority": f"{int(job.priority)}",
        "origin": job.origin,
        "max_retry_count": f"{int(job.max_retry_count)}",
        "retry_policy": job.retry_policy_json,
        "start_at": None if job.start_at is None else job.start_at.isoformat(),
        "delay": None if delay is None else f"{delay.total_seconds()}",
    }


def job_recordsets(jobs: Sequence[Job]) -> Iterator[str]:
    """Spell jobs as JSON arrays of records for ADD_JOBS: one, unless they are very many or very large."""
    records: list[str] = []
    size = 0
    for job in jobs:
        record = _record(job)
        if records and (len(records) >= _MAX_JOBS_IN_STATEMENT or size + len(record) > _MAX_BYTES_IN_STATEMENT):
            yield f"[{','.join(records)}]"
            records, size = [], 0
        records.append(record)
        size += len(record)
    if records:
        yield f"[{','.join(records)}]"


def job_recordset(jobs: Iterable[Job]) -> str:
    """Spell jobs as one JSON array of such records: all of them, however large that is."""
    return f"[{','.join(map(_record, jobs))}]"


def _record(job: Job) -> str:
    """Spell one job, its payload inserted as the JSON text that it is already."""
    columns = json.dumps(
        {
            "id": str(job.id),
            "bundle_id": None if job.bundle_id is None else str(job.bundle_id),
            "type": job.type,
            "priority": job.priority,
            "origin": job.origin,
            "max_retry_count": job.max_retry_count,
            "start_at": None if job.start_at is None else job.start_at.isoformat(),
        }
    )
    policy = "" if job.retry_policy_json is None else f',"retry_policy":{job.retry_policy_json}'
    key = "" if job.unique_key is None else f",{json.dumps(_unique_columns(job))[1:-1]}"
    return f'{columns[:-1]}{policy}{key},"payload":{job.payload_json}}}'


def _unique_columns(job: Job) -> dict[str, object]:
    if isinstance(job.unique_for, timedelta):
        period = {"unique_for": "period", "unique_seconds": job.unique_for.total_seconds()}
        return {"unique_key": job.unique_key, **period}
    return {"unique_key": job.unique_key, "unique_for": job.unique_for}


def payloads_json(payloads: Mapping[UUID, str]) -> str:
    """Spell the payloads of jobs as the JSON array of records that REPLACE_PAYLOADS reads."""
    records = [f'{{"id":"{job_id}","payload":{payload}}}' for job_id, payload in payloads.items()]
    return f"[{','.join(records)}]"


def job_blocks(jobs: Iterable[Job], moment: datetime | None) -> Iterator[str]:
    """Spell jobs in the text format of COPY, in blocks that are worth sending, whatever their number.

    With a *moment* it is for COPY_JOBS_OF_A_MOMENT, else for COPY_JOBS. Source: PostgreSQL manual, COPY, Text Format.
    """
    end = "\n" if moment is None else f"\t{moment.isoformat()}\t{moment.isoformat()}\n"
    lines: list[str] = []
    size = 0
    for job in jobs:
        line = _line(job) + end
        lines.append(line)
        size += len(line)
        if size >= _CHARACTERS_IN_BLOCK:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def _line(job: Job) -> str:
    bundle_id = _NULL if job.bundle_id is None else job.bundle_id.hex
    start_at = _NULL if job.start_at is None else job.start_at.isoformat()
    policy = _NULL if job.retry_policy_json is None else _escaped_name(job.retry_policy_json)
    return (
        f"{job.id.hex}\t{bundle_id}\t{_escaped_name(job.type)}\t{_escaped(job.payload_json)}\t{int(job.priority)}\t"
        f"{_escaped_name(job.origin or '')}\t{int(job.max_retry_count)}\t{policy}\t{start_at}"
    )


@lru_cache(_NAMES_TO_REMEMBER)
def wanted_types(types: Sequence[str], without: Sequence[str]) -> Mapping[str, str]:
    """Return the parameters for *types*, among them patterns that do not stand for *without*: as texts of arrays.

    The driver would make such texts at each claim, in ten times the time that it takes to look them up.
    """
    prefixes = _prefixes(types)
    # What is less special than a pattern does not restrict it.
    longer = [[name for name in _prefixes(without) if len(name) > len(prefix)] for prefix in prefixes]
    return {
        "types": _array_text(name for name in dict.fromkeys(types) if not name.endswith("*")),
        "prefixes": _array_text(prefixes),
        "without": _array_text(name for name in without if not name.endswith("*")),
        # Each a text, as an array of arrays would have to be as wide everywhere.
        "without_prefixes": _array_text(_array_text(names) if names else None for names in longer),
    }


def _prefixes(names: Iterable[str]) -> list[str]:
    return [name.removesuffix("*") for name in names if name.endswith("*")]


def _array_text(names: Iterable[str | None]) -> str:
    escaped = (None if name is None else name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return "{" + ",".join("NULL" if name is None else f'"{name}"' for name in escaped) + "}"


@lru_cache(_NAMES_TO_REMEMBER)
def _escaped_name(name: str) -> str:
    return _escaped(name)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace("\t", r"\t").replace("\r", r"\r")


def bundle_parameters(bundle: JobBundle) -> dict[str, object]:
    """Return the parameters of ADD_BUNDLE, but for the members."""
    return {
        "id": bundle.id,
        "type": bundle.type,
        "origin": bundle.origin,
        "num_jobs": bundle.num_jobs,
        "on_stopped": _on_stopped_json(bundle.on_stopped),
        "delete_when_succeeded": bundle.delete_when_succeeded,
    }


def _on_stopped_json(desc: JobDesc | None) -> str | None:
    """Spell the job that a bundle adds when it has stopped, as the trigger on job_bundle reads it."""
    if desc is None:
        return None
    columns = json.dumps(
        {
            "type": desc.type,
            "origin": desc.origin,
            "priority": desc.priority,
            "maxRetryCount": desc.max_retry_count,
            "startAt": None if desc.start_at is None else desc.start_at.isoformat(),
        }
    )
    policy = "" if desc.retry is None else f',"retryPolicy":{policy_json(desc.retry)}'
    return f'{columns[:-1]}{policy},"payload":{dump_json(desc.payload)}}}'


def fences_json(fences: Iterable[Fence]) -> str:
    """Spell claims as the JSON array of records that TOUCH_JOBS reads."""
    return f"[{','.join(f'{{{columns}}}' for columns in _fences_columns(fences))}]"


def outcomes_json(outcomes: Sequence[Outcome]) -> str:
    """Spell outcomes as the JSON array of records that a trip reads.

    One text and not an array per column: the driver's arrays cost more time, and change their types with their content,
    which would prepare the statement anew for each combination.
    """
    columns = _fences_columns([outcome.fence for outcome in outcomes])
    return f"[{','.join(map(_outcome_record, columns, outcomes))}]"


def _outcome_record(columns: str, outcome: Outcome) -> str:
    columns += _KINDS[outcome.kind]
    if outcome.result_json is not None:
        columns += f',"result":{outcome.result_json}'
    if outcome.delay is not None:
        seconds = max(-_MAX_DELAY_SECONDS, min(outcome.delay.total_seconds(), _MAX_DELAY_SECONDS))
        columns += f',"delay":{seconds}'
    elif outcome.start_at is not None:
        columns += f',"start_at":"{outcome.start_at.isoformat()}"'
    if outcome.error is not None:
        columns += _error_columns(outcome.error, outcome.kind)
    return f"{{{columns}}}"


def _fences_columns(fences: Iterable[Fence]) -> Iterator[str]:
    """Spell fences. Those of one trip share all but the job, and mostly come one after the other."""
    claim, started_at, claim_id = "", None, None
    for fence in fences:
        if fence.claim_id is not claim_id or fence.started_at is not started_at:
            started_at, claim_id = fence.started_at, fence.claim_id
            claim = f'"started_at":"{started_at.isoformat()}","claim_id":"{claim_id}","id":"'
        yield f'{claim}{fence.job_id.hex}"'


def _error_columns(error: RunError, kind: OutcomeKind) -> str:
    columns = ""
    # A job that will be retried has not stopped and shows no error; what went wrong is in its attempt_errors.
    if kind is not OutcomeKind.RETRY:
        columns += f',"error_msg":{json.dumps(error.message)}'
        if error.data_json is not None:
            columns += f',"error_data":{error.data_json}'
    if kind is not OutcomeKind.DISCARDED:
        attempt = {"error_msg": error.message, "error_type": error.type, "traceback": error.traceback}
        columns += f',"attempt":{json.dumps(attempt)}'
    return columns
