"""What can be joined and what cannot, and how frameworks go on knowing what state their connections are in."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import flask_sqlalchemy
import psycopg
import psycopg2
import psycopg2.pool
import psycopg_pool
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio
import sqlalchemy.orm
from psycopg2.extras import RealDictConnection

from jobqueue import DuplicateJobError, InvalidJobError, RefusedError, UnavailableError
from jobqueue.queue_service import QueueService
from tests.fixtures.django import set_django_up
from tests.fixtures.joining import url_of
from tests.fixtures.stores import Connection, fetch_all, make_job


@pytest.fixture
def engine(queue: str) -> Iterator[sqlalchemy.Engine]:
    """SQLAlchemy's way to the queue."""
    made = sqlalchemy.create_engine(url_of(queue, "psycopg2"))
    yield made
    made.dispose()


@pytest.fixture
def django(queue: str) -> Iterator[Any]:
    """Django's database module, its ``default`` connection closed in the end."""
    set_django_up(queue)
    import django.db

    yield django.db
    django.db.connections.close_all()


class Opened:
    """Makes what cannot be joined."""

    def __init__(self, conninfo: str, stack: ExitStack) -> None:
        self.conninfo, self.stack = conninfo, stack

    def engine(self) -> Any:
        made = sqlalchemy.create_engine(url_of(self.conninfo, "psycopg"))
        self.stack.callback(made.dispose)
        return made

    def sessionmaker(self) -> Any:
        return sqlalchemy.orm.sessionmaker(self.engine())

    def async_engine(self) -> Any:
        return sqlalchemy.ext.asyncio.create_async_engine(url_of(self.conninfo, "psycopg"))

    def async_connection(self) -> Any:
        return sqlalchemy.ext.asyncio.AsyncConnection(self.async_engine())

    def async_session(self) -> Any:
        return sqlalchemy.ext.asyncio.AsyncSession(self.async_engine())

    def extension(self) -> Any:
        return flask_sqlalchemy.SQLAlchemy()

    def pool(self) -> Any:
        return self.stack.enter_context(psycopg_pool.ConnectionPool(self.conninfo, min_size=0, max_size=1, open=False))

    def pool2(self) -> Any:
        made = psycopg2.pool.SimpleConnectionPool(0, 1, self.conninfo)
        self.stack.callback(made.closeall)
        return made

    def async_psycopg(self) -> Any:
        return psycopg.AsyncConnection.__new__(psycopg.AsyncConnection)

    def stranger(self) -> Any:
        return asyncio.Lock()


@pytest.mark.parametrize(
    ("kind", "named", "way_out"),
    [
        ("engine", "sqlalchemy.engine.base.Engine", "give a Session or a Connection"),
        ("sessionmaker", "sqlalchemy.orm.session.sessionmaker", "give a session that it has made"),
        ("async_engine", "AsyncEngine", "run_sync"),
        ("async_connection", "AsyncConnection", "run_sync"),
        ("async_session", "AsyncSession", "run_sync"),
        ("extension", "flask_sqlalchemy", "db.session"),
        ("pool", "psycopg_pool", "one of its connections"),
        ("pool2", "psycopg2.pool", "one of its connections"),
        ("async_psycopg", "AsyncConnection", "synchronous"),
        ("stranger", "asyncio.locks.Lock", "without it the job is added in a transaction of its own"),
    ],
)
def test_what_cannot_be_joined(service: QueueService, queue: str, kind: str, named: str, way_out: str) -> None:
    """It is a TypeError that names the type and the way out, and nothing is added."""
    with ExitStack() as stack:
        given = getattr(Opened(queue, stack), kind)()
        with pytest.raises(TypeError, match=named) as caught:
            service.enqueue("t", 1, connection=given)
        assert way_out in str(caught.value)
    assert service.get_status().is_zero


@pytest.mark.parametrize("name", ["asyncpg.connection", "pg8000.legacy"])
def test_other_drivers_are_named(service: QueueService, name: str) -> None:
    """Connections of drivers that cannot be joined are told which can."""
    given = type("Connection", (), {"__module__": name})()
    with pytest.raises(TypeError, match=f"{name}.Connection: the queue is joined by psycopg or psycopg2"):
        service.enqueue("t", 1, connection=given)


def test_another_database(service: QueueService, django: Any) -> None:
    """A connection to SQLite is an InvalidJobError that names it, by SQLAlchemy as by Django."""
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection, sqlalchemy.orm.Session(engine) as session:
        for given in (connection, session):
            with pytest.raises(InvalidJobError, match="sqlite by pysqlite"):
                service.enqueue("t", 1, connection=given)
    engine.dispose()
    for given in ("lite", django.connections["lite"]):
        with pytest.raises(InvalidJobError, match="'lite' of Django is SQLite") as caught:
            service.enqueue("t", 1, connection=given)
        assert caught.value.field == "connection"
    assert service.get_status().is_zero


def test_an_alias_that_there_is_not(service: QueueService, django: Any, queue: str) -> None:
    """It is named, and so are those that there are; what may be a conninfo with a password in it is not."""
    with pytest.raises(InvalidJobError, match=r"'replica' is none: settings\.DATABASES has 'default', "):
        service.enqueue("t", 1, connection="replica")
    with pytest.raises(InvalidJobError) as caught:
        service.enqueue("t", 1, connection="postgresql://me:secret@host/db")
    assert "secret" not in str(caught.value)


REFUSED = """
import sys
from jobqueue_pg.joining import joined

def refuse():
    try:
        joined("default")
    except TypeError as error:
        assert "'default' is none" in str(error), error
        print(str(error).rpartition(": ")[2])

refuse()
assert not {"django", "sqlalchemy", "psycopg2", "flask"} & set(sys.modules)
import django.conf
refuse()
"""


def test_a_name_where_django_is_not_set_up() -> None:
    """A str is a TypeError where it cannot be an alias; and no framework is imported to find that out."""
    ran = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "Django is not in use in this process",
        "Django has no settings in this process",
    ]


def test_closed_connections(service: QueueService, queue: str, engine: sqlalchemy.Engine) -> None:
    """They are an UnavailableError, as one of psycopg is."""
    raw = psycopg2.connect(queue)
    raw.close()
    connection = engine.connect()
    connection.close()
    for given in (raw, connection):
        with pytest.raises(UnavailableError, match="closed"):
            service.enqueue("t", 1, connection=given)


# --- SQLAlchemy


def test_pending_objects_are_not_flushed(service: QueueService, engine: sqlalchemy.Engine, db: Connection) -> None:
    """To flush is for the session to do, when it commits: the job and the object stand or fall together."""
    base: Any = sqlalchemy.orm.declarative_base()
    row = type("Own", (base,), {"__tablename__": "own", "id": sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)})
    base.metadata.create_all(engine)
    with sqlalchemy.orm.Session(engine) as session:
        session.add(row(id=1))
        service.enqueue("t", 1, connection=session)
        assert len(session.new) == 1
        session.commit()
    with suppress(sqlalchemy.exc.IntegrityError), sqlalchemy.orm.Session(engine) as session:
        session.add(row(id=1))
        service.enqueue("t", 2, connection=session)
        session.commit()
    base.metadata.drop_all(engine)
    assert [job.payload for job in service.get_all_jobs_to_do()] == [1]


def test_a_session_begins_with_the_job(service: QueueService, engine: sqlalchemy.Engine, db: Connection) -> None:
    """Where the job is the first of the transaction, commit() commits it, and to leave the block takes it back."""
    for make in (lambda: sqlalchemy.orm.Session(engine), engine.connect):
        for commits in (False, True):
            with make() as given:
                service.enqueue("t", 1, connection=given)
                assert given.in_transaction()
                if commits:
                    given.commit()
    assert fetch_all(db, "select count(*) from worker.job") == [2]


def test_an_autocommit_connection(service: QueueService, engine: sqlalchemy.Engine, db: Connection) -> None:
    """On a connection of SQLAlchemy that is autocommit, a job exists as soon as it was added."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        service.add_jobs([make_job() for _ in range(120)], connection=connection)
        service.enqueue("t", 1, unique_key="k", connection=connection)
        assert fetch_all(db, "select count(*) from worker.job") == [121]


def test_a_session_of_several_engines(service: QueueService, engine: sqlalchemy.Engine, db: Connection) -> None:
    """One that does not say which is meant is told to name the connection itself."""
    base: Any = sqlalchemy.orm.declarative_base()
    row = type("Own", (base,), {"__tablename__": "own", "id": sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)})
    with sqlalchemy.orm.Session(binds={row: engine}) as session:
        with pytest.raises(InvalidJobError, match="bind_arguments"):
            service.enqueue("t", 1, connection=session)
        service.enqueue("t", 1, connection=session.connection(bind_arguments={"bind": engine}))
        session.commit()
    assert fetch_all(db, "select count(*) from worker.job") == [1]


def test_a_session_that_has_to_be_rolled_back_says_so(service: QueueService, engine: sqlalchemy.Engine) -> None:
    """What SQLAlchemy says of its own transaction is raised as it is, and nothing is added beside it."""
    base: Any = sqlalchemy.orm.declarative_base()
    row = type("None_", (base,), {"__tablename__": "n", "id": sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)})
    with sqlalchemy.orm.Session(engine) as session:
        session.add(row(id=1))
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            session.flush()
        with pytest.raises(sqlalchemy.exc.PendingRollbackError):
            service.enqueue("t", 1, connection=session)
        session.rollback()
        service.enqueue("t", 2, connection=session)
        session.commit()
    assert [job.payload for job in service.get_all_jobs_to_do()] == [2]


# --- Django


def test_outside_of_a_block_django_is_autocommit(service: QueueService, django: Any, db: Connection) -> None:
    """A job that is added outside of `atomic` exists at once."""
    service.enqueue("t", 1, connection="default")
    service.add_jobs([make_job() for _ in range(120)], connection=django.connection)
    service.enqueue("t", 1, unique_key="k", connection="default")
    assert fetch_all(db, "select count(*) from worker.job") == [122]


def test_an_error_breaks_the_block_as_djangos_own_do(service: QueueService, django: Any, db: Connection) -> None:
    """After a failed statement the block says so, and its end takes all back; a block around it goes on."""
    job = service.enqueue("t", 1)
    with django.transaction.atomic():
        service.enqueue("t", 2, connection="default")
        with suppress(DuplicateJobError), django.transaction.atomic():
            service.add_job(make_job(id=job.id), connection="default")
        service.enqueue("t", 3, connection="default")
        with django.transaction.atomic():
            service.enqueue("t", 4, connection="default")
            with pytest.raises(DuplicateJobError):
                service.add_job(make_job(id=job.id), connection="default")
            assert django.transaction.get_rollback()
            for call in (
                lambda: service.enqueue("t", 5, connection="default"),
                lambda: django.connection.cursor().execute("select 1"),
            ):
                with pytest.raises(django.transaction.TransactionManagementError):
                    call()
    assert [job.payload for job in service.get_all_jobs_to_do()] == [1, 2, 3]


def test_a_conflict_of_keys_does_not_break_the_block(service: QueueService, django: Any) -> None:
    """What is undone by a savepoint of ours is nothing that Django has to know of."""
    service.enqueue("t", 1, unique_key="k")
    with django.transaction.atomic():
        with pytest.raises(DuplicateJobError):
            service.enqueue("t", 2, unique_key="k", on_conflict="raise", connection="default")
        service.enqueue("t", 3, connection="default")
    assert [job.payload for job in service.get_all_jobs_to_do()] == [1, 3]


def test_settings_of_django_do_not_show(service: QueueService, django: Any) -> None:
    """Django has JSON and moments come in its own ways; of our jobs that is not true."""
    service.enqueue("t", {"a": [1]}, unique_key="k")
    with django.transaction.atomic():
        django.connection.cursor().execute("set local timezone to 'Asia/Tokyo'")
        held = service.enqueue("t", 2, unique_key="k", connection="default")
    assert held.payload == {"a": [1]}
    assert str(held.created_at) == str(service.get_job(held.id).created_at)


def test_what_django_forbids_is_forbidden(service: QueueService, django: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that may not use the database, as SimpleTestCase has it, may not do so by us."""

    def refuse() -> Callable[[], object]:
        raise AssertionError("Database queries to 'default' are not allowed")

    django.connection.ensure_connection()
    monkeypatch.setattr(django.connections["default"], "cursor", refuse)
    with pytest.raises(AssertionError, match="not allowed"):
        service.enqueue("t", 1, connection="default")


# --- psycopg2


def test_a_connection_that_was_made_something_else_of(service: QueueService, queue: str) -> None:
    """Whatever cursors, types and encoding the application's connection has, jobs come and go as they are."""
    service.enqueue("t", {"é": 1}, unique_key="k")
    with closing(psycopg2.connect(queue, connection_factory=RealDictConnection)) as connection:
        connection.set_client_encoding("LATIN1")
        assert service.enqueue("t", 2, unique_key="k", connection=connection).payload == {"é": 1}
        service.add_jobs([make_job(payload="é") for _ in range(120)], connection=connection)
        with pytest.raises(RefusedError, match="encoding"):
            service.add_jobs([make_job(payload="☃") for _ in range(120)], connection=connection)
        connection.commit()
    assert len([job for job in service.get_all_jobs_to_do() if job.payload == "é"]) == 120


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_text_of_no_encoding_is_refused(service: QueueService, queue: str, driver: Any) -> None:
    """Where text would come as bytes, the way out is told, before anything is done; with it, all is as ever."""
    with closing(driver.connect(queue, client_encoding="SQL_ASCII")) as connection:
        for given in (connection, connection.cursor()):
            with pytest.raises(InvalidJobError, match=r"client_encoding SQL_ASCII.*set[ _]client_encoding"):
                service.enqueue("t", 1, connection=given)
        if driver is psycopg2:
            connection.set_client_encoding("UTF8")
        else:
            connection.execute("set client_encoding to 'UTF8'")
        service.enqueue("t", "é", unique_key="k", connection=connection)
        assert service.enqueue("t", 1, unique_key="k", connection=connection).payload == "é"


def test_a_broken_transaction_is_not_hidden(service: QueueService, queue: str) -> None:
    """Where a statement of the caller has failed before, adding fails as the next one would."""
    with closing(psycopg2.connect(queue)) as connection:
        with connection.cursor() as cursor, suppress(psycopg2.Error):
            cursor.execute("select 1 / 0")
        with pytest.raises(RefusedError, match="current transaction is aborted"):
            service.enqueue("t", 1, connection=connection)
    assert service.get_status().is_zero
