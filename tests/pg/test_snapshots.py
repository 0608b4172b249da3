"""What is read is a snapshot: it has the columns of its row as attributes, and cannot be changed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from psycopg.rows import dict_row

from jobqueue import Job, JobBundle, JobDesc
from jobqueue.queue_service import QueueService
from tests.fixtures.stores import Connection, row_of

# As go-jobqueue has them, too.
JOB_COLUMNS = (
    *("id", "bundle_id", "type", "payload", "priority", "origin", "max_retry_count", "current_retry_count"),
    *("start_at", "started_at", "worker_alive_at", "stopped_at", "error_msg", "error_data", "result"),
    *("updated_at", "created_at"),
)
BUNDLE_COLUMNS = ("id", "type", "origin", "num_jobs", "num_jobs_stopped", "updated_at", "created_at")


def finish(service: QueueService) -> None:
    (claim,) = service.claim("t")
    claim.finish({"pages": 12})


def fail(service: QueueService) -> None:
    (claim,) = service.claim("t")
    claim.fail(ValueError("no luck"))


@pytest.mark.parametrize("run", [finish, fail, lambda service: service.claim("t")], ids=["finish", "fail", "claim"])
def test_a_job_has_its_columns(service: QueueService, db: Connection, run: Callable[[QueueService], object]) -> None:
    """Each column is an attribute of the same name and value, wherever the job was read."""
    desc = JobDesc({"a": [1]}, type="t", priority=3, origin="x")
    (job,) = service.add_bundle(JobBundle.new("b", [desc])).jobs
    claims = run(service)  # held, so that the claim goes on
    row = row_of(db, job.id)
    columns = {name: row[name] for name in JOB_COLUMNS}
    for read in (service.get_job(job.id), *service.list_jobs(type="t"), *service.get_job_bundle(row["bundle_id"]).jobs):
        assert {name: getattr(read, name) for name in JOB_COLUMNS} == columns
    del claims


def test_a_bundle_has_its_columns(service: QueueService, db: Connection) -> None:
    """Each column is an attribute of the same name and value, and the members are one more."""
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t"), JobDesc(2, type="u")]))
    finish(service)
    row = db.cursor(row_factory=dict_row).execute("select * from worker.job_bundle").fetchone()
    assert row is not None
    read = service.get_job_bundle(bundle.id)
    assert {name: getattr(read, name) for name in BUNDLE_COLUMNS} == {name: row[name] for name in BUNDLE_COLUMNS}
    assert (read.num_jobs_stopped, read.jobs) == (1, bundle.jobs)


def test_snapshots_are_frozen(service: QueueService) -> None:
    """No attribute of a job or a bundle can be set or deleted, whether it was made or read."""
    bundle = JobBundle.new("b", [JobDesc(1, type="t")])
    stored = service.add_bundle(bundle)
    snapshots: list[Any] = [bundle, stored, service.get_job_bundle(bundle.id), Job.new("t", 1)]
    for snapshot in (*snapshots, service.get_job(stored.jobs[0].id)):
        for field in attrs.fields(type(snapshot)):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(snapshot, field.name, timedelta(1))
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                delattr(snapshot, field.name)
