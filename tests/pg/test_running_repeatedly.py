"""What is run very often goes past the driver's cursors: prepared, and with everything else as if it did not."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import NoReturn

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import DuplicateJobError, Job, RefusedError
from jobqueue.queue_service import QueueService
from jobqueue_pg.pool import Pool, application_pool
from tests.fixtures.stores import Connection, fetch_all, make_job
from tests.fixtures.waiting import wait_until

DIVIDE = b"select 1 / $1::int"
PREPARED = "select count(*) from pg_prepared_statements where statement = %s"
OFTEN = 7  # the driver prepares what is run for the sixth time


class NoLuckError(Exception):
    pass


def fail_in_a_transaction(pool: Pool, statements: int) -> NoReturn:
    with pool.connection(isolation="read committed") as session:
        for _ in range(statements):
            session.execute("select 42")
        raise NoLuckError


@pytest.fixture
def pool(queue: str) -> Iterator[Pool]:
    """A pool of one connection."""
    with closing(application_pool(queue, 1)) as pool:
        yield pool


def test_prepared_at_the_second_run(pool: Pool) -> None:
    """A statement that is run once is not prepared; one that is run again is, once in a session."""
    prepared = list[int]()
    for _ in range(3):
        with pool.connection() as session:
            session.run_repeatedly(DIVIDE, ["1"])
            prepared += fetch_all(session, PREPARED, DIVIDE.decode())
    assert prepared == [0, 1, 1]


@pytest.mark.parametrize("statements", [1, OFTEN])
def test_after_a_transaction_was_rolled_back(pool: Pool, caplog: pytest.LogCaptureFixture, statements: int) -> None:
    """Whether or not the driver has had the server forget what was prepared, it is prepared again, without a word."""
    for _ in range(2):
        with pool.connection() as session:
            session.run_repeatedly(DIVIDE, ["1"])
    with pytest.raises(NoLuckError):
        fail_in_a_transaction(pool, statements)
    with pool.connection() as session:
        assert fetch_all(session, PREPARED, DIVIDE.decode()) == [0]
        for _ in range(2):
            session.run_repeatedly(DIVIDE, ["1"])
        assert fetch_all(session, PREPARED, DIVIDE.decode()) == [1]
    assert not caplog.records


def test_errors_leave_nothing_behind(queue: str) -> None:
    """However many calls are refused, with a transaction or without, a session has no more than it needs."""
    with closing(jobqueue_pg.connect(queue, pool_size=1, poll_only=True)) as service:
        known = make_job()
        service.add_job(known)
        for _ in range(10):
            for _ in range(2):
                service.enqueue("t", 1)
            with pytest.raises(DuplicateJobError):
                service.add_job(known)
            with pytest.raises(DuplicateJobError):
                service.add_jobs([make_job(), known])
        with service.store._database.pool.connection() as session:  # type: ignore[attr-defined]
            [kept] = fetch_all(session, "select count(*) from pg_prepared_statements where name ~ '^jobqueue'")
    assert kept <= 1


def test_preparations_that_are_lost(queue: str, caplog: pytest.LogCaptureFixture) -> None:
    """When what was prepared is not there, the call is made all the same, and nothing is prepared any more."""
    with closing(jobqueue_pg.connect(queue, pool_size=1, poll_only=True)) as service:
        for _ in range(2):
            service.enqueue("t", 1)
        with service.store._database.pool.connection() as session:  # type: ignore[attr-defined]
            session.execute("deallocate all")
        for _ in range(3):
            service.enqueue("t", 1)
        assert service.get_status().num_jobs == 5
    assert ["none is prepared any more" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("runs_before", [0, 1, 2])
def test_what_the_server_refuses(pool: Pool, runs_before: int) -> None:
    """An error of the server is the driver's error of that name, whichever run it is, and the session is used on."""
    with pool.connection() as session:
        for _ in range(runs_before):
            session.run_repeatedly(DIVIDE, ["1"])
        with pytest.raises(errors.DivisionByZero, match="division by zero"):
            session.run_repeatedly(DIVIDE, ["0"])
        session.run_repeatedly(DIVIDE, ["1"])


def test_what_cannot_be_prepared(pool: Pool) -> None:
    """A statement that the server cannot even read is its error, each time."""
    with pool.connection() as session:
        for _ in range(3):
            with pytest.raises(errors.SyntaxError):
                session.run_repeatedly(b"select from where", [])


def test_values_do_not_end_early(service: QueueService) -> None:
    """What PostgreSQL cannot store is refused, and not cut off there."""
    for payload in ("1\0", '"a\0b"', "\0"):
        with pytest.raises(RefusedError, match="NUL"):
            service.add_job(Job(id=make_job().id, type="t", payload_json=payload))
    assert service.get_status().is_zero


def test_values_of_every_kind(service: QueueService) -> None:
    """Each value is stored as it was given, however often the same statement was run before."""
    for payload in ("plain", "", "ünï\N{SNOWMAN}\U0001f600", "\\N\t\n'\"%s$1", {"a": [1, None, 2.5]}) * 2:
        job = service.enqueue("t\\'", payload, priority=-(2**63), max_retry_count=2**31 - 1)
        read = service.get_job(job.id)
        assert (read.type, read.payload, read.priority, read.max_retry_count) == (
            "t\\'",
            payload,
            -(2**63),
            2**31 - 1,
        )


def test_encodings_of_others(queue: str, db: Connection) -> None:
    """Where the conninfo names a narrower encoding, what it has is stored as it is, and the rest refused."""
    with closing(jobqueue_pg.connect(make_conninfo(queue, client_encoding="latin1"), poll_only=True)) as service:
        for _ in range(3):
            service.enqueue("é", "ü")
        with pytest.raises(RefusedError, match="encoding"):
            service.enqueue("t", "\N{SNOWMAN}")
    assert fetch_all(db, "select type || (payload #>> '{}') from worker.job") == ["éü"] * 3


def test_interrupted(service: QueueService, db: Connection, other_db: Connection) -> None:
    """Who waits for a lock can be interrupted; the statement is cancelled, and the next call goes through."""
    for _ in range(2):
        service.enqueue("t", 1)

    def interrupt() -> None:
        blocked = "select count(*) from pg_locks where not granted and relation = 'worker.job'::regclass"
        wait_until(lambda: fetch_all(other_db, blocked) == [1])
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    # Who started this process may have had it ignore the signal.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with db.transaction():
            db.execute("lock table worker.job in share mode")
            interrupter.start()
            with pytest.raises(KeyboardInterrupt):
                service.enqueue("t", 2)
        interrupter.join()
    finally:
        signal.signal(signal.SIGINT, previous)
    service.enqueue("t", 3)
    assert sorted(job.payload for job in service.list_jobs()) == [1, 1, 3]


def test_a_lost_connection(service: QueueService, db: Connection) -> None:
    """When its session is ended between two runs, a statement is run in another."""
    for payload in range(3):
        service.enqueue("t", payload)
    ours = "from pg_stat_activity where application_name = 'jobqueue'"
    assert True in fetch_all(db, f"select pg_terminate_backend(pid) {ours}")
    wait_until(lambda: fetch_all(db, f"select count(*) {ours}") == [0])
    for payload in range(3, 6):
        service.enqueue("t", payload)
    assert sorted(job.payload for job in service.list_jobs()) == list(range(6))


def test_a_closed_session(pool: Pool) -> None:
    """A connection that is closed meanwhile is the driver's OperationalError, as everywhere."""
    with pool.connection() as session:
        session.run_repeatedly(DIVIDE, ["1"])
        session.discard()
        with pytest.raises(psycopg.OperationalError):
            session.run_repeatedly(DIVIDE, ["1"])
