"""A queue behind PgBouncer in transaction mode: each transaction may be in another session, and all are others' too."""

import logging
import threading
from collections import Counter
from contextlib import ExitStack, closing
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import jobqueue_pg
from jobqueue import Job, JobBundle, JobDesc, LockTimeoutError, SchemaError, State, WorkerPool, WorkerSettings
from jobqueue.outcomes import Outcome
from jobqueue_pg import sessions
from jobqueue_pg.pool import application_pool, handler_pool, worker_pool
from jobqueue_pg.sessions import is_lent
from jobqueue_pg.store import PostgresStore
from tests.fixtures.pgbouncer import POOL_SIZE, pgbouncer_before
from tests.fixtures.stores import CLAIMANT, assert_counts_true, claim_one, fetch_all, insert_job, make_job, row_of
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import QUIET, Workers, wait_for_end

SOON = timedelta(seconds=0.1)
DEAF = "jobs are found by polling only"


@pytest.fixture
def service(pooled):
    """A service whose connections all lead through PgBouncer."""
    settings = WorkerSettings(poll_interval=SOON)
    with closing(jobqueue_pg.connect(pooled, origin="tests", poll_only=True, settings=settings)) as service:
        yield service


@pytest.fixture
def workers(pooled):
    """Worker pools whose connections all lead through PgBouncer."""
    made = Workers(pooled)
    yield made
    made.end()


def warnings(caplog, words):
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


# --- everything works


def test_a_pooler_is_recognised(queue, pooled, pg_dsn):
    """Sessions that a pooler lends are told from a connection's own, whether it lends them for long or not."""
    with pgbouncer_before(pg_dsn, "session") as address:
        for conninfo, lent in ((queue, False), (pooled, True), (make_conninfo(queue, **address), True)):
            with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
                assert is_lent(connection) is lent


def test_enqueuing_is_part_of_a_callers_transaction_through_the_pooler(service, pooled, db):
    """A job that is added on a pooled connection is there with its transaction's commit, and not with its rollback."""
    with closing(psycopg.connect(pooled, prepare_threshold=None)) as caller:
        for _ in range(8):
            service.enqueue("kept", 1, connection=caller)
        assert fetch_all(db, "select count(*) from worker.job") == [0]
        caller.commit()
        service.enqueue("never", 1, connection=caller)
        service.add_bundle(JobBundle.new("never", [JobDesc(1, type="never")], origin="o"), connection=caller)
        caller.rollback()
    assert fetch_all(db, "select type, count(*) from worker.job group by 1") == [("kept", 8)]
    assert fetch_all(db, "select count(*) from worker.job_bundle") == [0]


@pytest.mark.parametrize("batch_size", [1, 20])
def test_worker_threads_through_the_pooler(service, workers, registry, db, batch_size):
    """Many threads add and run many jobs, more than there are sessions: each runs once, and bundles count right."""
    runs: Counter[int] = Counter()
    lock = threading.Lock()

    @registry.handler("work")
    def work(number: int) -> int:
        with lock:
            runs[number] += 1
        return number

    registry.register_func_for_job_type("after", lambda n: n)
    workers.start(registry, 8, poll_only=True, poll_interval=SOON, batch_size=batch_size)
    bundle = JobBundle.new(
        "b", [JobDesc(n, type="work") for n in range(1000, 1050)], on_stopped=JobDesc(1, type="after"), origin="o"
    )
    service.add_bundle(bundle)
    adding = [
        threading.Thread(target=lambda first=first: [service.enqueue("work", first + n) for n in range(10)])
        for first in range(0, 160, 10)
    ]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    wait_until(lambda: fetch_all(db, "select count(*) from worker.job where stopped_at is null") == [0], 30)
    assert runs == Counter([*range(160), *range(1000, 1050)])
    assert fetch_all(db, "select count(*) from worker.job where result is distinct from payload") == [0]
    assert fetch_all(db, "select completes_bundle_id from worker.job where type = 'after'") == [bundle.id]
    assert_counts_true(db)


def test_beats_and_the_reaper_through_the_pooler(workers, registry, db):
    """A job that runs for longer than dead_for keeps its claim, and one whose worker is silent is taken up."""
    ended = threading.Event()
    registry.register_func_for_job_type("long", ended.wait)
    registry.register_func_for_job_type("left", lambda n: n)
    silent = insert_job(
        db, type="left", started_at="2020-01-01", worker_alive_at="2020-01-01", claim_id=Job.new("t", 1).id
    )
    service = workers.service(
        poll_only=True,
        poll_interval=SOON,
        heartbeat_interval=timedelta(seconds=0.3),
        dead_for=timedelta(seconds=2),
    )
    for _ in range(2):
        workers.start_on(service, registry, 1)
    job = service.enqueue("long", 2.5)
    assert wait_for_end(service, job, 20).succeeded
    assert (row_of(db, job.id)["rescue_count"], row_of(db, job.id)["run_count"]) == (0, 1)
    assert wait_for_end(service, silent, 20).succeeded
    assert row_of(db, silent)["rescue_count"] == 1
    assert service.health()["lost_claims"] == 0


def test_managing_through_the_pooler(service, db):
    """Jobs are claimed by hand, waited for, listed, reset, cancelled, rescheduled and deleted; bundles are read."""
    bundle = JobBundle.new("b", [JobDesc(n, type="member") for n in range(3)])
    service.add_bundle(bundle)
    assert [job.payload for job in service.get_job_bundle(bundle.id).jobs] == [0, 1, 2]
    service.delete_job_bundle(bundle.id)
    first, second, third = (service.enqueue("t", n, delay=timedelta(hours=n) if n else None) for n in range(3))
    [claim] = service.claim(["t"])
    with claim:
        assert claim.job.id == first.id
        claim.finish("done")
    assert service.wait_for_job(first.id, timedelta(seconds=10)).result == "done"
    assert service.cancel_job(second.id)
    assert service.reschedule_job(third.id, first.start_at or service.get_job(first.id).created_at)
    assert [job.id for job in service.list_jobs(state=State.CANCELLED)] == [second.id]
    service.reset_job(first.id)
    assert service.get_job(first.id).state is State.AVAILABLE
    assert service.get_status().num_jobs == 3
    service.delete_jobs_of_type("t")
    assert service.get_status().is_zero


# --- what sessions are like


def backends_of(pooled):
    """Yield a connection into each of the sessions that the pooler lends, in a transaction that keeps it there."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(closing(psycopg.connect(pooled, prepare_threshold=None))) for _ in range(POOL_SIZE)
        ]
        pids = {client.execute("select pg_backend_pid()").fetchone() for client in clients}
        assert len(pids) == POOL_SIZE
        yield from clients


def test_sessions_of_other_clients_are_left_as_they_were(service, workers, registry, pooled):
    """After all kinds of our connections have worked through the pooler, no session has a setting or statement of ours.

    The settings that remain are those that PgBouncer itself keeps for each of its clients.
    """
    service.enqueue("t", 1)
    registry.register_func_for_job_type("t", lambda n: n)
    workers.start(registry, 4, poll_only=True, poll_interval=SOON)
    for job in [service.enqueue("t", n) for n in range(20)]:
        assert wait_for_end(service, job).succeeded
    with closing(handler_pool(pooled, 1)) as pool, pool.connection() as session:
        session.execute("select 1", prepare=True)
    workers.end()
    for client in backends_of(pooled):
        changed = fetch_all(client, "select name from pg_settings where source = 'session'")
        assert set(changed) <= {
            "application_name",
            "client_encoding",
            "DateStyle",
            "TimeZone",
            "standard_conforming_strings",
        }
        assert fetch_all(client, "select statement from pg_prepared_statements") == []
        assert fetch_all(client, "show timezone") != ["UTC"] or fetch_all(
            client, "select reset_val from pg_settings where name = 'TimeZone'"
        ) == ["UTC"]


def test_our_transactions_have_our_settings_through_the_pooler(migrated, pgbouncer):
    """Whatever the defaults of the database, they are READ COMMITTED, in UTC, and do not wait for locks for long."""
    name = sql.Identifier(conninfo_to_dict(migrated)["dbname"])
    with closing(psycopg.connect(migrated, autocommit=True)) as connection:
        for setting, value in (
            ("default_transaction_isolation", "serializable"),
            ("timezone", "Asia/Kathmandu"),
            ("idle_in_transaction_session_timeout", "1h"),
        ):
            connection.execute(sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), value))
    conninfo = make_conninfo(migrated, **pgbouncer)
    with (
        closing(application_pool(conninfo, 1)) as calls,
        closing(worker_pool(conninfo, timedelta(seconds=2))) as trips,
        closing(handler_pool(conninfo, 1)) as handlers,
    ):
        for pool, wanted in (
            (calls, {"transaction_isolation": "read committed", "timezone": "UTC"}),
            (trips, {"transaction_isolation": "read committed", "timezone": "UTC", "lock_timeout": "2s", "jit": "off"}),
            (handlers, {"transaction_isolation": "read committed", "idle_in_transaction_session_timeout": "0"}),
        ):
            for _ in range(2):
                with pool.connection() as session:
                    found = {
                        setting: fetch_all(session, "select current_setting(%s)", setting)[0] for setting in wanted
                    }
                assert found == wanted


def test_a_trip_through_the_pooler_does_not_wait_for_a_lock(pooled, db):
    """A row that somebody else holds is given up after lock_timeout, which is a setting of the trip's transaction."""
    with closing(PostgresStore(pooled)) as store, closing(store.for_workers(lock_timeout=SOON)) as worker_store:
        store.add_job(make_job(), delay=None)
        job = claim_one(worker_store)
        with db.transaction():
            db.execute("select from worker.job for update")
            with pytest.raises(LockTimeoutError):
                worker_store.save_outcomes([Outcome.finished(job, "1")])
        assert worker_store.save_outcomes([Outcome.finished(job, "1")]) == {job.id}


def test_what_fails_in_a_lent_session_is_rolled_back(pooled, db):
    """A block that raises leaves nothing behind, and its session is as good as new for the next one."""
    with closing(application_pool(pooled, 1)) as pool:

        def fail(statement):
            with pool.connection() as session:
                session.execute("delete from worker.job")
                session.execute(statement)
                raise ZeroDivisionError

        job_id = insert_job(db)
        for statement, error in (("select 1", ZeroDivisionError), ("select 1 / 0", psycopg.errors.DivisionByZero)):
            with pytest.raises(error):
                fail(statement)
        with pool.connection() as session:
            assert fetch_all(session, "select id from worker.job") == [job_id]


# --- prepared statements


@pytest.mark.parametrize(("prepares", "prepared"), [(None, True), (True, True), (False, False)])
def test_statements_are_prepared_unless_told_otherwise(queue, prepares, prepared):
    """In sessions of its own a pool of workers prepares its statements, unless it is told not to."""
    with closing(worker_pool(queue, SOON, prepares=prepares)) as pool, pool.connection() as session:
        session.execute("select 42")
        statements = fetch_all(session, "select statement from pg_prepared_statements")
        assert ("select 42" in statements) is prepared


def test_a_call_survives_a_lost_prepared_statement(queue, db, caplog):
    """What was to be done is done, without a prepared statement, and one line says so."""
    with closing(PostgresStore(queue, pool_size=1, prepared_statements=True)) as store:
        for _ in range(6):  # then psycopg has prepared the statement
            store.add_job(make_job(), delay=None)
        with store._database.pool.connection() as session:
            session.execute("do $$ begin execute 'deallocate all'; end $$", prepare=False)
        store.add_job(make_job(), delay=None)
    assert fetch_all(db, "select count(*) from worker.job") == [7]
    assert len(warnings(caplog, "none is prepared any more")) == 1


def test_prepared_statements_can_be_switched_off(queue):
    """A service that is told to prepares nothing, neither for calls nor for workers."""
    options = {"prepared_statements": False, "pool_size": 1}
    with closing(jobqueue_pg.connect(queue, **options)) as service, closing(service.store.for_workers()) as store:
        for _ in range(8):
            service.enqueue("t", 1)
            store.claim_jobs(["t"], 1, CLAIMANT)
        for database in (service.store._database, store._database):
            with database.pool.connection() as session:
                assert fetch_all(session, "select statement from pg_prepared_statements") == []


def test_migrations_need_a_session_of_their_own(migrated, pgbouncer, pg_dsn, monkeypatch):
    """Where sessions are lent for a transaction, migrate() refuses, and leaves no lock; in session mode it works."""
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "_SECONDS_TO_HEAR", 0.5)  # nothing comes, however long one waits
        with pytest.raises(SchemaError, match="through a connection to the server"):
            jobqueue_pg.migrate(make_conninfo(migrated, **pgbouncer))
    assert jobqueue_pg.migrate(migrated) == []
    with pgbouncer_before(pg_dsn, "session") as address:
        assert jobqueue_pg.migrate(make_conninfo(migrated, **address)) == []


def test_a_lost_prepared_statement_ends_preparing(queue, caplog):
    """When a statement is not prepared where it should be, one line says so, and nothing is prepared any more."""
    with closing(worker_pool(queue, SOON, prepares=True)) as pool:

        def lose_a_statement():
            with pool.connection() as session:
                session.execute("select 42")
                session.execute("do $$ begin execute 'deallocate all'; end $$", prepare=False)
                session.execute("select 42")

        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            lose_a_statement()
        for _ in range(2):
            with pool.connection() as session:
                assert fetch_all(session, "select 42") == [42]
                assert fetch_all(session, "select statement from pg_prepared_statements") == []
    assert len(warnings(caplog, "none is prepared any more")) == 1


# --- hearing


def test_a_service_that_would_hear_nothing_says_so_and_polls(pooled, registry, caplog):
    """Behind the pooler, without a word about listening, one warning names the ways out; jobs are found by polling."""
    settings = WorkerSettings(poll_interval=SOON)
    with closing(jobqueue_pg.connect(pooled, settings=settings)) as service:
        [warning] = warnings(caplog, DEAF)
        assert "listen_conninfo" in warning
        assert "poll_only=True" in warning
        registry.register_func_for_job_type("t", lambda n: n)
        with WorkerPool(service, registry, threads=1):
            assert wait_for_end(service, service.enqueue("t", 1)).succeeded
    assert "listener" not in service.health()["parts"]


def test_hearing_past_the_pooler(queue, pooled, registry, caplog):
    """With listen_conninfo to the server itself, workers and waiters hear at once what was added through the pooler."""
    settings = WorkerSettings(poll_interval=QUIET)
    with closing(jobqueue_pg.connect(pooled, settings=settings, listen_conninfo=queue)) as service:
        registry.register_func_for_job_type("t", lambda n: n)
        with WorkerPool(service, registry, threads=1):
            wait_until(lambda: service._notifier.is_listening)
            job = service.enqueue("t", 1)
            assert service.wait_for_job(job.id, timedelta(seconds=10)).succeeded
    assert warnings(caplog, DEAF) == []


def test_a_pooler_that_lends_sessions_for_long_is_heard_through(queue, pg_dsn, registry, caplog):
    """In session mode notifications come through the pooler, so that they are listened to."""
    with pgbouncer_before(pg_dsn, "session") as address:
        settings = WorkerSettings(poll_interval=QUIET)
        conninfo = make_conninfo(queue, **address)
        with closing(jobqueue_pg.connect(conninfo, settings=settings, pool_size=1)) as service:
            job = service.enqueue("t", 1)
            waiting = threading.Timer(0.2, lambda: [claim.finish(1) for claim in service.claim(["t"])])
            waiting.start()
            assert service.wait_for_job(job.id, timedelta(seconds=10)).succeeded
            waiting.join()
    assert warnings(caplog, DEAF) == []


@pytest.mark.parametrize("where", ["the pooler", "another database"])
def test_a_listen_conninfo_that_hears_nothing(queue, pooled, database, caplog, monkeypatch, where):
    """A listen_conninfo through the pooler, or to another database, is found out at once, and not listened to."""
    monkeypatch.setattr(sessions, "_SECONDS_TO_HEAR", 0.5)  # nothing comes, however long one waits
    deaf = pooled if where == "the pooler" else database
    with caplog.at_level(logging.WARNING), closing(jobqueue_pg.connect(queue, listen_conninfo=deaf)) as service:
        [warning] = warnings(caplog, DEAF)
        assert "listen_conninfo" in warning
        service.enqueue("t", 1)


def test_a_listen_conninfo_that_does_not_answer(queue, caplog):
    """Nobody there to listen to is no reason not to start: the listener tries again until there is."""
    nowhere = make_conninfo(queue, port=1, connect_timeout=2)
    with closing(jobqueue_pg.connect(queue, listen_conninfo=nowhere)) as service:
        assert warnings(caplog, DEAF) == []
        assert service.enqueue("t", 1).id
