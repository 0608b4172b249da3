"""Prepared statements where sessions are lent: what runs is what was meant, or nothing is prepared."""

from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import jobqueue_pg
from jobqueue import Job, State
from jobqueue_pg.pool import application_pool
from jobqueue_pg.store import PostgresStore
from tests.fixtures.pgbouncer import pgbouncer_before
from tests.fixtures.stores import fetch_all, make_job

OFTEN = 7  # the driver prepares what is run for the sixth time
UNTRACKED = "the pooler before the database keeps no track of prepared statements"


@pytest.fixture
def eager(pooled):
    """Open services with one connection each, which are told that the pooler keeps track of statements."""
    with ExitStack() as stack:

        def connect():
            service = jobqueue_pg.connect(pooled, origin="tests", poll_only=True, pool_size=1, prepared_statements=True)
            return stack.enter_context(closing(service))

        yield connect


@pytest.fixture
def hold(pooled):
    """Take the session that the pooler would lend next; return how to give it back, as the one that is lent next."""
    with ExitStack() as stack:

        def take():
            client = stack.enter_context(closing(psycopg.connect(pooled, prepare_threshold=None)))
            client.execute("select 1")
            return client.commit

        yield take


def warnings(caplog, words):
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_a_statement_is_never_taken_for_another(eager, hold, caplog, db):
    """Where the pooler passes names on, two services whose first statements differ do what each was asked for."""
    deleting, cancelling = eager(), eager()
    jobs = cancelling.add_jobs([Job.new("t", n) for n in range(2 * OFTEN + 1)])
    for job in jobs[:OFTEN]:
        deleting.delete_job(job.id)
    give_back = hold()
    for job in jobs[OFTEN:-1]:
        assert cancelling.cancel_job(job.id)
    hold()
    give_back()
    # In the session in which the other service has prepared its statement, if it has.
    assert cancelling.cancel_job(jobs[-1].id)
    assert cancelling.get_job(jobs[-1].id).state is State.CANCELLED
    assert len(warnings(caplog, UNTRACKED)) == 2


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_looking_for_a_track_leaves_nothing_behind(queue, pg_dsn, caplog, mode):
    """How a pooler treats prepared statements is found out once for a pool, and no statement is left in a session."""
    with pgbouncer_before(pg_dsn, mode) as address, ExitStack() as stack:
        pool = stack.enter_context(closing(application_pool(make_conninfo(queue, **address), 2, prepares=True)))
        for session in [stack.enter_context(pool.connection()) for _ in range(2)]:
            for _ in range(OFTEN):
                session.execute("select 42")
            assert fetch_all(session, "select statement from pg_prepared_statements") == []
    assert len(warnings(caplog, UNTRACKED)) == 1


def test_a_call_survives_a_statement_of_another(queue, db, caplog):
    """A statement of other parameters under the driver's name is not run: what was to be done is done, unprepared."""
    with closing(PostgresStore(queue, pool_size=1, prepared_statements=True)) as store:
        for _ in range(OFTEN):
            store.add_job(make_job(), delay=None)
        with store._database.pool.connection() as session:
            [name] = map(sql.Identifier, fetch_all(session, "select name from pg_prepared_statements"))
            for statement in (sql.SQL("deallocate {}"), sql.SQL("prepare {} (int) as select $1")):
                session.execute(statement.format(name), prepare=False)
        store.add_job(make_job(), delay=None)
    assert fetch_all(db, "select count(*) from worker.job") == [OFTEN + 1]
    assert len(warnings(caplog, "none is prepared any more")) == 1


def test_breaches_of_the_protocol_by_others_are_not_tried_again(queue, db):
    """A pooler's own errors have that code too, and say nothing of what became of a statement: it is run once."""
    with closing(PostgresStore(queue, pool_size=1)) as store:
        db.execute(
            "create sequence public.attempts; create function public.breach() returns trigger language plpgsql as $$ "
            "begin perform nextval('public.attempts'); raise 'query_wait_timeout' using errcode = '08P01'; end $$; "
            "create trigger breach before insert on worker.job for each row execute function public.breach()"
        )
        try:
            with pytest.raises(jobqueue_pg.errors.UnavailableError, match="query_wait_timeout"):
                store.add_job(make_job(), delay=None)
            assert fetch_all(db, "select last_value, is_called from public.attempts") == [(1, True)]
        finally:
            db.execute("drop function public.breach() cascade; drop sequence public.attempts")


@pytest.mark.parametrize("word", ["yes", 1, "False"])
def test_whether_to_prepare_is_yes_no_or_unknown(queue, word):
    """What is neither a bool nor None is refused, before anything is connected."""
    with pytest.raises(TypeError, match="prepared_statements"):
        jobqueue_pg.connect(queue, prepared_statements=word)
