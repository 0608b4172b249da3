"""Loans of connections: how the transaction of a block ends, and what becomes of the connection."""

import contextlib
from collections.abc import Iterator
from contextlib import closing
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from jobqueue_pg.pool import Pool, application_pool
from tests.fixtures.stores import Connection, fetch_all, insert_job
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import connections_of

JOBS = "select count(*) from worker.job"
READ_COMMITTED = "read committed"


@pytest.fixture
def pool(queue: str, db: Connection) -> Iterator[Pool]:
    """A pool with one connection, whose session bears a name."""
    # The server may still be about to end that of the test before.
    wait_until(lambda: connections_of(db, "lent") == 0)
    with closing(application_pool(make_conninfo(queue, application_name="lent"), 1)) as pool:
        yield pool


def end_session(db: Connection) -> None:
    """Have the server end the session of the pool."""
    theirs = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'lent'"
    assert fetch_all(db, theirs) == [True]
    wait_until(lambda: fetch_all(db, theirs) == [])


def test_a_transaction_is_committed_at_the_end(pool: Pool, db: Connection) -> None:
    """What is done in the block is seen by others when it has ended, and not before."""
    with pool.connection(isolation=READ_COMMITTED) as session:
        insert_job(session)
        assert fetch_all(db, JOBS) == [0]
    assert fetch_all(db, JOBS) == [1]


def test_what_was_begun_by_hand_is_committed(pool: Pool, db: Connection) -> None:
    """A transaction that the block has begun by itself, and not ended, is committed like one of ours."""
    with pool.connection() as session:
        session.execute("begin")
        insert_job(session)
    assert fetch_all(db, JOBS) == [1]


@pytest.mark.parametrize("isolation", [None, READ_COMMITTED])
def test_an_error_rolls_back(pool: Pool, db: Connection, isolation: LiteralString | None) -> None:
    """What was done before an error is undone; the session is used again, and the error comes out as it is."""
    error = ZeroDivisionError()
    pids: list[int] = []

    def fail() -> None:
        with pool.connection(isolation=isolation) as session:
            pids.append(session.info.backend_pid)
            if isolation is None:
                session.execute("begin")
            insert_job(session)
            raise error

    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            fail()
        assert caught.value is error
    assert fetch_all(db, JOBS) == [0]
    assert len(set(pids)) == 1


def test_a_connection_lost_before_the_commit(pool: Pool, db: Connection) -> None:
    """Whoever has done something in a transaction that could not be committed is told, and the next one is served."""

    def lose_it() -> None:
        with pool.connection(isolation=READ_COMMITTED) as session:
            insert_job(session)
            end_session(db)
            wait_until(lambda: not session.is_alive)
            with contextlib.suppress(psycopg.OperationalError):
                session.execute("select 1")

    with pytest.raises(psycopg.OperationalError):
        lose_it()
    with pool.connection() as session:
        assert fetch_all(session, JOBS) == [0]


def test_what_cannot_begin(pool: Pool) -> None:
    """A connection on which no transaction can be begun is given back."""
    for _ in range(3):
        with pytest.raises(psycopg.errors.SyntaxError), pool.connection(isolation="nonsense"):
            pytest.fail("it has begun")
    with pool.connection(1) as session:
        assert fetch_all(session, "select 1") == [1]
