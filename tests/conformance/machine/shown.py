"""What a backend shows of jobs and bundles, in the words of the model."""

from datetime import datetime
from typing import Any

import attrs

from jobqueue import Job, JobBundle
from tests.conformance.machine.rows import GIVEN_UP


def job_shown(job: Job) -> dict[str, Any]:
    """Return all that a job shows, its JSON as values: how that is spelt is the backend's business."""
    columns = attrs.asdict(job, recurse=False)
    for name in ("payload", "result", "error_data", "attempt_errors", "progress", "retry_policy"):
        del columns[f"{name}_json"]
        columns[name] = getattr(job, name)
    match job.error_data:
        case {"type": "TooManyRescues", "rescue_count": rescue_count, **evidence}:
            assert f"{rescue_count} times" in str(job.error_msg)
            moments = {name: datetime.fromisoformat(str(evidence[name])) for name in ("started_at", "worker_alive_at")}
            columns["error_msg"] = GIVEN_UP
            columns["error_data"] = {**job.error_data, **moments}
    return columns


def bundle_shown(bundle: JobBundle) -> dict[str, Any]:
    """Return all that a bundle shows, but for its members and the job of its completion."""
    return attrs.asdict(bundle, recurse=False, filter=lambda field, _: field.name not in {"jobs", "on_stopped"})
