"""Whatever a text holds, it is a value: no statement is made of it. Nor is anything run that others put in the way."""

import threading
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import jobqueue_pg
from jobqueue import Discard, Job, JobBundle, JobContext, JobDesc, RawJSON, Registry, State, WorkerPool, WorkerSettings
from tests.fixtures.stores import assert_counts_true, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

PATIENCE = timedelta(seconds=20)
HOSTILE = [
    "'); drop table worker.job cascade; --",
    '"; drop schema worker cascade; --',
    "'::jsonb); delete from worker.job; select ('",
    "%s %(id)s %(now)s %% %",
    "{schema} {0} {}",
    "$1 $2 $$ $body$",
    "\\'; \\\\ \\x00",
    "/- -- -/ ; \r\n\t",
    "e'\u202e\u2028' U&'\\0041' ",
]


@pytest.fixture(params=HOSTILE)
def hostile(request):
    return request.param


def outcome_of(job):
    return job.state, job.type, job.origin, job.payload, job.result, job.error_msg


def test_a_hostile_job(service, registry, db, hostile):
    """It is added in every way, run, and read back as it was; so are its result, its error and its progress."""

    @registry.handler(hostile)
    def work(context: JobContext, payload: dict[str, str]) -> object:
        context.set_progress(0.5, hostile)
        if payload["then"] == "fail":
            raise ValueError(hostile)
        return Discard(hostile) if payload["then"] == "discard" else {hostile: hostile}

    payloads = [{"then": then, hostile: hostile} for then in ("finish", "fail", "discard")]
    jobs = [service.enqueue(hostile, payloads[0], origin=hostile, connection=db)]
    jobs.append(Job.new(hostile, payloads[1], origin=hostile))
    service.add_job(jobs[1])
    jobs.append(Job.new(hostile, payloads[2], origin=hostile))
    service.add_jobs([jobs[2]])
    with WorkerPool(service, registry, threads=2):
        ended = [wait_for_end(service, job) for job in jobs]
    assert [outcome_of(job) for job in ended] == [
        (State.SUCCEEDED, hostile, hostile, payloads[0], {hostile: hostile}, None),
        (State.FAILED, hostile, hostile, payloads[1], None, hostile),
        (State.CANCELLED, hostile, hostile, payloads[2], None, hostile),
    ]
    assert [job.progress for job in ended] == [{"fraction": 0.5, "message": hostile}] * 3
    assert {job.id for job in service.list_jobs(type=hostile, origin=hostile)} == {job.id for job in jobs}
    assert service.get_status().num_jobs == 3


def test_a_hostile_bundle(service, registry, hostile):
    """Its type, its origin, its members and the job that completes it are as they were said to be."""
    registry.register_func_for_job_type(hostile, lambda payload: payload)
    on_stopped = JobDesc(RawJSON('{"last": true}'), type=hostile, origin=hostile)
    bundle = JobBundle.new(hostile, [JobDesc(hostile, type=hostile)], origin=hostile, on_stopped=on_stopped)
    heard = []
    service.add_job_bundle_stopped_listener(heard.append)
    service.add_bundle(bundle)
    with WorkerPool(service, registry, threads=1):
        found = service.wait_for_bundle(bundle.id, PATIENCE)
        last = wait_until(lambda: [job for job in service.list_jobs(type=hostile) if job.completes_bundle_id])
        wait_for_end(service, last[0])
        wait_until(lambda: heard)
    assert (found.type, found.origin, found.jobs[0].payload) == (hostile, hostile, hostile)
    assert last[0].payload == {"last": True}
    assert (heard[0].type, heard[0].origin) == (hostile, hostile)


def test_managing_by_hostile_texts(service, db, hostile):
    """What is deleted, claimed or listed by a text is what has that text, and nothing else."""
    bystander = service.enqueue("bystander", 1, origin="elsewhere")
    service.add_bundle(JobBundle.new("bystander", [JobDesc(1, type="bystander")], origin="elsewhere"))
    for call in (
        service.delete_jobs_of_type,
        service.delete_jobs_from_origin,
        service.delete_job_bundles_of_type,
        service.delete_job_bundles_from_origin,
    ):
        call(hostile)
    assert service.claim([hostile, f"{hostile[:90]}:*"]) == []
    assert service.list_jobs(type=hostile) == service.list_jobs(origin=hostile) == []
    job = service.enqueue(hostile, 1)
    name = threading.current_thread().name
    threading.current_thread().name = hostile  # which a claim tells of, for people
    try:
        [claim] = service.claim([hostile])
    finally:
        threading.current_thread().name = name
    claim.fail(ValueError(hostile))
    assert (service.get_job(job.id).error_msg, claim.job.id) == (hostile, job.id)
    service.delete_jobs_of_type(hostile)
    assert service.get_status().num_jobs == 2
    assert service.get_job(bystander.id).state is State.AVAILABLE
    assert_counts_true(db)


@pytest.mark.parametrize("schema", ['"; drop schema a; --', "%s {schema} %(id)s", "'); select 1; --", "$1 \\' \u202e"])
def test_a_hostile_schema(database, registry, schema):
    """The name of a schema is a name, in every statement and for every channel."""
    jobqueue_pg.migrate(database, schema=schema)
    registry.register_func_for_job_type("t", lambda n: n)
    settings = WorkerSettings(poll_interval=timedelta(seconds=30))
    with closing(jobqueue_pg.connect(database, schema=schema, settings=settings)) as service:
        bundle = JobBundle.new("b", [JobDesc(n, type="t") for n in range(3)], origin="o")
        with WorkerPool(service, registry, threads=2):
            wait_until(lambda: service.health()["parts"]["listener"]["state"] == "up")
            service.add_bundle(bundle)
            assert service.wait_for_bundle(bundle.id, PATIENCE).num_jobs_stopped == 3
        service.reset_job(bundle.jobs[0].id)
        service.cancel_job(bundle.jobs[0].id)
        service.delete_all_jobs_and_bundles()
        assert service.get_status().is_zero


# --- what others have put in the way

# Each is called like what our statements call, and fits better, or would be found first if the system's were not.
TRAPS = """
create schema trap;
create function trap.spring() returns text language plpgsql as $$ begin raise exception 'trapped'; end $$;
create function trap.json_build_object(text, uuid, text, text, text, text) returns json
    language sql as 'select trap.spring()::json';
create function trap.json_build_object(text, uuid, text, uuid) returns json
    language sql as 'select trap.spring()::json';
create function trap.json_build_object(text, uuid, text, text, text, text, text, boolean) returns json
    language sql as 'select trap.spring()::json';
create function trap.jsonb_build_object(text, timestamptz, text, integer) returns jsonb
    language sql as 'select trap.spring()::jsonb';
create function trap.unnest(text[]) returns setof text language sql as 'select trap.spring()';
create function trap.make_interval(secs float8) returns interval language sql as 'select trap.spring()::interval';
create function trap.format(text, integer) returns text language sql as 'select trap.spring()';
create function trap.now() returns timestamptz language sql as 'select trap.spring()::timestamptz';
create function trap.clock_timestamp() returns timestamptz language sql as 'select trap.spring()::timestamptz';
create function trap.pg_notify(text, text) returns void language plpgsql as $$ begin raise exception 'trapped'; end $$;
create function trap.equal(uuid, uuid) returns boolean language sql as 'select trap.spring()::boolean';
create operator trap.= (leftarg = uuid, rightarg = uuid, function = trap.equal);
create table trap.job (like worker.job);
create table trap.job_bundle (like worker.job_bundle);
create table trap.migration (like worker.migration);
"""


@pytest.fixture
def trapped(migrated):
    """Conninfo of a database in which everybody's sessions look into the schema of the traps before all others."""
    with closing(psycopg.connect(migrated, autocommit=True)) as connection:
        connection.execute(TRAPS.encode())
        name = sql.Identifier(str(conninfo_to_dict(migrated)["dbname"]))
        connection.execute(sql.SQL("alter database {} set search_path = trap, public").format(name))
    return migrated


def test_traps_are_not_run(trapped):
    """Neither threads nor an application's calls run what others have named like functions of the system."""
    registry = Registry()

    @registry.handler("t", max_retry_count=1)
    def work(context: JobContext, number: int) -> int:
        if not context.job.current_retry_count:
            raise ValueError("again")
        return number

    registry.register_func_for_job_type("after", lambda n: n)
    with closing(jobqueue_pg.connect(trapped)) as service, closing(psycopg.connect(trapped)) as caller:
        assert fetch_all(caller, "show search_path") == ["trap, public"]
        descs = [JobDesc(n, type="t", max_retry_count=1) for n in range(3)]
        bundle = JobBundle.new("b", descs, origin="o", on_stopped=JobDesc(1, type="after"))
        service.add_bundle(bundle, connection=caller)
        service.enqueue("t", 1, delay=timedelta(hours=1), connection=caller)
        service.add_jobs([Job.new("u", 1, origin="o")], connection=caller)
        caller.commit()
        assert fetch_all(caller, "select count(*) from job") == [0]
        with WorkerPool(service, registry, threads=2):
            assert service.wait_for_bundle(bundle.id, PATIENCE).num_jobs_stopped == 3
            [last] = service.list_jobs(type="after")
            wait_for_end(service, last, 20)
        [claim] = service.claim(["u"])
        service.cancel_job(claim.job.id)
        service.reset_jobs([claim.job.id, last.id])
        service.reschedule_job(last.id, last.created_at)
        assert claim.is_lost or service.get_job(claim.job.id).state is State.AVAILABLE
        service.delete_all_jobs_and_bundles()
