"""The roles that migrations/grant_roles.sql makes: each can do what it is for, through our API, and nothing else."""

import logging
from contextlib import closing
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors, sql

import jobqueue_pg
from jobqueue import (
    BackendError,
    CleanResult,
    DuplicateJobError,
    Job,
    JobBundle,
    JobBundleNotFoundError,
    JobContext,
    JobDesc,
    Retention,
    State,
    WorkerPool,
)
from tests.fixtures.listeners import Everything
from tests.fixtures.listening import Ear
from tests.fixtures.roles import MAY_NOT, conninfo_as, grant_roles
from tests.fixtures.stores import assert_counts_true, fetch_all, insert_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import FAST_DEATH, wait_for_end

PATIENCE = timedelta(seconds=20)
ROLES = ("enqueuer", "worker", "observer", "manager")


def assert_changes_nothing(service, job_id):
    """Assert that a service is refused whatever changes jobs that are there."""
    for call in (
        lambda: service.cancel_job(job_id),
        lambda: service.reset_job(job_id),
        lambda: service.replay_job(job_id),
        lambda: service.delete_job(job_id),
        lambda: service.delete_jobs_of_type("t"),
        lambda: service.delete_jobs_from_origin("o"),
        service.delete_finished_jobs,
        lambda: service.delete_job_bundles_of_type("b"),
        service.delete_all_jobs_and_bundles,
        lambda: service.claim(["t"]),
    ):
        with pytest.raises(BackendError, match=MAY_NOT):
            call()


# --- enqueuer


def test_an_enqueuer_adds_jobs_and_bundles(service_as, migrated, prefix, connection):
    """It adds in every way there is, in transactions of its own and of a caller with the same rights."""
    with service_as("enqueuer") as service:
        job = service.enqueue("t", {"n": 1}, delay=timedelta(hours=1))
        service.add_jobs([Job.new("t", n) for n in range(3)])
        on_stopped = JobDesc("all done", type="after")
        service.add_bundle(JobBundle.new("b", [JobDesc(n, type="t") for n in range(3)], on_stopped=on_stopped))
        with psycopg.connect(conninfo_as(migrated, prefix, "enqueuer")) as caller:
            service.enqueue("t", 2, connection=caller)
        service.add_jobs([Job.new("t", n) for n in range(100)])
        service.add_jobs([Job.new("t", n) for n in range(100)], notify=False)
        service.enqueue("t", 3, notify=False)
        with pytest.raises(DuplicateJobError) as caught:
            service.add_job(Job.new("t", 1, id=job.id))
        assert caught.value.existing_id == job.id
    assert fetch_all(connection, "select count(*) from worker.job") == [209]
    assert_counts_true(connection)


def test_many_are_added_under_row_level_security(service_as, migrated, prefix, connection):
    """Where it is in force, which COPY cannot do with, many are added all the same, and policies are heeded."""
    connection.execute("alter table worker.job enable row level security")
    connection.execute("create policy not_others on worker.job for insert with check (type <> 'others')")
    hundred = [JobDesc(n, type="t") for n in range(100)]
    with service_as("enqueuer") as service, psycopg.connect(conninfo_as(migrated, prefix, "enqueuer")) as caller:
        for connection_given in (None, caller):
            service.add_jobs([Job.new("t", n) for n in range(100)], connection=connection_given)
            service.add_jobs([Job.new("t", n) for n in range(100)], notify=False, connection=connection_given)
            service.add_bundle(JobBundle.new("b", hundred), connection=connection_given)
        caller.commit()
        with pytest.raises(BackendError, match="row-level security policy"):
            service.add_jobs([Job.new("others", n) for n in range(100)])
    assert fetch_all(connection, "select count(*) from worker.job") == [600]
    assert_counts_true(connection)


def test_row_level_security_that_comes_into_force(service_as, migrated, prefix, connection):
    """It is asked for each time: a caller may take another role, and tables may be altered, while a service runs."""
    hundred = [JobDesc(n, type="t") for n in range(100)]
    with service_as("enqueuer") as service, psycopg.connect(migrated) as caller:
        for role in ("reset role", f"set role {prefix}_enqueuer"):
            caller.execute(role)
            service.add_bundle(JobBundle.new("b", hundred))
            service.add_bundle(JobBundle.new("b", hundred), connection=caller)
            caller.commit()
            connection.execute("alter table worker.job enable row level security")
            connection.execute("drop policy if exists anything on worker.job")
            connection.execute("create policy anything on worker.job for insert with check (true)")
    assert fetch_all(connection, "select count(*) from worker.job") == [400]


def test_an_enqueuer_is_told_of_at_once(service_as, migrated):
    """Who listens hears of its jobs: it needs no right for that, and no function runs with more rights than its own."""
    with Ear(migrated) as ear, service_as("enqueuer") as service:
        job = service.enqueue("t", 1)
        assert [told["id"] for channel, told in ear.heard() if channel == "job_available"] == [str(job.id)]


def test_an_enqueuer_neither_reads_nor_changes_jobs(service_as, connection, refused):
    """Not even its own payloads can it read, nor take a job back."""
    with service_as("enqueuer") as service:
        job = service.enqueue("t", "a secret")
        for read in (
            lambda: service.get_job(job.id),
            lambda: service.get_job_bundle(job.id),
            service.list_jobs,
            service.get_status,
            service.get_all_jobs_to_do,
            lambda: service.wait_for_job(job.id, PATIENCE),
        ):
            with pytest.raises(BackendError, match=MAY_NOT):
                read()
        assert_changes_nothing(service, job.id)
    for statement in (
        "select payload from worker.job",
        "select result from worker.job",
        "select on_stopped from worker.job_bundle",
        "update worker.job set priority = 1",
        "delete from worker.job",
        "truncate worker.job",
        "insert into worker.migration values (2, 'x', 'x')",
        "create table worker.mine (id int)",
    ):
        refused("enqueuer", statement)
    assert fetch_all(connection, "select payload from worker.job") == ["a secret"]


def test_listeners_of_an_enqueuer_hear_of_ids_only(service_as, migrated, caplog):
    """What has to be read for a listener is not told; the log says so once, without a traceback, and health() does."""
    listener, errors_told = Everything(), []
    with closing(jobqueue_pg.connect(migrated)) as owner, service_as("enqueuer") as service:
        service.set_on_error(errors_told.append)
        service.add_job_stopped_listener(lambda *_: pytest.fail("the job cannot be read"))
        service.add_listener(listener)
        jobs = [service.enqueue("t", number) for number in range(3)]
        for number, job in enumerate(jobs, start=1):
            owner.cancel_job(job.id)
            wait_until(lambda number=number: len(listener.calls) == number)
        assert [call[1] for call in listener.calls] == [job.id for job in jobs]
        assert service.health()["parts"]["events"]["state"] == "down"
    [line] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "the database user may not do this: permission denied for table job" in line.getMessage()
    assert line.exc_info is None
    assert [type(error) for error in errors_told] == [BackendError]


# --- worker


def test_a_worker_runs_jobs(service_as, registry, connection):
    """It claims, beats, saves, retries, shows progress, adds what follows, completes bundles, and deletes some."""

    @registry.handler("t", max_retry_count=1)
    def work(context: JobContext, number: int) -> int:
        context.set_progress(0.5, "half")
        if context.job.current_retry_count < 1:
            raise ValueError("once more")
        context.service.enqueue("follows", number, connection=None)
        return number

    registry.register_func_for_job_type("follows", lambda n: n)
    registry.register_func_for_job_type("after", lambda n: n)
    with service_as("worker", **FAST_DEATH) as service:
        silent = insert_job(connection, type="follows", started_at="2020-01-01", worker_alive_at="2020-01-01")
        descs = [JobDesc(n, type="t", max_retry_count=1) for n in range(3)]
        bundle = JobBundle.new("b", descs, on_stopped=JobDesc(1, type="after"), delete_when_succeeded=True)
        with WorkerPool(service, registry, threads=3):
            service.add_bundle(bundle)
            assert service.wait_for_bundle(bundle.id, PATIENCE).num_jobs_stopped == 3
            for job in service.list_jobs(type="after") + service.list_jobs(type="follows"):
                assert wait_for_end(service, job, 20).succeeded
            assert wait_for_end(service, silent, 20).rescue_count == 1
        with closing(service.store.for_workers()) as store:
            assert store.delete_succeeded_bundles(timedelta(0)) <= 1
        with pytest.raises(JobBundleNotFoundError):
            service.get_job_bundle(bundle.id)
    assert fetch_all(connection, "select count(*) from worker.job where type = 'follows'") == [4]


@pytest.mark.parametrize("mode", ["delete", "archive"])
def test_a_worker_cleans(service_as, connection, mode):
    """It removes what was kept for long enough, bundles too, or moves it to the archive, also for a second time."""
    ended = {"created_at": "2020-01-01", "started_at": "2020-01-01", "stopped_at": "2020-01-01"}
    with service_as("worker") as service:
        job_id = insert_job(connection, **ended)
        bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")]))
        connection.execute("update worker.job set started_at = now(), stopped_at = now() where bundle_id is not null")
        connection.execute("update worker.job_bundle set num_jobs_stopped = 1")
        retention = Retention(succeeded=timedelta(0), mode=mode)
        assert service.clean(retention) == CleanResult(jobs=2, bundles=1)
        insert_job(connection, id=job_id, **ended)
        assert service.clean(retention) == CleanResult(jobs=1)
        archived = {job.id for job in service.list_jobs(archived=True)}
    assert archived == ({job_id, bundle.jobs[0].id} if mode == "archive" else set())


def test_a_worker_claims_by_hand(service_as):
    """A claim by hand needs no more rights than one of a thread."""
    with service_as("worker") as service:
        job = service.enqueue("t", 1)
        [claim] = service.claim(["t"])
        claim.finish("done")
        assert service.get_job(job.id).result == "done"


def test_a_worker_changes_no_job_into_another(service_as, refused, connection):
    """What a job is stays as it was added."""
    with service_as("worker") as service:
        service.enqueue("t", 1)
    for statement in (
        "update worker.job set payload = '2'",
        "update worker.job set type = 'other'",
        "update worker.job set origin = 'other'",
        "update worker.job set bundle_id = null",
        "update worker.job_bundle set on_stopped = null",
        "truncate worker.job",
        "delete from worker.job_archive",
        "truncate worker.job_archive",
        "delete from worker.migration",
        "alter table worker.job disable trigger all",
        "create table worker.mine (id int)",
    ):
        refused("worker", statement)
    assert fetch_all(connection, "select type, payload from worker.job") == [("t", 1)]


# --- observer


def test_an_observer_sees_everything(service_as, migrated, connection):
    """It reads jobs, bundles and counts, hears what happens, and waits."""
    bundle = JobBundle.new("b", [JobDesc(1, type="t")], origin="o")
    with closing(jobqueue_pg.connect(migrated)) as owner, service_as("observer") as service:
        owner.add_bundle(bundle)
        [job] = service.list_jobs(state=State.AVAILABLE)
        assert service.get_job(job.id).payload == 1
        assert service.get_status().num_jobs == 1
        [claim] = owner.claim(["t"])
        claim.finish(2)
        assert service.wait_for_job(job.id, PATIENCE).result == 2
        assert service.get_job_bundle(bundle.id).num_jobs_stopped == 1


def test_an_observer_changes_nothing(service_as, migrated, refused, connection):
    """It can neither add nor change nor delete."""
    with closing(jobqueue_pg.connect(migrated)) as owner:
        job = owner.enqueue("t", 1)
    with service_as("observer") as service:
        assert_changes_nothing(service, job.id)
        for add in (
            lambda: service.enqueue("t", 1),
            lambda: service.add_jobs([Job.new("t", 1)]),
            lambda: service.add_bundle(JobBundle.new("b", [JobDesc(1, type="t")])),
        ):
            with pytest.raises(BackendError, match=MAY_NOT):
                add()
    for statement in ("update worker.job set priority = 1", "truncate worker.job", "select from worker.job for share"):
        refused("observer", statement)
    assert fetch_all(connection, "select priority from worker.job") == [0]


# --- manager


def test_a_manager_does_all_that_a_service_does(service_as, refused, connection):
    """It adds, runs, resets, cancels, replays, reschedules and deletes; the tables are not its own."""
    with service_as("manager") as service:
        first, second = service.enqueue("t", 1), service.enqueue("u", 2, delay=timedelta(hours=1))
        service.add_bundle(JobBundle.new("b", [JobDesc(1, type="v")]))
        [claim] = service.claim(["t"])
        claim.fail("no")
        assert service.replay_job(first.id)
        assert service.reschedule_job(second.id, service.get_job(first.id).created_at)
        assert service.cancel_job(second.id)
        service.reset_job(second.id)
        service.delete_job(first.id)
        assert service.get_status().num_jobs == 2
        service.delete_job_bundles_of_type("b")
        service.delete_all_jobs_and_bundles()
        assert service.get_status().is_zero
    refused("manager", "alter table worker.job add column mine int")
    refused("manager", "create table worker.mine (id int)")


# --- the script


def rights(connection, prefix):
    return fetch_all(
        connection,
        """
        select grantee, table_name, column_name, privilege_type from information_schema.column_privileges
        where table_schema = 'worker' and starts_with(grantee, %s)
        union
        select grantee, table_name, null, privilege_type from information_schema.table_privileges
        where table_schema = 'worker' and starts_with(grantee, %s)
        order by 1, 2, 3, 4
        """,
        prefix,
        prefix,
    )


def test_running_the_script_again_leaves_each_role_with_its_own_rights(migrated, prefix, connection, refused):
    """Rights that were given besides are taken away, those that are missing are given."""
    before = rights(connection, prefix)
    assert {role for role, *_ in before} == {f"{prefix}_{role}" for role in ROLES}
    connection.execute(sql.SQL("grant all on worker.job to {}").format(sql.Identifier(f"{prefix}_observer")))
    connection.execute(sql.SQL("grant create on schema worker to {}").format(sql.Identifier(f"{prefix}_observer")))
    connection.execute(sql.SQL("revoke select on worker.job from {}").format(sql.Identifier(f"{prefix}_worker")))
    assert rights(connection, prefix) != before
    grant_roles(migrated, prefix)
    assert rights(connection, prefix) == before
    refused("observer", "create table worker.mine (id int)")
    for role in ROLES:
        allowed = "has_schema_privilege(%s, 'worker', 'usage'), has_schema_privilege(%s, 'worker', 'create')"
        assert fetch_all(connection, f"select {allowed}", *[f"{prefix}_{role}"] * 2) == [(True, False)]


@pytest.mark.parametrize("search_path", ["worker", "no_such_schema"])
def test_the_script_refuses_a_schema_without_a_queue(database, search_path):
    """Where the search_path leads to no queue, nothing is made, and the message says what to set."""
    prefix = f"jobqueue_test_{uuid4().hex[:12]}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create schema worker")
        with pytest.raises(errors.RaiseException, match=rf"no queue on the search_path \({search_path}\)"):
            grant_roles(database, prefix, search_path=search_path)
        assert fetch_all(connection, "select rolname from pg_roles where starts_with(rolname, %s)", prefix) == []


def test_roles_cannot_log_in(connection, prefix):
    """They are for granting to users, and have no other power."""
    found = fetch_all(
        connection,
        "select rolcanlogin, rolsuper, rolcreaterole, rolcreatedb from pg_roles where starts_with(rolname, %s)",
        prefix,
    )
    assert found == [(False, False, False, False)] * len(ROLES)


# --- unique keys


def test_an_enqueuer_leaves_duplicates_out(service_as, migrated, prefix, connection):
    """It can want keys, take one whose time is over, and is told who holds another, which it may not read."""
    with service_as("enqueuer") as service, psycopg.connect(conninfo_as(migrated, prefix, "enqueuer")) as caller:
        job = service.enqueue("t", 1, unique_key="k", connection=caller)
        for how in ({}, {"on_conflict": "raise"}):
            with pytest.raises(DuplicateJobError, match="holds the unique key 'k'") as caught:
                service.enqueue("t", 2, unique_key="k", connection=caller, **how)
            assert caught.value.existing_id == job.id
        with pytest.raises(BackendError, match=MAY_NOT):
            service.enqueue("t", 2, unique_key="k", on_conflict="replace_payload", connection=caller)
        caller.commit()
        for _ in range(2):
            service.enqueue("t", 1, unique_key="brief", unique_for=timedelta(microseconds=1))
    assert fetch_all(connection, "select count(*), count(unique_key) from worker.job") == [(3, 2)]


def test_a_worker_ends_the_scopes_of_keys(service_as, migrated):
    """It adds jobs with keys, is given duplicates, and frees keys by what it does to jobs; payloads are not its own."""
    with service_as("worker") as service:
        job = service.enqueue("t", 1, unique_key="k")
        assert service.enqueue("t", 2, unique_key="k") == job
        with pytest.raises(BackendError, match=MAY_NOT):
            service.enqueue("t", 2, unique_key="k", on_conflict="replace_payload")
        (claim,) = service.claim(["t"])
        with claim:
            claim.finish()
        assert not service.enqueue("t", 3, unique_key="k").is_duplicate
