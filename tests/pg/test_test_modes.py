"""The modes for tests of applications, on a service that has a database, and within handlers of its workers."""

import threading
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import jobqueue
import jobqueue_pg
from jobqueue import Job, JobBundle, JobContext, JobDesc
from jobqueue.testing import ignore_job_bundles, ignore_jobs, synchronous_jobs
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of, wait_for_end

PATIENCE = 10
NAME = "test modes"
TYPES = 'select "type" from worker.job order by id'


@pytest.fixture
def service(workers):
    """The current service."""
    with jobqueue.use_service(workers.service(application_name=NAME)) as service:
        yield service


@pytest.mark.parametrize("mode", ["run", "ignore"])
def test_no_statement_reaches_the_database(workers, service, registry, db, mode):
    """What is run at once or ignored costs no connection, and is in nobody's transaction."""
    registry.register_func_for_job_type("t", lambda number: number)
    modes = [synchronous_jobs(registry)] if mode == "run" else [ignore_jobs(), ignore_job_bundles()]
    with ExitStack() as stack:
        for each in modes:
            stack.enter_context(each)
        jobqueue.enqueue("t", 1)
        jobqueue.enqueue("t", 2, connection=db)
        jobqueue.add_jobs([Job.new("t", 3)], connection=db)
        jobqueue.add_bundle(JobBundle.new("b", [JobDesc(4, type="t")], on_stopped=JobDesc(5, type="t")))
    wait_until(lambda: connections_of(db, NAME) == 0)  # those of the test before, too
    assert fetch_all(db, TYPES) == []


def test_what_is_let_through_is_stored_in_the_caller_s_transaction(service, db):
    """Jobs that are not ignored are stored as ever, together, and only if the transaction commits."""
    jobs = [Job.new(type, 1) for type in ("kept", "ignored", "kept")]
    with ignore_jobs("ignored") as ignored, db.transaction(force_rollback=True):
        assert jobqueue.add_jobs(jobs, connection=db) == jobs
    assert fetch_all(db, TYPES) == []
    with ignore_jobs("ignored"), db.transaction():
        jobqueue.add_jobs([Job.new(type, 1) for type in ("kept", "ignored", "kept")], connection=db)
    assert fetch_all(db, TYPES) == ["kept", "kept"]
    assert ignored == [jobs[1]]


def test_a_refusal_of_the_database_ends_no_mode(service, db):
    """An error of what is let through is the caller's, and the mode goes on."""
    job = service.enqueue("kept", 1)
    with ignore_jobs("ignored") as ignored:
        with pytest.raises(jobqueue.DuplicateJobError):
            jobqueue.add_job(job)
        jobqueue.enqueue("ignored", 1)
    assert len(ignored) == 1
    assert fetch_all(db, TYPES) == ["kept"]


def test_modes_within_a_handler(workers, service, registry):
    """A handler may run or ignore what its code enqueues; its own job is saved, and the next run is not affected."""

    @registry.handler("outer")
    def outer(ctx: JobContext, number: int) -> list[object]:
        with synchronous_jobs(registry), ignore_jobs("ignored") as ignored:
            result = jobqueue.enqueue("inner", number).result
            jobqueue.enqueue("ignored", number)
            assert jobqueue.current_job() is ctx.job
            ctx.check()
        jobqueue.enqueue("inner", number + 1)
        return [result, len(ignored)]

    @registry.handler("inner")
    def inner(ctx: JobContext, number: int) -> list[object]:
        assert jobqueue.current_service() is service
        return [number, ctx.job.claim_id is None]

    workers.start_on(service, registry, 1)
    assert wait_for_end(service, service.enqueue("outer", 1)).result == [[1, True], 1]
    [stored] = service.list_jobs(type="inner")
    assert wait_for_end(service, stored).result == [2, False]
    assert service.list_jobs(type="ignored") == []


def test_listeners_hear_of_bundles_that_run_at_once(service, registry):
    """Listeners of a service with a database hear of such a bundle in the caller's thread, though it is not stored."""
    heard: list[object] = []
    service.add_job_bundle_stopped_listener(
        lambda bundle: heard.append((bundle.id, [job.result for job in bundle.jobs], threading.current_thread()))
    )
    registry.register_func_for_job_type("t", lambda number: number)
    with synchronous_jobs(registry):
        bundle = jobqueue.add_bundle(JobBundle.new("b", [JobDesc(1, type="t"), JobDesc(2, type="t")]))
    assert heard == [(bundle.id, [1, 2], threading.current_thread())]


def test_a_database_that_is_away(migrated, pg_dsn, registry):
    """A test that runs its jobs at once needs the database no more once the service is open."""
    registry.register_func_for_job_type("t", lambda number: number)
    with closing(jobqueue_pg.connect(make_conninfo(migrated, application_name=NAME))) as service:
        with psycopg.connect(pg_dsn, autocommit=True) as admin:
            name = psycopg.conninfo.conninfo_to_dict(migrated)["dbname"]
            admin.execute(psycopg.sql.SQL("drop database {} with (force)").format(psycopg.sql.Identifier(name)))
        with jobqueue.use_service(service), synchronous_jobs(registry):
            assert jobqueue.enqueue("t", 1).result == 1
