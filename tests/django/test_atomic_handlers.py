"""Handlers that are atomic in Django's database: what they do is committed with the end of their job, or not at all."""

import contextlib
import logging
import threading
from contextlib import closing

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction

import jobqueue
from jobqueue import WorkerPool
from jobqueue.events import ClaimLost, RunEnded
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

NOTES = "select note from note order by note"


@pytest.fixture
def db(project):
    """Another session, and a table for what handlers do."""
    with closing(psycopg.connect(project, autocommit=True)) as session:
        session.execute("create table note (note text unique deferrable initially deferred)")
        yield session
        session.execute("drop table note")


@pytest.fixture
def run(db):
    """Run a job of a handler to its end."""
    service = jobqueue.current_service()

    def run(handler):
        job = handler.enqueue(1)
        with WorkerPool(service, threads=1):
            return wait_for_end(service, job)

    return run


def note(text):
    with connection.cursor() as cursor:
        cursor.execute("insert into note values (%s)", [text])


def test_committed_together(run, db):
    """The handler's work, and the end of its job, are in one transaction of the alias, in which on_commit() works."""
    seen = []

    @jobqueue.handler("h", atomic="default")
    def h(ctx: jobqueue.JobContext, payload: int) -> str:
        note("a")
        seen.append((ctx.connection.in_atomic_block, fetch_all(db, NOTES)))
        transaction.on_commit(lambda: seen.append((jobqueue.get_job(ctx.job.id).succeeded, fetch_all(db, NOTES))))
        return "done"

    assert run(h).result == "done"
    assert seen == [(True, []), (True, ["a"])]


def test_failed_together(run, db):
    """When the handler fails, nothing of what it did stays, and the job has failed."""
    called = []

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        note("a")
        jobqueue.enqueue("h", 2)
        transaction.on_commit(lambda: called.append("on_commit"))
        raise ValueError("no")

    assert run(h).error_msg == "no"
    assert (fetch_all(db, NOTES), called) == ([], [])
    assert jobqueue.get_status().num_jobs == 1


def test_savepoints(run, db):
    """Blocks within the handler are savepoints."""

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        note("a")
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            note("b")
            raise ZeroDivisionError

    assert run(h).succeeded
    assert fetch_all(db, NOTES) == ["a"]


@pytest.mark.parametrize("how", ["caught outside", "set_rollback"])
def test_marked_for_rollback(run, db, how):
    """When the transaction may only be rolled back, all of it is, and the run has failed without an error."""

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        note("a")
        if how == "set_rollback":
            transaction.set_rollback(True)
            return
        with contextlib.suppress(IntegrityError), transaction.atomic(savepoint=False):
            raise IntegrityError

    assert "all that was done is rolled back" in run(h).error_msg
    assert fetch_all(db, NOTES) == []


def test_refused_at_its_end(run, db):
    """What the database refuses when the transaction is committed is the error of the run."""

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        note("a")
        note("a")

    job = run(h)
    assert "duplicate key" in job.error_msg
    assert fetch_all(db, NOTES) == []


def test_lost_connection(run, db, caplog):
    """A handler whose session is ended is run again; of the first run nothing is left."""
    runs = []

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        note(f"run {len(runs)}")
        runs.append(connection.connection.info.backend_pid)
        if len(runs) == 1:
            fetch_all(db, "select pg_terminate_backend(%s, 5000)", runs[0])
            note("never")

    assert run(h).succeeded
    assert fetch_all(db, NOTES) == ["run 1"]
    assert len(set(runs)) == 2


@pytest.mark.parametrize("in_savepoint", [False, True])
def test_lost_connection_and_caught_error(run, db, in_savepoint):
    """So is one that catches the error of it, and goes on to its end."""
    runs = []

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        note(f"run {len(runs)}")
        runs.append(connection.connection.info.backend_pid)
        if len(runs) == 1:
            fetch_all(db, "select pg_terminate_backend(%s, 5000)", runs[0])
            with contextlib.suppress(OperationalError), transaction.atomic(savepoint=in_savepoint):
                note("never")

    job = run(h)
    assert (job.succeeded, job.rescue_count, fetch_all(db, NOTES)) == (True, 1, ["run 1"])


def raise_error():
    raise ValueError("the mail server is down")


def lose_connection():
    with connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pg_backend_pid(), 5000)")


def add_what_is_refused():
    jobqueue.enqueue("h", 1, unique_key="")


@pytest.mark.parametrize("callback", [raise_error, lose_connection, add_what_is_refused])
def test_error_after_the_commit(run, db, caplog, callback):
    """What is called after the commit can fail, and the job, which is committed, has not: one error says what did."""
    service, ended, lost = jobqueue.current_service(), [], []
    service.add_observer(ended.append, RunEnded)
    service.add_observer(lost.append, ClaimLost)

    @jobqueue.handler("h", atomic="default", max_retry_count=3)
    def h(payload):
        note("a")
        transaction.on_commit(callback)

    job = run(h)
    assert (job.succeeded, job.run_count, fetch_all(db, NOTES)) == (True, 1, ["a"])
    wait_until(lambda: ended)
    assert ([each.kind for each in ended], lost) == (["finished"], [])
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert (record.levelname, record.exc_info is not None) == ("ERROR", True)
    assert "'default' is committed" in record.getMessage()


def test_lost_claim(db):
    """When the job was cancelled meanwhile, nothing of what the handler did stays."""
    started, cancelled = threading.Event(), threading.Event()

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        note("a")
        started.set()
        assert cancelled.wait(10)

    job = h.enqueue(1)
    with WorkerPool(jobqueue.current_service(), threads=1):
        assert started.wait(10)
        assert jobqueue.cancel_job(job.id)
        cancelled.set()
    assert fetch_all(db, NOTES) == []


def test_every_alias_of_the_database(run, db):
    """Any alias that leads to the queue's database will do."""

    @jobqueue.handler("h", atomic="again")
    def h(payload):
        with connections["again"].cursor() as cursor:
            cursor.execute("insert into note values ('a')")
        assert not connection.in_atomic_block

    assert run(h).succeeded
    assert fetch_all(db, NOTES) == ["a"]


@pytest.mark.parametrize("alias", ["maintenance", "lite", "nowhere"])
def test_another_database(db, alias):
    """Where the end of the job could not be committed with what the handler does, no threads start."""

    @jobqueue.handler("h", atomic=alias)
    def h(payload):
        pass

    pool = WorkerPool(jobqueue.current_service(), threads=1)
    with pytest.raises(jobqueue.RegistrationError, match=f"atomic='{alias}'.*'again', 'default'"):
        pool.start()


def test_connections_are_closed(db):
    """Connections of worker threads are closed after each job that leaves them too old, and when the threads end."""
    connections_of_django = "select count(*) from pg_stat_activity where application_name = 'kept'"
    seen = []

    @jobqueue.handler("h")
    def h(payload):
        with connection.cursor() as cursor:
            cursor.execute("set application_name = 'kept'")
            cursor.execute("select pg_backend_pid()")
            seen.append(cursor.fetchone()[0])

    service = jobqueue.current_service()
    with WorkerPool(service, threads=1):
        wait_for_end(service, h.enqueue(1))
        wait_until(lambda: fetch_all(db, connections_of_django) == [0])
        connections.settings["default"]["CONN_MAX_AGE"] = None
        try:
            for _ in range(2):
                wait_for_end(service, h.enqueue(1))
        finally:
            connections.settings["default"]["CONN_MAX_AGE"] = 0
        assert fetch_all(db, connections_of_django) == [1]
    wait_until(lambda: fetch_all(db, connections_of_django) == [0])
    assert seen[1] == seen[2] != seen[0]


def test_broken_connections_are_replaced(db, caplog):
    """A connection that was ended between two jobs is no trouble to the second."""
    seen = []

    @jobqueue.handler("h", atomic="default")
    def h(payload):
        seen.append(connection.connection.info.backend_pid)

    caplog.set_level(logging.WARNING)
    service = jobqueue.current_service()
    with WorkerPool(service, threads=1):
        wait_for_end(service, h.enqueue(1))
        fetch_all(db, "select pg_terminate_backend(%s, 5000)", seen[0])
        job = wait_for_end(service, h.enqueue(1))
    assert (job.run_count, job.rescue_count, len(set(seen))) == (1, 0, 2)
    assert [each.getMessage() for each in caplog.records if each.name.startswith("jobqueue")] == []
