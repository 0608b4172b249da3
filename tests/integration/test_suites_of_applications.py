"""Suites of applications, run as their authors run them: by pytest with our plugin, by pytest-django, by Django's own.

Each looks for itself that jobs run in its transactions; afterwards the database must be empty.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

from tests.fixtures.django import database_settings
from tests.fixtures.joining import url_of

ROOT = Path(__file__).parents[2]

HANDLERS = """
import jobqueue

ran = []

@jobqueue.handler("greet")
def greet(name: str) -> str:
    ran.append(name)
    return f"hello {name}"
"""

PLUGIN = """
from datetime import timedelta
import jobqueue
from handlers import ran
from jobqueue.testing import assert_enqueued

def test_clock_and_drain(jobqueue_drain, jobqueue_clock, jobqueue_enqueued):
    jobqueue.enqueue("greet", "Ada", delay=timedelta(hours=1))
    assert assert_enqueued("greet", "Ada").start_at == jobqueue_clock.now() + timedelta(hours=1)
    assert len(jobqueue_drain()) == 0
    jobqueue_clock.advance(hours=1)
    assert [run.result for run in jobqueue_drain()] == ["hello Ada"]
    assert jobqueue_enqueued() == []

def test_each_has_its_own_queue(jobqueue_service):
    assert jobqueue_service.get_status().is_zero

def test_synchronous(jobqueue_synchronous):
    assert jobqueue.enqueue("greet", "Bob").result == "hello Bob"
"""

SESSION = """
import jobqueue, jobqueue_pg, pytest, sqlalchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from handlers import ran
from jobqueue.testing import assert_enqueued, drain

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]

current = None

@jobqueue.handler("pay", max_retry_count=1)
def pay(id: int) -> None:
    order = current.get(Order, id)
    order.state = "paid"
    jobqueue.enqueue("greet", "customer")
    current.commit()
    if id == 2:
        current.add(Order(id=1, state="twice"))
        current.flush()

@jobqueue.handler("atomic", atomic="session")
def atomic(ctx: jobqueue.JobContext, id: int) -> None:
    ctx.connection.get(Order, id).state = "done"
    if id == 2:
        raise ValueError

@pytest.fixture(scope="session")
def engine():
    engine = sqlalchemy.create_engine("{url}")
    with jobqueue_pg.init_job_queue("{conninfo}", transactions={{"session": Session}}):
        yield engine
    engine.dispose()

@pytest.fixture
def session(engine):
    global current
    with engine.connect() as connection, connection.begin() as transaction:
        Base.metadata.create_all(connection)
        with Session(connection, join_transaction_mode="create_savepoint") as current:
            current.add_all([Order(id=1, state="new"), Order(id=2, state="new")])
            current.commit()
            yield current
        transaction.rollback()

@pytest.fixture
def jobqueue_connection(session):
    return session

def states(session):
    session.expire_all()
    return [order.state for order in session.scalars(sqlalchemy.select(Order).order_by(Order.id))]

def test_handlers_commit(session, jobqueue_drain):
    jobqueue.enqueue("pay", 1)
    assert jobqueue_drain().types == ["pay", "greet"]
    assert states(session) == ["paid", "new"]

def test_a_failed_flush_is_mended(session, jobqueue_drain):
    jobqueue.enqueue("pay", 2)
    jobqueue.enqueue("pay", 1)
    drained = jobqueue_drain(raise_errors=False)
    assert [(run.type, run.kind) for run in drained] == [
        ("pay", "retry"), ("pay", "finished"), ("greet", "finished"), ("greet", "finished")]
    assert states(session) == ["paid", "paid"]

def test_atomic(session, jobqueue_drain):
    for id in (1, 2):
        jobqueue.enqueue("atomic", id)
    assert [run.kind for run in jobqueue_drain(raise_errors=False)] == ["finished", "failed"]
    assert states(session) == ["done", "new"]

def test_nothing_is_left(session):
    assert states(session) == ["new", "new"]
    assert jobqueue.get_status().is_zero
"""

SETTINGS = """
DATABASES = {{"default": {{**{database}, "TEST": {{"NAME": {name!r}}}}}}}
INSTALLED_APPS = ["shop"]
SECRET_KEY = "x"
USE_TZ = True
"""

SHOP = """
import jobqueue, jobqueue_pg
from django.db import connection, transaction

def joins():
    return connection if connection.in_atomic_block else None

service = None

def connected():
    global service
    if service is None:
        service = jobqueue_pg.connect("{conninfo}", joins=joins, transactions={{"default": transaction.atomic}})
    return service

@jobqueue.handler("insert")
def insert(value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("insert into worker.paused_type (type) values (%s)", [value])

@jobqueue.handler("atomic", atomic="default")
def atomic(ctx: jobqueue.JobContext, value: str) -> None:
    with ctx.connection.cursor() as cursor:
        cursor.execute("insert into worker.paused_type (type) values (%s)", [value])
    if value == "fails":
        raise ValueError
"""

TESTCASE = """
from datetime import timedelta
import jobqueue
from django.db import connection, transaction
from django.test import TestCase
from shop import connected
from handlers import ran
from jobqueue.testing import Clock, assert_enqueued, assert_not_enqueued, drain

def inserted():
    with connection.cursor() as cursor:
        cursor.execute("select type from worker.paused_type order by type")
        return [type for type, in cursor]

class Jobs(TestCase):
    def setUp(self):
        jobqueue.set_default_service(connected())
        assert jobqueue.get_status().is_zero

    def test_runs_in_the_transaction(self):
        with Clock() as clock:
            jobqueue.enqueue("greet", "Ada", delay=timedelta(hours=3))
            assert_enqueued("greet", "Ada")
            self.assertEqual(len(drain()), 0)
            clock.advance(hours=3)
            self.assertEqual(drain().types, ["greet"])
        assert_not_enqueued("greet")

    def test_rolled_back_blocks_take_their_jobs(self):
        try:
            with transaction.atomic():
                jobqueue.enqueue("greet", "Bob")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert_not_enqueued("greet")

    def test_broken_handlers(self):
        for value in ("a", "a", "b"):
            jobqueue.enqueue("insert", value)
        drained = drain(raise_errors=False)
        self.assertEqual([run.kind for run in drained], ["finished", "failed", "finished"])
        self.assertEqual(inserted(), ["a", "b"])

    def test_atomic_handlers(self):
        for value in ("works", "fails"):
            jobqueue.enqueue("atomic", value)
        with self.assertRaises(ValueError):
            drain("default")
        self.assertEqual(inserted(), ["works"])
"""

PYTEST_DJANGO = """
import jobqueue, pytest
from shop import connected
import handlers
from test_jobs import inserted

@pytest.fixture(autouse=True)
def service(db):
    with jobqueue.use_service(connected()):
        yield

@pytest.mark.parametrize("time", [1, 2])
def test_in_the_transaction_of_db(jobqueue_drain, jobqueue_clock, time):
    assert inserted() == []
    jobqueue.enqueue("insert", "x")
    assert jobqueue_drain().types == ["insert"]
    assert inserted() == ["x"]
"""


@pytest.fixture
def suite(tmp_path):
    """Writes files, and runs a command beside them."""

    def run(files: dict[str, str], *command: str, **environment: str) -> str:
        for name, text in {"handlers.py": HANDLERS, **files}.items():
            (tmp_path / name).write_text(textwrap.dedent(text))
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        ran = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            # Empty: as it is for an application, its plugins are found by themselves.
            env={
                **os.environ,
                "PYTEST_ADDOPTS": "",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "",
                "PYTHONPATH": f"{ROOT}:{tmp_path}",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    return run


PYTEST = ("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


def assert_empty(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        counts = connection.execute(
            "select (select count(*) from worker.job), (select count(*) from worker.paused_type), to_regclass('order')"
        ).fetchone()
    assert counts == (0, 0, None)


def test_the_plugin_without_a_database(suite):
    """Its fixtures work on a queue in memory, made for each test, where the application has no service."""
    assert "3 passed" in suite({"test_plugin.py": PLUGIN}, *PYTEST)


def test_a_session_that_is_rolled_back(suite, migrated):
    """Handlers may commit the session, and break it; in the end nothing of it was ever there."""
    url = url_of(migrated, "psycopg").render_as_string(hide_password=False)
    text = SESSION.format(url=url, conninfo=migrated)
    assert "4 passed" in suite({"test_session.py": text}, *PYTEST)
    assert_empty(migrated)


def test_django(suite, migrated):
    """Django's TestCase, by its own runner, and by pytest-django beside the fixture db; each test is rolled back."""
    database = database_settings(migrated)
    files = {
        "settings.py": SETTINGS.format(database=database, name=database["NAME"]),
        "shop.py": SHOP.format(conninfo=migrated),
        "test_jobs.py": TESTCASE,
        "test_db.py": PYTEST_DJANGO,
    }
    ran = suite(files, "django", "test", "--keepdb", "--noinput", "test_jobs", DJANGO_SETTINGS_MODULE="settings")
    assert "Ran 4 tests" in ran
    assert_empty(migrated)
    assert "6 passed" in suite(files, *PYTEST, "--reuse-db", DJANGO_SETTINGS_MODULE="settings")
    assert_empty(migrated)
