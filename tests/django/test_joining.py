"""Calls join the transaction that is open on the queue's alias, in every way in which Django has one open."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import override_settings

import jobqueue
from tests.fixtures.stores import fetch_all

TYPES = "select type from worker.job order by type"


@pytest.fixture
def other(project):
    """Another session, which sees what is committed."""
    with closing(psycopg.connect(project, autocommit=True)) as session:
        yield session


def enqueue(type="a", **options):
    return jobqueue.enqueue(type, 1, **options)


def test_autocommit(other):
    """Outside of a transaction a job is committed at once, by a connection of the queue's own."""
    job = enqueue()
    assert fetch_all(other, TYPES) == ["a"]
    assert jobqueue.get_job(job.id).type == "a"
    assert connection.connection is None


def test_atomic(other):
    """Within atomic() a job is there for this thread, and for others when the block has ended."""
    with transaction.atomic():
        job = enqueue()
        assert jobqueue.get_job(job.id).type == "a"
        assert jobqueue.get_status().num_jobs == 1
        assert fetch_all(other, TYPES) == []
    assert fetch_all(other, TYPES) == ["a"]


def test_rollback(other):
    """With the block all that was done in it is rolled back: what was added, and what was deleted."""
    kept = enqueue("b")
    with suppress(ZeroDivisionError), transaction.atomic():
        enqueue()
        jobqueue.delete_job(kept.id)
        assert jobqueue.get_status().num_jobs == 1
        raise ZeroDivisionError
    assert fetch_all(other, TYPES) == ["b"]


def test_savepoints(other):
    """A nested block that is rolled back takes its jobs with it, and no others."""
    with transaction.atomic():
        enqueue("a")
        with suppress(ZeroDivisionError), transaction.atomic():
            enqueue("b")
            raise ZeroDivisionError
        with transaction.atomic():
            enqueue("c")
    assert fetch_all(other, TYPES) == ["a", "c"]


def test_durable(other):
    """A durable block is one like any other."""
    with transaction.atomic(durable=True):
        enqueue()
    assert fetch_all(other, TYPES) == ["a"]


def test_on_commit(other):
    """What on_commit() calls finds the job committed, and enqueues without a transaction."""
    with transaction.atomic():
        enqueue("a")
        transaction.on_commit(lambda: enqueue("b"))
        transaction.on_commit(lambda: seen.extend(fetch_all(other, TYPES)))
        seen = []
    assert seen == ["a", "b"]


def test_without_autocommit(other):
    """Where autocommit was turned off, the project commits."""
    transaction.set_autocommit(False)
    try:
        enqueue("a")
        transaction.rollback()
        enqueue("b")
        assert fetch_all(other, TYPES) == []
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert fetch_all(other, TYPES) == ["b"]


def test_never_autocommit(other, monkeypatch):
    """Where the alias's settings turn it off, the first call of a thread joins, too, before any query."""
    monkeypatch.setitem(connections.settings[DEFAULT_DB_ALIAS], "AUTOCOMMIT", False)
    assert connection.connection is None
    enqueue()
    assert fetch_all(other, TYPES) == []
    transaction.commit()
    assert fetch_all(other, TYPES) == ["a"]


def test_each_thread_has_its_own(other):
    """A transaction in one thread is none of another's."""
    with transaction.atomic(), ThreadPoolExecutor(1) as executor:
        enqueue("a")
        executor.submit(enqueue, "b").result()
        assert fetch_all(other, TYPES) == ["b"]
        transaction.set_rollback(True)
    assert fetch_all(other, TYPES) == ["b"]


def test_a_broken_transaction(other):
    """After an error that was caught within the block, a call is refused as a query is, and says why."""
    with transaction.atomic():
        with suppress(IntegrityError), transaction.atomic(savepoint=False):
            raise IntegrityError
        with pytest.raises(TransactionManagementError, match="until the end of the 'atomic' block"):
            enqueue()
    assert fetch_all(other, TYPES) == []


def test_errors_of_the_queue(other):
    """What the queue refuses leaves the transaction as it was; an error of the database breaks it up to a savepoint."""
    with transaction.atomic():
        job = enqueue("a")
        with pytest.raises(jobqueue.PayloadError):
            jobqueue.enqueue("b", object())
        with pytest.raises(jobqueue.DuplicateJobError), transaction.atomic():
            jobqueue.add_job(jobqueue.Job.new("b", 1, id=job.id))
        enqueue("c")
    assert fetch_all(other, TYPES) == ["a", "c"]


def test_other_aliases(other):
    """A transaction of another alias is joined where it is named; another kind of database is refused."""
    with transaction.atomic(using="again"):
        enqueue("a")
        enqueue("b", connection="again")
        assert fetch_all(other, TYPES) == ["a"]
        transaction.set_rollback(True, using="again")
    with pytest.raises(jobqueue.InvalidJobError, match="'lite' of Django is SQLite"), transaction.atomic(using="lite"):
        enqueue("c", connection="lite")
    assert fetch_all(other, TYPES) == ["a"]


def test_handlers_join(other):
    """What a handler enqueues within atomic(), in its worker thread, is committed with the block."""
    told = threading.Event()

    @jobqueue.handler("outer")
    def outer(payload):
        with transaction.atomic():
            enqueue("a")
            transaction.set_rollback(True)
        with transaction.atomic():
            enqueue("b")
        told.set()

    outer.enqueue(1)
    with jobqueue.WorkerPool(jobqueue.current_service(), threads=1):
        assert told.wait(10)
    assert fetch_all(other, "select type from worker.job where type <> 'outer'") == ["b"]


@override_settings(JOBQUEUE={"DATABASE": "again", "UNKNOWN_TYPES": "allow"})
def test_the_alias_that_is_set(other):
    """It is the alias of JOBQUEUE whose transactions are joined."""
    with transaction.atomic(using="again"):
        enqueue("a")
        assert fetch_all(other, TYPES) == []
    with transaction.atomic():
        enqueue("b")
        assert fetch_all(other, TYPES) == ["a", "b"]
