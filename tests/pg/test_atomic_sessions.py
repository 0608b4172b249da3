"""Sessions of atomic handlers: what one handler leaves behind, the next one does not find."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import ClientCursor, IsolationLevel, ServerCursor
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader

from jobqueue import JobContext, State
from jobqueue_pg.store import PostgresStore
from jobqueue_pg.worker_store import PostgresWorkerStore
from tests.fixtures.stores import Clock, Connection, fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import Workers, wait_for_end

Act = Callable[[Connection], object]

OWN_LOCKS: LiteralString = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"


@pytest.fixture
def clock() -> Clock:
    """Nobody here waits for a time to come."""
    return Clock(None)


@pytest.fixture
def handlers(store: PostgresStore) -> Iterator[PostgresWorkerStore]:
    """The store of a worker pool with one connection for atomic handlers."""
    with closing(store.for_workers(atomic_connections=1)) as made:
        yield made


def sql(statement: LiteralString) -> Act:
    """Return what runs *statement*, and returns its first value."""

    def act(connection: Connection) -> object:
        cursor = connection.execute(statement)
        return [row[0] for row in cursor] if cursor.description else None

    return act


def pid_of(connection: Connection) -> int:
    return connection.info.backend_pid


LEFT_IN_THE_SESSION: dict[str, tuple[LiteralString, LiteralString]] = {
    "role": ("set role pg_monitor", "select current_user"),
    "user": ("set session authorization pg_monitor", "select session_user"),
    "temporary table": ("create temp table left_over ()", "select to_regclass('pg_temp.left_over')"),
    "advisory lock": ("select pg_advisory_lock(7)", OWN_LOCKS),
    "listen": ("listen left_over", "select pg_listening_channels()"),
    "search path": ("set search_path to pg_catalog", "show search_path"),
    "isolation": (
        "set session characteristics as transaction isolation level serializable",
        "show default_transaction_isolation",
    ),
    "read only": (
        "set session characteristics as transaction read only",
        "show default_transaction_read_only",
    ),
    "a setting of ours": (
        "set idle_in_transaction_session_timeout to '1h'",
        "show idle_in_transaction_session_timeout",
    ),
    "a setting of theirs": ("set app.who to 'x'", "select nullif(current_setting('app.who', true), '')"),
    "held cursor": (
        "declare left_over cursor with hold for select 1",
        "select name from pg_cursors where name = 'left_over'",
    ),
}


@pytest.mark.parametrize(("leave", "look"), LEFT_IN_THE_SESSION.values(), ids=LEFT_IN_THE_SESSION)
def test_what_is_left_in_the_session(handlers, leave, look):
    """It is undone in place: the next transaction is in the same session, which is as it was before."""
    with handlers.handler_transaction() as first:
        before, pid = sql(look)(first.connection), pid_of(first.connection)
    with handlers.handler_transaction() as second:
        second.connection.execute("commit")
        second.connection.execute(leave)
        assert sql(look)(second.connection) != before
    with handlers.handler_transaction() as third:
        assert (sql(look)(third.connection), pid_of(third.connection)) == (before, pid)


def _rolled_back(change: Act) -> Act:
    """Do what the driver allows only while no transaction is open."""

    def act(connection: Connection) -> None:
        connection.execute("rollback")
        change(connection)

    return act


def _setting(**values: object) -> Act:
    def act(connection: Connection) -> None:
        for name, value in values.items():
            setattr(connection, name, value)

    return act


class OwnServerCursor(ServerCursor[Any]):
    pass


LEFT_ON_THE_CONNECTION: dict[str, tuple[Act, Act]] = {
    "row factory": (_setting(row_factory=dict_row), lambda c: type(c.execute("select 1 as one").fetchone())),
    "cursor factory": (_setting(cursor_factory=ClientCursor), lambda c: type(c.cursor())),
    "server cursor factory": (_setting(server_cursor_factory=OwnServerCursor), lambda c: c.server_cursor_factory),
    "number of prepared statements": (_setting(prepared_max=1), lambda c: c.prepared_max),
    "prepare threshold": (_setting(prepare_threshold=None), lambda c: c.prepare_threshold),
    "adapters": (
        lambda c: c.adapters.register_loader("int4", TextLoader),
        lambda c: [type(value) for value in c.execute("select 1::int4").fetchone() or ()],
    ),
    "isolation level": (
        _rolled_back(_setting(isolation_level=IsolationLevel.SERIALIZABLE)),
        lambda c: c.isolation_level,
    ),
    "read only": (_rolled_back(_setting(read_only=True)), lambda c: c.read_only),
    "deferrable": (_rolled_back(_setting(deferrable=True)), lambda c: c.deferrable),
    "autocommit": (_rolled_back(_setting(autocommit=False)), lambda c: c.autocommit),
}


@pytest.mark.parametrize(("leave", "look"), LEFT_ON_THE_CONNECTION.values(), ids=LEFT_ON_THE_CONNECTION)
def test_what_is_left_on_the_connection(handlers, leave, look):
    """What a handler has set in Python holds for it alone."""
    with handlers.handler_transaction() as first:
        before, pid = look(first.connection), pid_of(first.connection)
    with handlers.handler_transaction() as second:
        leave(second.connection)
        assert look(second.connection) != before
    with handlers.handler_transaction() as third:
        assert (look(third.connection), pid_of(third.connection)) == (before, pid)


def test_who_listened_to_notices_hears_no_more(handlers):
    """Handlers of notices and of notifications go with the run that has added them."""
    heard = []
    with handlers.handler_transaction() as first:
        first.connection.add_notice_handler(heard.append)
        first.connection.add_notify_handler(heard.append)
        first.connection.execute("do $$ begin raise notice 'one'; end $$")
        assert len(heard) == 1
    with handlers.handler_transaction() as second:
        second.connection.execute("do $$ begin raise notice 'two'; end $$")
        second.connection.execute("commit; listen left_over; notify left_over")
        assert len(heard) == 1


def test_what_cannot_be_undone(handlers):
    """A session is given up with what cannot be undone in it, and the next handler has another one."""
    pids = set[int]()
    with ExitStack() as kept:
        with handlers.handler_transaction() as first:
            pids.add(pid_of(first.connection))
            first.connection.execute("prepare left_over as select 1")
        with handlers.handler_transaction() as second:
            pids.add(pid_of(second.connection))
            kept.enter_context(suppress(psycopg.Error))
            kept.enter_context(second.connection.pipeline())
        with handlers.handler_transaction() as third:
            pids.add(pid_of(third.connection))
            third.connection.execute("prepare left_over as select 1")
    assert len(pids) == 3


def test_a_session_that_hangs_or_ends_is_given_up(handlers, db):
    """That the session cannot be cleaned, as it is gone, is nothing that whoever has used it would hear of."""
    with handlers.handler_transaction() as first:
        pid = pid_of(first.connection)
        first.connection.execute("rollback")
        db.execute("select pg_terminate_backend(%s)", [pid])
        ours = "select count(*) from pg_stat_activity where pid = %s"
        wait_until(lambda: fetch_all(db, ours, pid) == [0])
    with handlers.handler_transaction() as second:
        assert pid_of(second.connection) != pid


def test_statements_stay_prepared(handlers):
    """What the driver has prepared for one handler serves the next: it is not planned anew."""
    statement = "select count(*) from worker.job where type = %s"
    for _ in range(7):
        with handlers.handler_transaction() as opened:
            opened.connection.execute(statement, ["t"])
            opened.is_saved = True  # what is rolled back makes the driver forget all
    with handlers.handler_transaction() as opened:
        prepared = "select count(*) from pg_prepared_statements where statement like '%from worker.job where type = $1'"
        assert sql(prepared)(opened.connection) == [1]


def test_an_advisory_lock_of_a_handler_that_failed(workers, registry, db, other_db):
    """Rolling back does not free it; ending the run does, also for other sessions."""
    service = workers.service(atomic_connections=1)

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> None:
        ctx.connection.execute("select pg_advisory_lock(8)")
        assert fetch_all(other_db, "select pg_try_advisory_lock(8)") == [False]
        raise ValueError("no luck")

    job = service.enqueue("t", 1)
    workers.start_on(service, registry, 1)
    assert wait_for_end(service, job).state is State.FAILED
    assert fetch_all(db, "select pg_try_advisory_lock(8)") == [True]


def test_the_work_of_a_handler_that_leaves_much_behind_counts(workers, registry, db):
    """Runs that commit with a role, a path and a table of their own follow each other in one session."""
    service = workers.service(atomic_connections=1)
    found = []

    @registry.handler("t", atomic=True)
    def work(ctx: JobContext, number: int) -> int:
        look = "select current_user = session_user, current_setting('search_path'), to_regclass('pg_temp.own')"
        found.append((pid_of(ctx.connection), *ctx.connection.execute(look).fetchall()))
        ctx.connection.execute("create temp table own (number int)")
        ctx.connection.execute("set search_path to pg_catalog")
        ctx.connection.execute("grant all on all tables in schema worker to pg_monitor")
        ctx.connection.execute("grant usage on schema worker to pg_monitor")
        ctx.connection.execute("set role pg_monitor")
        return number

    jobs = [service.enqueue("t", number) for number in range(3)]
    workers.start_on(service, registry, 1)
    try:
        assert [wait_for_end(service, job).result for job in jobs] == [0, 1, 2]
    finally:
        db.execute("revoke all on all tables in schema worker from pg_monitor")
        db.execute("revoke usage on schema worker from pg_monitor")
    assert len(set(found)) == 1
    assert found[0][1][0] is True
    assert found[0][1][2] is None


def test_a_connection_to_a_pooler(pooled, registry):
    """What a handler has set in Python is undone behind a pooler, too, whether it fails or not."""
    made = Workers(pooled)
    try:
        service = made.service(atomic_connections=1, poll_only=True, poll_interval=timedelta(seconds=0.1))

        @registry.handler("t", atomic=True)
        def work(ctx: JobContext, number: int) -> str:
            [row] = ctx.connection.execute("select 1 as one").fetchall()
            ctx.connection.row_factory = dict_row
            if number == 1:
                raise ValueError("no luck")
            return type(row).__name__

        jobs = [service.enqueue("t", number) for number in range(3)]
        made.start_on(service, registry, 1)
        assert [wait_for_end(service, job).result for job in jobs] == ["tuple", None, "tuple"]
    finally:
        made.end()
