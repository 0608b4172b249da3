"""Statements that the server fails for a while, for each reason it has that may pass: no outcome is lost or refused."""

import logging
import random
import resource
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from jobqueue import Job, JobBundle, JobDesc, LockTimeoutError, State
from jobqueue_pg.pool import WORKER_CONNECTIONS
from tests.fixtures.shift import NUM_LONG, Shift
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import QUIET, Workers, wait_for_end

NAME = "faulty"
PATIENCE = 30
NOT_STOPPED = "select count(*) from worker.job where stopped_at is null"

# While the table fault has a row, no job's row can be changed. A sequence is not rolled back: it counts the attempts.
FAULTS = """
    create table public.fault (code text not null);
    create sequence public.faults;
    create function public.fail() returns trigger language plpgsql as $$
    declare found text;
    begin
        select code into found from public.fault;
        if found is not null then
            perform nextval('public.faults');
            raise exception 'a fault of class %', left(found, 2) using errcode = found;
        end if;
        return new;
    end $$;
    create trigger fail before update on worker.job for each row execute function public.fail();
"""


@pytest.fixture
def admin(migrated: str) -> Iterator[psycopg.Connection]:
    """A connection to the database of `migrated`, under another name than the workers."""
    with closing(psycopg.connect(migrated, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def owned(migrated: str) -> Iterator[Workers]:
    """Worker pools on that database."""
    made = Workers(migrated)
    yield made
    made.end()


# --- for each reason


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("08006", id="connection failure"),
        pytest.param("25006", id="read-only transaction"),
        pytest.param("26000", id="a prepared statement that is gone"),
        pytest.param("40001", id="serialization failure"),
        pytest.param("53100", id="disk full"),
        pytest.param("53300", id="too many connections"),
        pytest.param("55P03", id="lock timeout"),
        pytest.param("57014", id="statement timeout"),
        pytest.param("57P01", id="shutdown"),
        pytest.param("58030", id="error of input or output"),
    ],
)
def test_what_may_pass_refuses_no_outcome(owned, admin, registry, code):
    """Outcomes that meet such an error are tried again, not too often, until they are saved as they are."""
    admin.execute(FAULTS)
    shift = Shift(owned, registry, dead_for=timedelta(seconds=10), heartbeat_interval=timedelta(seconds=1))
    admin.execute("insert into public.fault values (%s)", [code])
    shift.may_end.set()
    wait_until(lambda: fetch_all(admin, "select last_value from public.faults")[0] > 5)
    assert fetch_all(admin, NOT_STOPPED) == [3]
    admin.execute("delete from public.fault")
    shift.check(owned.conninfo)


def test_what_a_trigger_does_not_support_is_refused(owned, admin, registry, caplog):
    """An outcome whose SQLSTATE the server has for stale plans, too, is saved as a failure, and holds nobody up."""
    admin.execute(
        "create function public.object() returns trigger language plpgsql as $$ begin "
        "if new.result = '0' then raise 'zero is not supported' using errcode = '0A000'; end if; return new; end $$"
    )
    admin.execute("create trigger object before update on worker.job for each row execute function public.object()")
    caplog.set_level(logging.INFO)
    registry.register_func_for_job_type("t", lambda n: n)
    service = owned.service()
    jobs = service.add_jobs([Job.new("t", number) for number in range(6)])
    owned.start_on(service, registry, 2)
    refused, *others = (wait_for_end(service, job) for job in jobs)
    assert [job.result for job in others] == [1, 2, 3, 4, 5]
    assert refused.state is State.FAILED
    assert "zero is not supported" in refused.error_msg
    assert service.health()["refused_outcomes"] == 1
    assert "does not answer" not in caplog.text


# --- for real


def test_a_plan_for_a_table_that_was_altered_is_given_up(owned, admin, registry, caplog):
    """Statements that were prepared before a column got another type are prepared anew; no outcome is refused."""
    shift = Shift(owned, registry, dead_for=timedelta(seconds=10), heartbeat_interval=timedelta(seconds=1))
    # A connection prepares what it runs for the second time: after so many trips at least one has.
    for _ in range(WORKER_CONNECTIONS + 1):
        shift.add_short_jobs()
        wait_until(lambda: fetch_all(admin, NOT_STOPPED) == [NUM_LONG], PATIENCE)
    admin.execute("alter table worker.job alter column error_msg type varchar")

    def meets_an_old_plan() -> bool:
        # Not every connection has prepared every statement by now.
        shift.add_short_jobs()
        return "cached plan must not change result type" in caplog.text

    wait_until(meets_an_old_plan)
    shift.may_end.set()
    shift.check(owned.conninfo)


def test_a_deadlock_is_not_the_jobs_fault(owned, admin, registry):
    """An outcome that the server fails to end a deadlock is saved as soon as the other transaction has ended."""
    registry.register_func_for_job_type("member", lambda n: n)
    service = owned.service(dead_for=timedelta(seconds=30))
    bundle = service.add_bundle(JobBundle.new("b", [JobDesc(1, type="member")]))
    [job] = bundle.jobs
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    with closing(psycopg.connect(owned.conninfo)) as other:
        # Whoever has waited for deadlock_timeout and finds a deadlock is its victim: not this one.
        other.execute("set deadlock_timeout = '60s'")
        other.execute("select from worker.job_bundle where id = %s for update", [bundle.id])
        owned.start_on(service, registry, 1)
        waiting = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        wait_until(lambda: fetch_all(admin, waiting))
        other.execute("select from worker.job where id = %s for update", [job.id])
        other.commit()
    ended = wait_for_end(service, job)
    assert (ended.result, ended.run_count, ended.rescue_count) == (1, 1, 0)
    # Who tries again at once can meet the other once more.
    wait_until(lambda: fetch_all(admin, deadlocks) >= [1], PATIENCE)


def set_for_database(admin: psycopg.Connection, name: str, value: str) -> None:
    database = sql.Identifier(admin.info.dbname)
    admin.execute(sql.SQL("alter database {} set {} = {}").format(database, sql.Identifier(name), sql.Literal(value)))


def test_timeouts_of_the_owner_are_for_applications(owned, admin, registry):
    """A short statement_timeout of the database ends calls of the application, and no trip, beat or save."""
    patient = owned.service(poll_only=True)
    job = patient.enqueue("t", 1)  # on a session that has no such timeout, and goes on to be used
    set_for_database(admin, "statement_timeout", "800ms")
    admin.execute("create function public.dawdle() returns trigger language plpgsql as $$"
                  " begin perform pg_sleep(1); return new; end $$")  # fmt: skip
    admin.execute("create trigger dawdle before update on worker.job for each row execute function public.dawdle()")
    registry.register_func_for_job_type("t", lambda n: n)
    service = owned.service()
    owned.start_on(service, registry, 2)
    ended = wait_for_end(patient, job)
    assert (ended.result, ended.run_count, ended.rescue_count) == (1, 1, 0)
    with pytest.raises(LockTimeoutError, match="took too long"):
        service.reset_job(job.id)


def test_sessions_that_may_not_be_idle(owned, admin, registry, caplog):
    """A database that ends idle sessions costs the pool new connections, and no job, call or word in the log."""
    if admin.info.server_version < 140000:
        pytest.skip("idle_session_timeout is new in version 14")
    caplog.set_level(logging.INFO)
    set_for_database(admin, "idle_session_timeout", "200ms")
    registry.register_func_for_job_type("t", lambda n: n)
    service = owned.service(poll_only=True, poll_interval=QUIET)
    pool = owned.start_on(service, registry, 2)
    pids = "select pid from pg_stat_activity where application_name = 'test' and datname = current_database()"
    idle = [pool._crew._store._database.pool._pool, service.store._database.pool._pool]
    for number in range(3):
        wait_until(lambda: not fetch_all(admin, pids))
        # The server forgets a session before it closes its socket.
        wait_until(lambda: not any(session.is_alive for sessions in idle for session in list(sessions)))
        job = service.enqueue("t", number)
        pool._crew._dispatcher.ring()
        assert wait_for_end(service, job).result == number
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_session_that_ends_as_it_is_asked(owned, admin):
    """What a session is asked at the moment when it ends because it was idle is asked again, in another one."""
    if admin.info.server_version < 140000:
        pytest.skip("idle_session_timeout is new in version 14")
    service = owned.service(poll_only=True)
    asked = []

    def ask(connection):
        asked.append(connection.info.backend_pid)
        if len(asked) == 1:
            # Not so soon that the server's farewell arrives together with the answer: nobody would read it then.
            connection.execute("set idle_session_timeout = '500ms'")
            there = f"select pid from pg_stat_activity where pid = {asked[0]}"
            wait_until(lambda: not admin.execute(there).fetchone())
        return fetch_all(connection, "select 1")

    assert service.store._database.perform(ask) == [1]
    assert len(set(asked)) == 2


def test_serializable_by_default(owned, admin, registry):
    """Where transactions are serializable unless they say otherwise, ours say otherwise, and fail each other never."""
    set_for_database(admin, "default_transaction_isolation", "serializable")
    registry.register_func_for_job_type("member", lambda n: n)
    service = owned.service()
    owned.start_on(service, registry, 4)
    bundles = [service.add_bundle(JobBundle.new("b", [JobDesc(n, type="member") for n in range(10)])) for _ in range(4)]
    for bundle in bundles:
        assert service.wait_for_bundle(bundle.id, PATIENCE).num_jobs_stopped == 10
    assert service.get_all_jobs_with_errors() == []
    assert fetch_all(admin, "select xact_rollback from pg_stat_database where datname = current_database()") == [0]


def test_a_server_without_a_free_connection_is_waited_for(migrated_server, tmp_path, registry):
    """While others have all connections of a server, outcomes are kept; they are saved when there is one again."""
    settings = {"max_connections": "12", "superuser_reserved_connections": "0"}
    server = migrated_server.copied(tmp_path / "data", settings)
    server.start()
    workers = Workers(server.conninfo)
    try:
        shift = Shift(workers, registry, dead_for=timedelta(seconds=6), heartbeat_interval=timedelta(seconds=1))
        with ExitStack() as others:
            hogs = [others.enter_context(closing(psycopg.connect(server.conninfo, autocommit=True)))]

            def has_all() -> bool:
                hogs[0].execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'test'"
                )
                with suppress(psycopg.OperationalError):
                    while True:
                        hogs.append(others.enter_context(closing(psycopg.connect(server.conninfo, autocommit=True))))
                return len(hogs) == 12

            wait_until(has_all, PATIENCE)
            shift.may_end.set()
            with pytest.raises(TimeoutError) as caught:
                shift.service.wait_for_job(shift.jobs[0].id, 0)
            assert "too many clients" in str(caught.value.__cause__)
            shift.wait_for("down", "workers", "listener")
        shift.check(server.conninfo)
        shift.wait_for("up", "workers", "listener")
    finally:
        workers.end()
        server.end()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes are set on Linux only")
def test_a_full_disk_is_waited_for(server, exposed, registry, caplog):
    """While the server cannot store a result its outcome is kept, and saved when there is room: nothing runs twice."""
    ran, may_end = [], threading.Event()

    @registry.handler("big")
    def work(number: int) -> str:
        ran.append(number)
        assert may_end.wait(PATIENCE)
        return random.randbytes(400_000).hex()

    service = exposed.service(dead_for=timedelta(seconds=10), heartbeat_interval=timedelta(seconds=1))
    service.add_jobs([Job.new("filler", random.randbytes(500_000).hex()) for _ in range(20)])
    exposed.start_on(service, registry, 2)
    jobs = [service.enqueue("big", number) for number in range(2)]
    wait_until(lambda: len(ran) == 2)
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as db:
        size = "select pg_relation_size(reltoastrelid) from pg_class where oid = 'worker.job'::regclass"
        full = fetch_all(db, size)[0]
        assert full > SIZE_OF_A_WAL_SEGMENT
        limit_files(db, server.pid, full)
        may_end.set()
        wait_until(lambda: "File too large" in caplog.text)
        wait_until(lambda: service.health()["parts"]["workers"]["state"] == "down")
        limit_files(db, server.pid, resource.RLIM_INFINITY)
    for job in jobs:
        ended = wait_for_end(service, job, PATIENCE)
        assert (ended.state, ended.run_count, ended.rescue_count) == (State.SUCCEEDED, 1, 0)
    assert sorted(ran) == [0, 1]
    assert service.health()["refused_outcomes"] == 0


SIZE_OF_A_WAL_SEGMENT = 16 * 2**20


def limit_files(db: psycopg.Connection, postmaster: int, size: int) -> None:
    """Have no file of a server grow beyond *size*: for its postmaster, which passes that on, and for its sessions."""
    sessions = "select pid from pg_stat_activity where backend_type = 'client backend'"
    for pid in [postmaster, *fetch_all(db, sessions)]:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
