"""What holds for those who work on while the schema gets newer."""

from contextlib import closing

import psycopg
from psycopg import sql

import jobqueue_pg
from jobqueue_pg.schema import migrate
from tests.fixtures.roles import as_role


def test_who_could_claim_goes_on(database: str, role: str) -> None:
    """A role with the rights that a worker needed up to 0004 claims and ends jobs after the later migrations, too."""
    migrate(database, to=4)
    worker = as_role(
        database,
        role,
        "grant usage on schema worker to {role}",
        "grant select, insert on worker.job, worker.job_bundle to {role}",
        "grant update (start_at, started_at, worker_alive_at, stopped_at, claim_id, lease, claimed_by,"
        " current_retry_count, run_count, rescue_count, error_msg, error_data, attempt_errors, result, progress,"
        " cancelled_at, updated_at) on worker.job to {role}",
        "grant update (num_jobs, num_jobs_stopped, updated_at), delete on worker.job_bundle to {role}",
        "grant select on worker.migration to {role}",
    )
    migrate(database)
    with closing(jobqueue_pg.connect(database)) as service, closing(jobqueue_pg.connect(worker)) as others:
        job = service.enqueue("t", 1, unique_key="k")
        (claim,) = others.claim("t")
        claim.finish()
        assert service.get_job(job.id).succeeded
        assert not service.enqueue("t", 1, unique_key="k").is_duplicate
    with closing(psycopg.connect(database, autocommit=True)) as admin:
        admin.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
